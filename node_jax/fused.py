"""On a CPU: a loop over small arrays as one compiled function, where XLA would run its kernels one by one.

XLA on a CPU hands every kernel of a loop to a scheduler, for 50 ns and more each; of a small solve this is most of the
time. It can also emit a called computation as a single function. By itself it does so for the smallest loops only; here
the call asks for it.
"""

import contextlib
import contextvars
import functools
import math
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir
from jax.interpreters import partial_eval as pe
from jax.sharding import NamedSharding, PartitionSpec

from node_jax.checks import without_order

TRIED = (0, 10), (0, 12)  # the first and the last jaxlib that all this was tried with; of another we ask nothing
LARGEST = 1024  # elements that an operation may work on: beyond, a kernel costs more than to start it
# From 0.12 on JAX asks this of a `custom_vjp` some results of which are the same in all lanes.
SHARES = {"generic_batching": True} if jax.__version_info__ >= (0, 12) else {}
_refused: contextvars.ContextVar[bool] = contextvars.ContextVar("refused", default=False)
PRODUCT = 8  # rows, columns and terms: with fewer of each, no library multiplies the matrices


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What the emitter takes: not sorting, scattering, calls of libraries, and of products of matrices only the smallest.
_COMPUTING = _names("""
abs acos acosh add add_any and argmax argmin asin asinh atan atan2 atanh bitcast_convert_type cbrt ceil clamp complex
conj convert_element_type cos cosh div eq erf erf_inv erfc exp exp2 expm1 floor ge gt imag integer_pow is_finite le
le_to log log1p log2 logistic lt lt_to max min mul ne neg nextafter not one_minus_square or polynomial pow real
reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum rem round rsqrt select_n shift_left
shift_right_arithmetic shift_right_logical sign sin sinh sqrt square sub tan tanh xor
""")
_MOVING = _names("""
broadcast_in_dim concatenate copy dynamic_slice dynamic_update_slice empty empty2 gather iota name pad reshape rev slice
split squeeze stack stop_gradient tile transpose unstack widened
""")
_NESTING = _names("""
apart closed_call cond custom_jvp_call custom_vjp_call eval_jaxpr jit optimization_barrier platform_index remat2
remat_opt scan while xla_metadata_value
""")
_TAKEN = _COMPUTING | _MOVING | _NESTING
_DTYPES = set(map(np.dtype, _names("bool int32 int64 uint32 uint64 float32 float64 complex64 complex128")))


def fused(fn: Callable, carry: Any) -> Any:
    """Return `fn(carry)`, computed on a CPU by one function if all its operations are known and small.

    It may write over `carry`; what else it needs it closes over.
    """
    if jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
        return fn(carry)
    closed, shape = jax.make_jaxpr(jax.jit(fn), return_shape=True)(carry)
    consts, leaves = closed.consts, jax.tree.leaves(carry)
    flat = fused_p.bind(*consts, *leaves, jaxpr=opened(closed.jaxpr), constants=len(consts))
    return jax.tree.unflatten(jax.tree.structure(shape), flat)


def _plain(*args, jaxpr, constants):
    return evaluated(jaxpr, *args)


def _on_cpu(*args, jaxpr, constants):
    """Decide: no transformation changes sizes any more."""
    if not _is_emitted(jaxpr):
        return _plain(*args, jaxpr=jaxpr, constants=constants)

    def whole(*args):
        # The emitter does not survive an argument that is not used: with the arguments among the results, all are.
        # (Large ones in the carry, which would be copied before they are written over, are used in any case.)
        kept = [x for i, x in enumerate(args) if i < constants or x.size <= LARGEST]
        return *_plain(*args, jaxpr=jaxpr, constants=constants), *kept

    args = lax.optimization_barrier(args)  # else XLA puts constants in their place
    first, *rest = jax.jit(whole)(*args)
    return [set_xla_metadata(first, xla_cpu_small_call="true", inlineable="false"), *rest][: len(jaxpr.outvars)]


def _batch_fused(args, dims, *, jaxpr, constants):
    def fn(carry):
        return jax.vmap(functools.partial(_plain, jaxpr=jaxpr, constants=constants), dims)(*args[:constants], *carry)

    outs = fused(fn, args[constants:])
    return outs, [0] * len(outs)


def _jvp_fused(primals, tangents, **params):
    """Differentiate the plain loop: nothing that is differentiated once more is run often."""
    return jax.jvp(functools.partial(_plain, **params), tuple(primals), tuple(map(ad.instantiate_zeros, tangents)))


def _without_high(*args, jaxpr, constants):
    return fused_p.bind(*args, jaxpr=low(jaxpr), constants=constants)


