"""Ensembles over several devices and hosts: each device runs a loop and a queue of its own."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec

from node_jax.types import PyTree


def shard(solve: Callable[..., Any], mesh: Mesh, axis: str) -> Callable[..., Any]:
    """Map a function over the first axis of its first argument, one part of it on each device.

    No device waits for another: the compiled program has no collective inside a loop, and the gradient with respect to
    the shared arguments is summed over the devices once, at the end.

    Args:
        solve: `solve(own, *shared)`, which solves for one entry of the ensemble. `own` is a pytree of what differs from
            solve to solve, such as the initial state, `shared` are pytrees; it returns a pytree of arrays.
        mesh: the devices, a `jax.sharding.Mesh`.
        axis: name of the axis of `mesh` over which the ensemble is divided.

    Returns:
        A function of the whole ensemble and of `shared`. Every leaf of the ensemble has a leading axis, whose size is a
        multiple of the number of devices; so has the result, divided over devices in the same way.

    Raises:
        ValueError: if `mesh` has no such axis, or its size does not divide the size of the ensemble.

    Example:
        >>> import jax, jax.numpy as jnp, node_jax as nj
        >>> def end(z0, rate):
        ...     return nj.odesolve(nj.testing.decay, z0, 0.0, 1.0, rate).z1
        >>> mesh = jax.make_mesh((jax.device_count(),), ("solves",))
        >>> shard(end, mesh, "solves")(jnp.ones(4), 0.0).shape
        (4,)
    """
    if axis not in mesh.axis_names:
        raise ValueError(f"axis must be one of {mesh.axis_names}, the axes of mesh, got {axis!r}")
    size, mesh = mesh.shape[axis], Mesh(mesh.devices, mesh.axis_names)  # without the types of its axes

    def whole(own: PyTree, *shared: Any) -> PyTree:
        for path, x in jax.tree_util.tree_leaves_with_path(own):
            if not jax.numpy.ndim(x) or jax.numpy.shape(x)[0] % size:
                where = jax.tree_util.keystr(path)
                shape = jax.numpy.shape(x)
                raise ValueError(f"the first axis of own{where} must be a multiple of {size} devices, got {shape}")
        spread = PartitionSpec(axis)

        def local(own, shared):
            return jax.vmap(lambda one: solve(one, *shared))(own)

        return jax.shard_map(local, mesh=mesh, in_specs=(spread, PartitionSpec()), out_specs=spread)(own, shared)

    return whole
