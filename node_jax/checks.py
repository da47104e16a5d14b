"""What `checkify` and JAX's effects know of a primitive of one's own: a rule each, or a refusal by name.

`jax.experimental.checkify` has no public way to register a rule; this is the only file that uses its private names.
"""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import Primitive

try:
    from jax._src.checkify import check_nans, error_checks
except ImportError:  # a version of JAX without these: `checkify` then looks at nothing inside a solve
    check_nans, error_checks = None, {}

_ORDERED = (
    "f, or its derivative, has an ordered effect ({}), but solves that step together have no order: pass ordered=False"
    " to jax.debug.print, jax.debug.callback or io_callback; equinox.debug.backward_nan has no such option"
)
_CHECKS = (
    "f calls checkify.check ({}), which no solve carries out of its loop: check theta before the solve and"
    " sol.ok, sol.status or the saved rows after it; checkify.nan_checks finds a solve that ends NON_FINITE"
)


def finds_nan(primitive: Primitive, suspected: Callable[..., Sequence]) -> None:
    """Let the `nan_checks` of `checkify` look at `suspected(outs, args, **params)` wherever the primitive is bound."""

    def rule(error, enabled, *args, **params):
        outs = primitive.bind(*args, **params)
        some = suspected(outs, args, **params)
        return check_nans(primitive, error, enabled, some) if check_nans and some else error, outs

    error_checks[primitive] = rule


def refuse_effects(effects: Any) -> None:
    """Refuse what a traced field does besides computing, if no solve can do that."""
    for effect in effects:
        name = type(effect).__name__
        if name.startswith("Ordered"):
            raise NotImplementedError(_ORDERED.format(name))
        if name == "ErrorEffect":
            raise NotImplementedError(_CHECKS.format(name))


def without_order(lower: Callable) -> Callable:
    """Refuse ordered effects, those of derivatives too, in the lowering of a primitive that has none."""

    @functools.wraps(lower)
    def rule(*args, **params):
        try:
            return lower(*args, **params)
        except KeyError as error:  # JAX has no token for it
            refuse_effects(error.args[:1])
            raise

    return rule


def standard(rule: Callable) -> Callable:
    """Let the code of a rule promote dtypes whatever `jax_numpy_dtype_promotion` is: that is for the caller's code."""

    @functools.wraps(rule)
    def ruled(*args, **params):
        with promoting():
            return rule(*args, **params)

    return ruled


def promoting() -> contextlib.AbstractContextManager:
    """Promote dtypes by the standard rules. A switch that stands right is not touched: JAX would lose its caches."""
    if jax.config.jax_numpy_dtype_promotion == "standard":  # pyright: ignore[reportAttributeAccessIssue]
        return contextlib.nullcontext()
    return jax.numpy_dtype_promotion("standard")


def trusting() -> contextlib.AbstractContextManager:
    """Let NaN be made: one that is asked for was not computed."""
    debugs = jax.config.jax_debug_nans  # pyright: ignore[reportAttributeAccessIssue]
    return jax.debug_nans(False) if debugs else contextlib.nullcontext()