def opened(jaxpr: Any) -> Any:
    """Return a computation that takes its constants as its first arguments: newer versions of JAX keep them in it."""
    return jaxpr.replace(constvars=[], invars=[*jaxpr.constvars, *jaxpr.invars])


def evaluated(jaxpr: Any, *args: Any) -> list:
    """Return the results of a computation that holds no constants."""
    return jaxpr_as_fun(ClosedJaxpr(jaxpr, ()))(*args)


def low(jaxpr: Any) -> Any:
    """Return a computation with what the newest JAX keeps whole, such as a search of a table, taken apart."""
    return pe.lower_jaxpr2(jaxpr) if getattr(jaxpr, "is_high", False) else jaxpr  # pyright: ignore[reportAttributeAccessIssue]


def _divides(context: Any) -> bool:
    """Whether XLA divides a computation among devices: not where there is one, nor inside `shard_map`."""
    axes = getattr(getattr(context, "mesh", None), "shape", {})
    auto = [size for axis, size in axes.items() if axis not in context.manual_axes]
    return max(auto, default=getattr(context, "num_devices", 1)) > 1


def _lower(primitive: Primitive, plain: Callable, on_cpu: Callable) -> None:
    """Lower a primitive; on a CPU by `on_cpu`, unless collectives may come to stand in what it calls."""
    lowered, called = (mlir.lower_fun(fn, multiple_results=primitive.multiple_results) for fn in (plain, on_cpu))

    def rule(ctx, *args, **params):
        chosen = lowered if _divides(ctx.module_context.axis_context) else called
        return chosen(ctx, *args, **params)

    mlir.register_lowering(primitive, without_order(lowered))
    mlir.register_lowering(primitive, without_order(rule), platform="cpu")


fused_p = Primitive("fused")
fused_p.multiple_results = True
fused_p.to_lojax = _without_high
fused_p.def_impl(lambda *args, **params: jax.jit(functools.partial(_plain, **params))(*args))
fused_p.def_abstract_eval(lambda *_, jaxpr, constants: [x.aval for x in jaxpr.outvars])
_lower(fused_p, _plain, _on_cpu)
batching.primitive_batchers[fused_p] = _batch_fused
ad.primitive_jvps[fused_p] = _jvp_fused


def is_emitted(fn: Callable, *args: Any) -> bool:
    """Whether a loop around `fn(*args)` would be one function, as far as that is up to `fn`."""
    return _is_emitted(jax.make_jaxpr(fn)(*args).jaxpr)


def tried() -> bool:
    """Whether this is a jaxlib that was tried, and the environment does not switch off what it is asked for."""
    off = why_not()
    if off and jaxlib.version.__version_info__[:2] > TRIED[1] and os.environ.get("NODE_JAX_FUSED") != "0":
        _warn_of_newer()
    return not off


