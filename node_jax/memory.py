"""Estimate how much memory the gradient by each strategy needs."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax import tree
from node_jax.adjoints.backsolve import Backsolve
from node_jax.adjoints.checkpointed import Checkpointed
from node_jax.adjoints.direct import Direct
from node_jax.adjoints.interpolated import Interpolated
from node_jax.adjoints.reversible import Reversible
from node_jax.control import Adaptive
from node_jax.methods import tsit5
from node_jax.odesolve import odesolve
from node_jax.types import PyTree, VectorField


class MemoryEstimate(NamedTuple):
    """Memory of a gradient besides inputs and outputs, in bytes.

    Attributes:
        compiled: what XLA sets apart for the compiled gradient, everything included.
        law: what the strategy stores along the steps, by its law.

    Example:
        >>> import node_jax as nj
        >>> found = nj.estimate_memory(nj.testing.decay, 1.0, 0.0, 1.0, 2.0, adjoints=(nj.Checkpointed(),))
        >>> found["Checkpointed()"].compiled > found["Checkpointed()"].law > 0
        True
    """

    compiled: int
    law: int


def estimate_memory(
    f: VectorField,
    z0: PyTree,
    t0: Any,
    t1: Any,
    theta: PyTree = None,
    *,
    lanes: int | None = None,
    adjoints: Any = (Checkpointed(), Backsolve(), Interpolated(), Reversible(), Direct()),
    method=tsit5,
    steps=Adaptive(),
    max_steps: int = 4096,
) -> dict[str, MemoryEstimate]:
    """Compile the gradient of a sum over `z1` by each strategy, without running it, and return the memory it needs.

    Args:
        f: vector field; this and the following arguments as in `odesolve`.
        z0: initial state.
        t0: initial time.
        t1: final time.
        theta: parameters.
        lanes: number of copies of `z0` that are solved under `vmap` with shared `theta`; default: one solve.
        adjoints: the strategy to compile, or several.
        method: an explicit Runge-Kutta method.
        steps: how steps are chosen.
        max_steps: largest number of trials.

    Returns:
        A dict with a `MemoryEstimate` for each strategy, by its `repr`.

    Example:
        >>> import node_jax as nj
        >>> found = nj.estimate_memory(nj.testing.decay, 1.0, 0.0, 1.0, 2.0, adjoints=(nj.Backsolve(),))
        >>> found["Backsolve()"].law
        0
    """
    z0 = jax.tree.map(jnp.asarray, z0)
    count = lanes or 1
    state = count * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(z0))
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), z0)
    limit: int = steps.trials(max_steps) or max_steps
    sizes = 0 if steps.exact_times else count * limit * tree.real_dtype(z0).itemsize
    found = {}
    for adjoint in adjoints if isinstance(adjoints, tuple | list) else (adjoints,):

        def loss(z0, theta, adjoint=adjoint):
            options = {"method": method, "steps": steps, "adjoint": adjoint, "max_steps": max_steps}

            def solve(z0):
                return odesolve(f, z0, t0, t1, theta, **options).z1

            return sum(jnp.sum(jnp.abs(x)) for x in jax.tree.leaves(jax.vmap(solve)(z0)))

        arrays, rest = eqx.partition((many, theta), eqx.is_inexact_array_like)
        arrays = jax.tree.map(jnp.asarray, arrays)
        gradient = jax.jit(jax.grad(lambda arrays, loss=loss, rest=rest: loss(*eqx.combine(arrays, rest))))
        compiled: Any = gradient.lower(arrays).compile()
        temporary = compiled.memory_analysis().temp_size_in_bytes
        found[repr(adjoint)] = MemoryEstimate(temporary, adjoint.stored(limit, state, sizes))
    return found
