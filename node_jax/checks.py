"""Rules of the primitives for `checkify` and for effects: each is either carried out or refused by name."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from node_jax.compat import DivisionByZeroError, Error, OOBError, Primitive, check_nans, error_checks

_ORDERED = (
    "f, or its derivative, has an ordered effect ({}), but solves that step together have no order: pass ordered=False"
    " to jax.debug.print, jax.debug.callback or io_callback; equinox.debug.backward_nan has no such option"
)
_CHECKS = (
    "f calls checkify.check ({}), which no solve carries out of its loop: check theta before the solve and"
    " sol.ok, sol.status or the saved rows after it; checkify.nan_checks finds a solve that failed"
)
_UNSEEN = (
    "f has a {0} in a solve, where {1} of checkify cannot look: check a call of f by itself, and the solve with"
    " checkify.nan_checks alone"
)
_SEES = {  # for each check: how the names of the operations that it tests begin, and the name of the check
    DivisionByZeroError: (("div",), "div_checks"),
    OOBError: (("dynamic_slice", "dynamic_update_slice", "gather", "scatter"), "index_checks"),
}


def checked(primitive: Primitive, suspected: Callable[..., Sequence], inside: Callable | None = None) -> None:
    """Register a rule of `checkify` for a primitive: `nan_checks` test `suspected(outs, args, **params)`.

    Its other checks are refused where they would test an operation named in `inside(args, **params)`.
    """

    def rule(*given, **params):
        # since 0.11 JAX passes a context first
        first = next(i for i, x in enumerate(given) if isinstance(x, Error))
        context, (error, enabled, *args) = given[:first], given[first:]
        if inside is not None and enabled & _SEES.keys():
            _refuse_unseen(enabled, inside(args, **params))
        outs = primitive.bind(*args, **params)
        some = suspected(outs, args, **params)
        if check_nans and some:
            error = check_nans(primitive, *context, error, enabled, some)  # pyright: ignore[reportCallIssue]
        return error, outs

    error_checks[primitive] = rule


def _refuse_unseen(enabled: Any, operations: set[str]) -> None:
    for kind in enabled & _SEES.keys():
        names, checks = _SEES[kind]
        for name in sorted(operations):
            if name.startswith(names):
                raise NotImplementedError(_UNSEEN.format(name, checks))


def refuse_effects(effects: Any) -> None:
    """Refuse effects of a traced field that no solve can carry out."""
    for effect in effects:
        name = type(effect).__name__
        if name.startswith("Ordered"):
            raise NotImplementedError(_ORDERED.format(name))
        if name == "ErrorEffect":
            raise NotImplementedError(_CHECKS.format(name))


def without_order(lower: Callable) -> Callable:
    """Refuse ordered effects, those of derivatives included, when a primitive without effects is lowered."""

    @functools.wraps(lower)
    def rule(*args, **params):
        try:
            return lower(*args, **params)
        except KeyError as error:  # the effect, for which JAX has no token
            refuse_effects(error.args[:1])
            raise

    return rule


def standard(rule: Callable) -> Callable:
    """Let a rule promote dtypes by the standard rules; `jax_numpy_dtype_promotion` is for the user's code only."""

    @functools.wraps(rule)
    def ruled(*args, **params):
        with promoting():
            return rule(*args, **params)

    return ruled


def promoting() -> contextlib.AbstractContextManager:
    """Promote dtypes by the standard rules. A flag that is set already is left alone: JAX would drop its caches."""
    if jax.config.jax_numpy_dtype_promotion == "standard":  # pyright: ignore[reportAttributeAccessIssue]
        return contextlib.nullcontext()
    return jax.numpy_dtype_promotion("standard")


def watching() -> bool:
    """Whether JAX raises for every NaN (`jax_debug_nans`) or infinity (`jax_debug_infs`) that it computes."""
    return jax.config.jax_debug_nans or jax.config.jax_debug_infs  # pyright: ignore[reportAttributeAccessIssue]


@contextlib.contextmanager
def trusting() -> Iterator[None]:
    """Switch the NaN checks of JAX off: rows that no step wrote are NaN, and open options infinite, on purpose."""
    if watching():
        with jax.debug_nans(False), jax.debug_infs(False):
            yield
    else:
        yield


def find_lost(lost: jax.Array) -> None:
    """Raise FloatingPointError for a true entry if JAX checks for NaN or infinity, in `vmap` and `grad` too."""
    one = jax.lax.select(lost, jnp.zeros(lost.shape), jnp.ones(lost.shape))
    jax.lax.div(jnp.zeros(lost.shape), one)  # 0 / 0
    jax.lax.div(jnp.ones(lost.shape), one)  # 1 / 0


def lanes_in_front(x: jax.Array) -> jax.Array:
    """Move mapped axes to the front by an operation on which JAX's NaN checks run."""
    return jax.lax.squeeze(jax.lax.reshape(x, (1, *x.shape)), (0,))  # `vmap` of `reshape` moves the axis
