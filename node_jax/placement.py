"""Where arrays live: the axes of `shard_map` over which they vary, and the mesh axes over which they are sharded."""

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from node_jax.compat import AbstractMesh, ClosedJaxpr, Jaxpr, Literal, ShapedArray, Tracer, find_top_trace
from node_jax.types import Size


def is_tracer(x: Any) -> bool:
    """Whether a value is a tracer."""
    return isinstance(x, Tracer)


def is_traced(values: Any) -> bool:
    """Whether any leaf of a pytree is a tracer."""
    return any(map(is_tracer, jax.tree.leaves(values)))


def is_symbolic(size: Size) -> bool:
    """Whether a size is not known while a program is traced: a dimension of `jax.export.symbolic_shape`."""
    return not isinstance(size, int)


def outermost() -> bool:
    """Whether no transformation is active. A wrong False, if JAX renames the trace, only costs a compilation."""
    return type(find_top_trace(())).__name__ == "EvalTrace"


def axes(aval: Any) -> frozenset:
    """Return the axes of `shard_map` over which a value of this type varies."""
    kind = getattr(aval, "manual_axis_type", aval)
    return getattr(kind, "varying", getattr(kind, "vma", frozenset()))


def varying_alike(leaves: Sequence) -> list:
    """Cast all values to vary over every `shard_map` axis that any varies over; the transpose sums cotangents."""
    union = frozenset().union(*(axes(jax.typeof(x)) for x in leaves))

    def cast(x):
        missing = tuple(union - axes(jax.typeof(x)))
        return lax.pcast(x, missing, to="varying") if missing else x

    return list(map(cast, leaves))


def shaped(results: Sequence, args: Sequence) -> list[ShapedArray]:
    """Return the types of results, which vary over devices as the arguments of these types do."""
    like = next((a for a in args if axes(a)), None)
    if like is None:
        return [ShapedArray(x.shape, x.dtype) for x in results]
    mesh = like.sharding.mesh
    whole = [NamedSharding(mesh, PartitionSpec(*[None] * len(x.shape))) for x in results]
    pairs = zip(results, whole, strict=True)
    return [like.update(shape=x.shape, dtype=x.dtype, weak_type=False, sharding=each) for x, each in pairs]


def mapped(batched: Callable, args: Sequence, dims: Sequence, together: bool = False) -> tuple[list, list]:
    """Return the results of `batched(size, *args)` and the positions of their mapped axis, as a batching rule does.

    If the mapped axis of the arguments is sharded over a mesh, each device computes its own part under `shard_map`; or
    everything if all lanes go `together`, since some results lack that axis.
    """
    sizes, spreads = zip(*(_along(x, d) for x, d in zip(args, dims, strict=True) if d is not None), strict=True)
    spread = next((s for s in spreads if s is not None), None)
    if spread is None:
        return batched(sizes[0], *args)
    mesh, axis = spread
    names = axis if isinstance(axis, tuple) else (axis,)

    def spec(d):
        return PartitionSpec() if d is None else PartitionSpec(*[None] * d, axis)

    def placed(values, dims):
        return [jax.reshard(x, NamedSharding(mesh, spec(d))) for x, d in zip(values, dims, strict=True)]

    def part(*args):
        outs, places = batched(sizes[0] // math.prod(mesh.shape[name] for name in names), *varying_alike(args))
        return [jnp.moveaxis(x, d, 0) for x, d in zip(outs, places, strict=True)]

    if together:
        outs, places = batched(sizes[0], *placed(args, [None] * len(args)))
        return placed(outs, places), places
    specs = tuple(map(spec, dims))
    outs = jax.shard_map(part, mesh=mesh, in_specs=specs, out_specs=spec(0), axis_names=set(names))(*placed(args, dims))
    return outs, [0] * len(outs)


def _along(x: Any, d: int) -> tuple[Size, tuple | None]:
    """Return the size of an axis of `x`, and the mesh with the mesh axes over which it is sharded, if any."""
    sharding = jax.typeof(x).sharding
    return x.shape[d], None if sharding.spec[d] is None else (sharding.mesh, sharding.spec[d])


def traced(f: Callable, *examples: Any) -> tuple[ClosedJaxpr, Any]:
    """Trace `f` as code for one device, without a mesh in any type; return the jaxpr and the shape of its result."""

    def on_one_device(x):
        aval = jax.typeof(x)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, weak_type=aval.weak_type) if _names_mesh(aval) else x

    with _no_mesh():
        closed, shape = jax.make_jaxpr(f, return_shape=True)(*jax.tree.map(on_one_device, examples))
    if any(_names_mesh(jax.typeof(x)) for x in closed.consts):
        closed = ClosedJaxpr(_without_mesh(closed.jaxpr), closed.consts)
    return closed, shape


def _no_mesh() -> contextlib.AbstractContextManager:
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or AxisType.Manual in mesh.axis_types:
        return contextlib.nullcontext()
    return jax.sharding.use_abstract_mesh(AbstractMesh((), ()))


def _names_mesh(aval: Any) -> bool:
    mesh = getattr(getattr(aval, "sharding", None), "mesh", None)
    return mesh is not None and not mesh.empty


def _without_mesh(jaxpr: Any) -> Any:
    renamed = {}

    def bare(x):
        if isinstance(x, Literal) or not _names_mesh(x.aval):
            return x
        return renamed.setdefault(x, type(x)(ShapedArray(x.aval.shape, x.aval.dtype, weak_type=x.aval.weak_type)))

    def part(x):
        if isinstance(x, ClosedJaxpr):
            return ClosedJaxpr(_without_mesh(x.jaxpr), x.consts)
        if isinstance(x, Jaxpr):
            return _without_mesh(x)
        return None if isinstance(x, NamedSharding) else x

    def bares(xs):
        return list(map(bare, xs))

    eqns = [
        eqn.replace(invars=bares(eqn.invars), outvars=bares(eqn.outvars), params=jax.tree.map(part, eqn.params))
        for eqn in jaxpr.eqns
    ]
    binders = {"constvars": bares(jaxpr.constvars), "invars": bares(jaxpr.invars)}
    return jaxpr.replace(**binders, outvars=bares(jaxpr.outvars), eqns=eqns)