@contextlib.contextmanager
def during(variable: contextvars.ContextVar, value: Any):
    """Give a variable this value for a while."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def plain() -> contextlib.AbstractContextManager:
    """Ask nothing of XLA for a while."""
    return during(_refused, True)


def why_not() -> str:
    """Say why nothing of this is asked of XLA on a CPU; empty if it is."""
    if _refused.get():
        return "XLA refused it"
    first, last = TRIED
    found = jaxlib.version.__version_info__[:2]
    if os.environ.get("NODE_JAX_FUSED") == "0":
        return "NODE_JAX_FUSED=0 in the environment"
    if first <= found <= last:
        return ""
    versions = " to ".join(".".join(map(str, x)) for x in TRIED)
    return f"tried with jaxlib {versions}, this is {jaxlib.version.__version__}"


@functools.cache
def _warn_of_newer() -> None:
    warnings.warn(
        f"node_jax was not tried with jaxlib {jaxlib.version.__version__}: small loops on a CPU run kernel by kernel,"
        " several times slower; NODE_JAX_FUSED=0 in the environment hides this warning",
        stacklevel=2,
    )


def _is_emitted(jaxpr: Any) -> bool:
    return tried() and all(map(_known, equations(jaxpr)))


def equations(jaxpr: Any) -> Iterator[Any]:
    """Yield all equations, of nested computations too; of those for several platforms only what a CPU runs."""
    chosen_by_platform = set()
    for eqn in low(jaxpr).eqns:
        yield eqn
        params = dict(eqn.params)
        if eqn.primitive.name == "platform_index":
            chosen_by_platform.add(eqn.outvars[0])
        elif eqn.primitive.name == "cond" and eqn.invars[0] in chosen_by_platform:
            params = {"cpu": _of_cpu(params)}
        for part in jax.tree.leaves(list(params.values())):
            inner = getattr(part, "jaxpr", part)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def _of_cpu(params: dict) -> Any:
    """Return the branch for the CPU of a choice by platform; None stands for all that are not named."""
    branches = list(zip(params["branches_platforms"], params["branches"], strict=True))
    named = [branch for platforms, branch in branches if platforms is not None and "cpu" in platforms]
    return named[0] if named else next((branch for platforms, branch in branches if platforms is None), ())


def room(jaxpr: Any) -> int:
    """Return for how many lanes a loop around this computation of one would be one function."""
    eqns = list(equations(jaxpr))
    if not (tried() and all(map(_known, eqns))):
        return 0
    arrays = [x for eqn in eqns if eqn.primitive.name in _COMPUTING for x in (*eqn.invars, *eqn.outvars)]
    return LARGEST // max([1, *(x.aval.size for x in (*arrays, *jaxpr.outvars))])


def multiplies(jaxpr: Any) -> bool:
    """Whether large matrices are multiplied, or signals convolved, anywhere in a computation."""
    return any(_is_product(eqn) or eqn.primitive.name == "conv_general_dilated" for eqn in equations(jaxpr))


def _is_product(eqn: Any) -> bool:
    sizes = [x.aval.size for x in eqn.invars]
    return eqn.primitive.name == "dot_general" and all(sizes) and max(_matrices(eqn)) >= PRODUCT


def _known(eqn: Any) -> bool:
    name, arrays = eqn.primitive.name, [x.aval for x in (*eqn.invars, *eqn.outvars)]
    if not all(x.size and x.dtype in _DTYPES for x in arrays):
        return False
    if name == "dot_general":
        return not _is_product(eqn)
    return name in _TAKEN and (name not in _COMPUTING or all(x.size <= LARGEST for x in arrays))


def _matrices(eqn: Any) -> tuple[int, int, int]:
    """Return rows, terms and columns of a product as a library sees it: axes of one role are one."""
    (contracted, _), (batch, _) = eqn.params["dimension_numbers"]
    left, right = (x.aval for x in eqn.invars)
    terms, lanes = (math.prod(left.shape[i] for i in axes) for axes in (contracted, batch))
    return left.size // (terms * lanes), terms, right.size // (terms * lanes)


def apart(values: Any) -> Any:
    """Return the values, computed once: in each kernel that reads them a CPU would compute them anew.

    They go through a call of nothing, with which XLA fuses neither what is before nor what comes after.
    """
    return jax.tree.map(apart_p.bind, values)


def _called(x: jax.Array) -> Any:
    return set_xla_metadata(jax.jit(lax.optimization_barrier)(x), inlineable="false") if tried() else x


def _batch_apart(args, dims):
    """Bring lanes to the end: a call has the layout of its axes, and kernels are vectorised over the last of them."""
    (x,), (dim,) = args, dims
    return apart_p.bind(jnp.moveaxis(x, dim, -1)), x.ndim - 1


def _transpose(bar, _):
    return [bar if type(bar) is ad.Zero else apart_p.bind(bar)]


apart_p = Primitive("apart")
apart_p.def_impl(lambda x: x)
apart_p.def_abstract_eval(lambda x: x)
_lower(apart_p, lambda x: x, _called)
batching.primitive_batchers[apart_p] = _batch_apart
ad.deflinear2(apart_p, _transpose)


def widened(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return an array of this shape with the scalar `x` everywhere.

    `vmap` would put its axis in front of those of `shape`, and transpose all that this is multiplied by; lanes stay
    last. XLA takes such transposes away in a program for one device, and not in one for several.
    """
    return widened_p.bind(x, shape=shape) if shape else x


def _widened(x, *, shape):
    return lax.broadcast_in_dim(x, (*shape, *x.shape), range(len(shape), len(shape) + x.ndim))


def _widened_type(x, *, shape):
    spec = PartitionSpec(*[None] * len(shape), *x.sharding.spec)
    return x.update(shape=(*shape, *x.shape), sharding=NamedSharding(x.sharding.mesh, spec))


def _batch_widened(args, dims, *, shape):
    (x,), (dim,) = args, dims
    return widened_p.bind(jnp.moveaxis(x, dim, -1), shape=shape), len(shape) + x.ndim - 1


def _transpose_widened(bar, _, *, shape):
    return [bar if type(bar) is ad.Zero else jnp.sum(bar, range(len(shape)))]


widened_p = Primitive("widened")
widened_p.def_impl(_widened)
widened_p.def_abstract_eval(_widened_type)
mlir.register_lowering(widened_p, mlir.lower_fun(_widened, multiple_results=False))
batching.primitive_batchers[widened_p] = _batch_widened
ad.deflinear2(widened_p, _transpose_widened)
