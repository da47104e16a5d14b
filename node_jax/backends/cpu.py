"""Marks on a CPU: a loop over small arrays is compiled as one function.

XLA on a CPU hands every kernel of a loop to a scheduler, which takes most of the time of a small solve. It can also
emit a called computation as a single function. It does so by itself for the smallest loops only, and otherwise if
attributes of the call ask for it (docs/performance.md, Loops).
"""

import contextlib
import contextvars
import functools
import os
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax

from node_jax import marks
from node_jax.checks import without_order
from node_jax.compat import Primitive, mlir, set_xla_metadata, xla_version
from node_jax.jaxprs import equations, is_product
from node_jax.marks import once_p, whole_p

TRIED = (0, 10), (0, 12)  # the first and the last version of jaxlib with which this was tested; others run plain loops
LARGEST = 1024  # largest number of elements of an operation: for more, starting a kernel costs little in comparison
_refused: contextvars.ContextVar[bool] = contextvars.ContextVar("refused", default=False)


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Primitives that XLA emits in one function: no sorts, scatters, library calls, or larger matrix products.
_COMPUTING = _names("""
abs acos acosh add add_any and argmax argmin asin asinh atan atan2 atanh bitcast_convert_type cbrt ceil clamp complex
conj convert_element_type cos cosh div eq erf erf_inv erfc exp exp2 expm1 floor ge gt imag integer_pow is_finite le
le_to log log1p log2 logistic lt lt_to max min mul ne neg nextafter not one_minus_square or polynomial pow real
reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum rem round rsqrt select_n shift_left
shift_right_arithmetic shift_right_logical sign sin sinh sqrt square sub tan tanh xor
""")
_MOVING = _names("""
broadcast_in_dim concatenate copy dynamic_slice dynamic_update_slice empty empty2 gather iota name pad reshape rev slice
split spread squeeze stack stop_gradient tile transpose unstack
""")
_NESTING = _names("""
closed_call cond custom_jvp_call custom_vjp_call eval_jaxpr jit once optimization_barrier platform_index remat2
remat_opt scan while xla_metadata_value
""")
_TAKEN = _COMPUTING | _MOVING | _NESTING
_DTYPES = set(map(np.dtype, _names("bool int32 int64 uint32 uint64 float32 float64 complex64 complex128")))


def _whole(*args, jaxpr, constants):
    """Lower `whole`: as one function if all of its operations allow it. Shapes are final at this point."""
    if not _is_emitted(jaxpr):
        return marks.plain(*args, jaxpr=jaxpr, constants=constants)

    def whole(*args):
        # XLA crashes on an argument that is not used, so the arguments are returned too. (Large arrays of the carry are
        # always used, and would be copied before they are overwritten.)
        kept = [x for i, x in enumerate(args) if i < constants or x.size <= LARGEST]
        return *marks.plain(*args, jaxpr=jaxpr, constants=constants), *kept

    args = lax.optimization_barrier(args)  # else XLA moves constants inside and leaves arguments unused
    first, *rest = jax.jit(whole)(*args)
    return [set_xla_metadata(first, xla_cpu_small_call="true", inlineable="false"), *rest][: len(jaxpr.outvars)]


def _called(x: jax.Array) -> Any:
    """Return `x` through a call that is not inlined, so that XLA does not fuse across it."""
    return set_xla_metadata(jax.jit(lax.optimization_barrier)(x), inlineable="false") if tried() else x


def _divides(context: Any) -> bool:
    """Whether XLA partitions a computation over devices: not on one device, and not inside `shard_map`."""
    axes = getattr(getattr(context, "mesh", None), "shape", {})
    auto = [size for axis, size in axes.items() if axis not in context.manual_axes]
    return max(auto, default=getattr(context, "num_devices", 1)) > 1


def _lower(primitive: Primitive, plain: Callable, on_cpu: Callable) -> None:
    """Lower a mark by `on_cpu`, unless partitioning may put collectives into the called computation."""
    lowered, called = (mlir.lower_fun(fn, multiple_results=primitive.multiple_results) for fn in (plain, on_cpu))

    def rule(ctx, *args, **params):
        chosen = lowered if _divides(ctx.module_context.axis_context) else called
        return chosen(ctx, *args, **params)

    mlir.register_lowering(primitive, without_order(rule), platform="cpu")


_lower(whole_p, marks.plain, _whole)
_lower(once_p, lambda x: x, _called)


def is_emitted(fn: Callable, *args: Any) -> bool:
    """Whether a loop around `fn(*args)` becomes one function, as far as `fn` allows it."""
    return _is_emitted(jax.make_jaxpr(fn)(*args).jaxpr)


def tried() -> bool:
    """Whether this version of jaxlib was tested, and the environment does not switch this off."""
    off = why_not()
    if off and xla_version.__version_info__[:2] > TRIED[1] and os.environ.get("NODE_JAX_FUSED") != "0":
        _warn_of_newer()
    return not off


@contextlib.contextmanager
def during(variable: contextvars.ContextVar, value: Any):
    """Set a context variable within the context."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def plain() -> contextlib.AbstractContextManager:
    """Ignore the marks within this context."""
    return during(_refused, True)


def why_not() -> str:
    """Return the reason why marks have no effect on a CPU; empty if they have one."""
    if _refused.get():
        return "XLA refused it"
    first, last = TRIED
    found = xla_version.__version_info__[:2]
    if os.environ.get("NODE_JAX_FUSED") == "0":
        return "NODE_JAX_FUSED=0 in the environment"
    if first <= found <= last:
        return ""
    versions = " to ".join(".".join(map(str, x)) for x in TRIED)
    return f"tried with jaxlib {versions}, this is {xla_version.__version__}"


@functools.cache
def _warn_of_newer() -> None:
    warnings.warn(
        f"node_jax was not tried with jaxlib {xla_version.__version__}: small loops on a CPU run kernel by kernel,"
        " several times slower; NODE_JAX_FUSED=0 in the environment hides this warning",
        stacklevel=2,
    )


def _is_emitted(jaxpr: Any) -> bool:
    return tried() and all(map(_known, equations(jaxpr)))


def room(jaxpr: Any) -> int:
    """Return the most lanes for which a loop around this computation of one lane becomes one function; 0 if none."""
    eqns = equations(jaxpr)
    if not (tried() and all(map(_known, eqns))):
        return 0
    arrays = [x for eqn in eqns if eqn.primitive.name in _COMPUTING for x in (*eqn.invars, *eqn.outvars)]
    return LARGEST // max([1, *(x.aval.size for x in (*arrays, *jaxpr.outvars))])


def _known(eqn: Any) -> bool:
    name, arrays = eqn.primitive.name, [x.aval for x in (*eqn.invars, *eqn.outvars)]
    if not all(isinstance(x.size, int) and x.size and x.dtype in _DTYPES for x in arrays):
        return False
    if name == "dot_general":
        return not is_product(eqn)
    return name in _TAKEN and (name not in _COMPUTING or all(x.size <= LARGEST for x in arrays))
