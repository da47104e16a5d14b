"""Marks: operations that a back end may use to compile a program differently; they change no value.

Without a back end that interprets them (see `backends`) `whole` and `once` return what they are given, and `spread`
broadcasts. Under `jax.vmap` the mapped axis becomes the last one, the layout of lanes.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from node_jax.checks import without_order
from node_jax.compat import Primitive, ad, batching, jet, mlir
from node_jax.jaxprs import evaluated, low, opened
from node_jax.types import VectorField


def whole(fn: Callable, carry: Any) -> Any:
    """Return `fn(carry)`, which a back end may compile as one function.

    `fn` may overwrite `carry`; everything else that it reads it must close over.
    """
    if jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
        return fn(carry)
    closed, shape = jax.make_jaxpr(jax.jit(fn), return_shape=True)(carry)
    consts, leaves = closed.consts, jax.tree.leaves(carry)
    flat = whole_p.bind(*consts, *leaves, jaxpr=opened(closed.jaxpr), constants=len(consts))
    return jax.tree.unflatten(jax.tree.structure(shape), flat)


def plain(*args, jaxpr, constants):
    """Evaluate the computation inside `whole`."""
    return evaluated(jaxpr, *args)


def _batch_whole(args, dims, *, jaxpr, constants):
    def fn(carry):
        return jax.vmap(functools.partial(plain, jaxpr=jaxpr, constants=constants), dims)(*args[:constants], *carry)

    outs = whole(fn, args[constants:])
    return outs, [0] * len(outs)


def _jvp_whole(primals, tangents, **params):
    """Differentiate the computation itself; the result is not marked again."""
    return jax.jvp(functools.partial(plain, **params), tuple(primals), tuple(map(ad.instantiate_zeros, tangents)))


def _without_high(*args, jaxpr, constants):
    return whole_p.bind(*args, jaxpr=low(jaxpr), constants=constants)


def _lower(primitive: Primitive, fn: Callable) -> None:
    lowered = mlir.lower_fun(fn, multiple_results=primitive.multiple_results)
    mlir.register_lowering(primitive, without_order(lowered))


whole_p = Primitive("whole")
whole_p.multiple_results = True
whole_p.to_lojax = _without_high
whole_p.def_impl(lambda *args, **params: jax.jit(functools.partial(plain, **params))(*args))
whole_p.def_abstract_eval(lambda *_, jaxpr, constants: [x.aval for x in jaxpr.outvars])
_lower(whole_p, plain)
batching.primitive_batchers[whole_p] = _batch_whole
ad.primitive_jvps[whole_p] = _jvp_whole


def _batch_once(args, dims):
    """Move the mapped axis to the end, the layout of lanes (docs/performance.md, Fusion)."""
    (x,), (dim,) = args, dims
    return once_p.bind(jnp.moveaxis(x, dim, -1)), x.ndim - 1


def _transpose_once(bar, _):
    return [bar if type(bar) is ad.Zero else once_p.bind(bar)]


once_p = Primitive("once")
once_p.def_impl(lambda x: x)
once_p.def_abstract_eval(lambda x: x)
_lower(once_p, lambda x: x)
batching.primitive_batchers[once_p] = _batch_once
ad.deflinear2(once_p, _transpose_once)
jet.deflinear(once_p)

once: Callable[[Any], Any] = functools.partial(jax.tree.map, once_p.bind)
"""Return the values unchanged, to be computed once instead of in each operation that reads them."""


def stages_once(field: VectorField, multiplies: bool) -> VectorField:
    """Return a vector field whose slopes are computed once, and its states too unless it `multiplies` matrices.

    See docs/performance.md, Fusion.
    """

    def slope(z, t, theta):
        return once(field(z if multiplies else once(z), t, theta))

    return slope


def _spread(x, *, shape):
    return lax.broadcast_in_dim(x, (*shape, *x.shape), range(len(shape), len(shape) + x.ndim))


def _spread_type(x, *, shape):
    spec = PartitionSpec(*[None] * len(shape), *x.sharding.spec)
    return x.update(shape=(*shape, *x.shape), sharding=NamedSharding(x.sharding.mesh, spec))


def _batch_spread(args, dims, *, shape):
    (x,), (dim,) = args, dims
    return spread_p.bind(jnp.moveaxis(x, dim, -1), shape=shape), len(shape) + x.ndim - 1


def _transpose_spread(bar, _, *, shape):
    return [bar if type(bar) is ad.Zero else jnp.sum(bar, range(len(shape)))]


spread_p = Primitive("spread")
spread_p.def_impl(_spread)
spread_p.def_abstract_eval(_spread_type)
_lower(spread_p, _spread)
batching.primitive_batchers[spread_p] = _batch_spread
ad.deflinear2(spread_p, _transpose_spread)

spread = spread_p.bind
"""Broadcast a scalar to `shape`, with mapped axes last instead of first (docs/performance.md, Loops)."""
