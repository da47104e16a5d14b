"""Check the arguments of a solve; errors and warnings show their names and values."""

import functools
import inspect
import math
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from node_jax import hints, tree
from node_jax.control import Adaptive
from node_jax.field import Hoisted, hoist
from node_jax.methods import Coupled
from node_jax.protocols import Adjoint, Method, Save, Steps
from node_jax.times import narrowed
from node_jax.types import PyTree, is_count

# files between a user's line and this one: tracing, methods of modules, checks of annotations
OURS = (*(str(Path(path).parent) for path in (__file__, jax.__file__, eqx.__file__)), "<@beartype")
TIMES = ("t", "_t", "time", "tau")  # usual names of the time argument of a field


def check_options(f, method, steps, save, adjoint, max_steps, lane_width, throw) -> None:
    """Refuse options of a wrong type, and options that do not go together."""
    if not callable(f):
        raise TypeError(f"f must be callable as f(z, t, theta), got {f!r}")
    check_parts(method=method, steps=steps, save=save, adjoint=adjoint)
    if not (method.has_error or steps.exact_times):
        raise ValueError(f"method={method!r} has no error estimate: use steps=Fixed(n), or a method such as tsit5")
    if save.reads_dense and not method.degree:
        raise ValueError(f"method={method!r} has no dense output: use save=SaveEnd() or SaveSteps(n)")
    if max_steps is not None and not is_count(max_steps):
        raise ValueError(f"max_steps must be a positive integer or None, got {max_steps!r}")
    if lane_width is not None and lane_width != math.inf and not is_count(lane_width):
        raise ValueError(f"lane_width must be a positive integer, math.inf or None, got {lane_width!r}")
    if not isinstance(throw, (bool, np.bool_)):
        raise TypeError(f"throw must be True or False, got {throw!r}")


# for each option: its protocol, and what the error recommends for an object of another kind
_PARTS = {
    "method": (Method, "a method such as node_jax.tsit5"),
    "steps": (Steps, "Adaptive(...), Fixed(n) or Grid(ts)"),
    "save": (Save, "SaveEnd(), SaveAt(ts), SaveSteps(n) or Dense(n)"),
    "adjoint": (
        Adjoint,
        "one of Checkpointed(), Backsolve(), Interpolated(), Reversible(), Direct(), Forward()",
    ),
}


def check_parts(**parts: Any) -> None:
    """Refuse options that lack a member of their protocol, and name it, or that JAX cannot take for what they are."""
    if _are_parts(*map(type, parts.values())):
        return
    for name, part in parts.items():
        protocol, known = _PARTS[name]
        lacking = missing(type(part), protocol)
        if len(lacking) > len(members(protocol)) // 2:
            said = hints.method_named(part) if name == "method" else ""
            raise TypeError(f"{name} must be {known}, got {part!r}{said}")
        if lacking:
            raise TypeError(f"{name}={part!r} lacks {', '.join(lacking)} of node_jax.protocols.{protocol.__name__}")
        if name in _HASHED and type(part).__hash__ is None:
            raise TypeError(f"{name}={part!r} must be hashable, such as a frozen dataclass of numbers")
        if name not in _HASHED and any(x is part for x in jax.tree.leaves(part)):
            raise TypeError(
                f"{name}={part!r} must be a pytree, such as an equinox.Module; jax.tree_util.register_dataclass makes"
                " one of a dataclass"
            )
    if isinstance(parts["method"], Coupled):
        raise TypeError(
            f"method must be a method such as node_jax.tsit5, got {parts['method']!r}: pass adjoint=Reversible()"
        )


_HASHED = ("method", "adjoint")  # static parts of a solve; the others are pytrees


@functools.cache
def _are_parts(*kinds: type) -> bool:
    """Whether options of these types are known to be right; values of other types are looked at one by one."""
    for kind, (name, (protocol, _)) in zip(kinds, _PARTS.items(), strict=True):
        fits = kind.__hash__ is not None if name in _HASHED else issubclass(kind, eqx.Module)
        if not fits or missing(kind, protocol) or issubclass(kind, Coupled):
            return False
    return True


@functools.cache
def missing(kind: type, protocol: Any) -> tuple[str, ...]:
    """Return the members of a protocol that a type lacks; annotated fields count as members."""
    fields = {name for base in kind.__mro__ for name in getattr(base, "__annotations__", ())}
    return tuple(name for name in members(protocol) if not hasattr(kind, name) and name not in fields)


@functools.cache
def members(protocol: Any) -> tuple[str, ...]:
    """Return the names of the members of a protocol."""
    return tuple(name for name in vars(protocol) if not name.startswith("_"))


def checked_theta(theta: PyTree) -> PyTree:
    """Return theta if all of its leaves are arrays, numbers or functions; else refuse the first other leaf by path."""
    for leaf in jax.tree.leaves(theta):
        if not (_is_numeric(leaf) or callable(leaf)):
            break
    else:
        return theta
    for path, leaf in jax.tree_util.tree_leaves_with_path(theta):
        if not (_is_numeric(leaf) or callable(leaf)):
            raise TypeError(
                f"theta{jax.tree_util.keystr(path)} must be an array, a number or a function, got {leaf!r} of type"
                f" {type(leaf).__name__}: let f close over it, or make it a static field of an equinox module"
            )
    return theta


def _is_numeric(x: Any) -> bool:
    """Whether `x` is a number or an array of a dtype that JAX has."""
    if isinstance(x, (np.ndarray, np.generic)):
        return x.dtype.kind not in "OSUMm"
    return eqx.is_array_like(x)


def checked_state(z0: PyTree) -> PyTree:
    """Return the initial state as a pytree of arrays."""

    def leaf(x):
        if not _is_numeric(x):
            raise TypeError(f"z0 must be a pytree of arrays, got a leaf of type {type(x).__name__}: {x!r}")
        x = jnp.asarray(x, dtype=jnp.result_type(x))
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            raise TypeError(f"z0 must be of a real or complex floating dtype, got a leaf of {x.dtype}: {x}")
        return x

    return jax.tree.map(leaf, z0)


def checked_tolerances(steps: Any, z0: PyTree) -> Any:
    """Return steps whose tolerances are pytree prefixes of `z0`; a list of numbers fits a state of one array."""
    if not isinstance(steps, Adaptive):
        return steps
    if steps.breakpoints is not None and jnp.ndim(steps.breakpoints) != 1:
        raise ValueError(f"breakpoints must have shape (m,), got shape {jnp.shape(steps.breakpoints)}")
    seen = steps.part(z0)
    if steps.controlled is not None and not jax.tree.leaves(seen):
        raise ValueError(f"controlled={steps.controlled!r} must return a part of z0 with arrays, got {seen!r}")
    rtol, atol = (_tolerance(name, getattr(steps, name), seen) for name in ("rtol", "atol"))
    if rtol is steps.rtol and atol is steps.atol:
        return steps
    return eqx.tree_at(lambda x: (x.rtol, x.atol), steps, (rtol, atol))


def _tolerance(name: str, value: Any, z0: PyTree) -> Any:
    tried = value
    if isinstance(value, list) and eqx.is_array(z0):
        tried = jnp.stack(value) if value and all(map(eqx.is_array, value)) else value
    try:
        spread = tree.spread(tried, z0)
        fits = jax.tree.map(lambda tol, x: jnp.broadcast_shapes(tol.shape, x.shape) == x.shape, spread, z0)
        if not all(jax.tree.leaves(fits)):
            raise ValueError("the tolerance is larger than the state")
    except ValueError as error:
        raise ValueError(f"{name} must be a scalar or a pytree prefix of z0, got {value!r}") from error
    return tried


def warn_of_tolerances(steps: Any, z0: PyTree) -> None:
    """Warn if a relative tolerance, given as a number, is smaller than the dtype of the state can resolve.

    There is no warning for the default, for zero, which asks for no relative tolerance, and for arrays.
    """
    typed = [r for r in jax.tree.leaves(getattr(steps, "rtol", ())) if type(r) is float and r > 0.0 and r != _DEFAULT]
    if not typed:
        return
    floating = [jnp.result_type(x) for x in jax.tree.leaves(z0) if _is_numeric(x)]
    floors = {4 * float(jnp.finfo(x).eps): x for x in floating if jnp.issubdtype(x, jnp.inexact)}
    if floors and min(typed) < max(floors):
        floor = max(floors)
        _warn(
            f"rtol={min(typed):.3g} is below 4 machine epsilons of {floors[floor]}: {floor:.3g} is used. For less, take"
            " a state of float64 with jax.config.update('jax_enable_x64', True)"
        )


_DEFAULT = Adaptive().rtol


def warn_of_small_states(steps: Any, z0: PyTree, solution: Any) -> None:
    """Warn if most steps of a concrete solve were not controlled, as its ends are below the absolute tolerance."""
    if not isinstance(steps, Adaptive) or 2 * int(solution.stats.unseen) <= int(solution.stats.accepted):
        return
    first, last = steps.part(z0), steps.part(solution.z1)
    ends = [[np.abs(np.asarray(x, complex)) for x in jax.tree.leaves(z)] for z in (first, last)]
    atol = [np.asarray(a, float) for a in jax.tree.leaves(tree.spread(steps.atol, last))]
    small = all(np.all(x <= a) for end in ends for x, a in zip(end, atol, strict=True))
    if small and any(np.any(x != y) for x, y in zip(*ends, strict=True)):
        _warn(
            f"the state is smaller than atol={steps.atol} at both ends of the solve: {int(solution.stats.unseen)} of "
            f"{int(solution.stats.accepted)} steps were accepted whatever they did. Take a smaller atol, or other units"
        )


def _warn(text: str) -> None:
    """Warn at the innermost stack frame outside of this package, JAX and equinox."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(OURS):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, stacklevel=level)


def hoisted_field(z0: PyTree, t0: Any, values: PyTree, rest: PyTree) -> Hoisted:
    """Trace the field once, and check that its result has the structure, shapes and dtypes of `z0`."""

    def call(z, t, values):
        f, theta = eqx.combine(values, rest)
        return narrowed(f(z, t, theta), z, t)

    examples = (z0, t0, values)
    hoisted = _explained(lambda: hoist(call, *examples), examples, rest)
    _check_slope(hoisted.shape, examples, rest)
    return hoisted


def slope_of(f: Callable, z: PyTree, t: jax.Array, theta: PyTree) -> PyTree:
    """Return the slope of a user's field inside the field of a larger system, which is itself solved.

    What is wrong with the user's field is said of that field and its state, not of the larger system.
    """
    values, rest = eqx.partition((f, theta), eqx.is_array_like)
    examples = (z, t, values)
    slope = _explained(lambda: narrowed(jax.tree.map(jnp.asarray, f(z, t, theta)), z, t), examples, rest)
    _check_slope(slope, examples, rest)
    return slope


def _explained(call: Callable, examples: tuple, rest: PyTree) -> Any:
    """Return `call()`; if it fails as the field would with other arguments, say so."""
    try:
        return call()
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        hint = _other_call(examples, rest)
        if hint is None:
            _note_of_theta(error, *eqx.combine(examples[-1], rest))
            raise
        raise TypeError(f"f failed as f(z, t, theta), with {error!r}. {hint}") from error


def _note_of_theta(error: Exception, f: Any, theta: PyTree) -> None:
    """Add to an error that `theta` was not given, if the field asks for it."""
    try:
        parameters = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):
        return
    if theta is None and len(parameters) > 2 and parameters[2].default is parameters[2].empty:
        error.add_note("theta was not given: f was called as f(z, t, None).")


def _check_slope(slope: PyTree, examples: tuple, rest: PyTree) -> None:
    """Refuse a slope that is not like the state, and warn of a field whose arguments look swapped."""
    z, _, values = examples
    want, got = _kinds(z), _kinds(slope)
    if got != want:
        hint = _other_call(examples, rest)
        said = "" if hint is None else f" {hint}"
        raise TypeError(f"f(z, t, theta) must return a pytree like z0 = {want}, got {got}.{said}")
    warn_of_time_first(eqx.combine(values, rest)[0], "f(z, t, theta)")


def warn_of_time_first(f: Callable, call: str) -> None:
    """Warn of a field that is called with the state first, and whose arguments look swapped."""
    if _time_first(f):
        _warn(f"f is called as {call}, but its first argument has the name of a time. {_SWAP}")


def _kinds(z: PyTree) -> PyTree:
    return jax.tree.map(lambda x: (x.shape, str(x.dtype)), z)


_SWAP = "The arguments look swapped: wrap it as from_torchdiffeq(f) or from_diffrax(f)."
_TWO = "It takes two arguments: write it with a third, f(z, t, theta)."
_ONE = "It takes the state alone: call it in a function f(z, t, theta), or in an Equinox module with such a __call__."

# other signatures that fields come with: whether time comes first, the hint, the call
_CALLS: tuple[tuple[bool, str, Callable], ...] = (
    (True, _SWAP, lambda f, z, t, theta: f(t, z, theta)),
    (True, _SWAP, lambda f, z, t, theta: f(t, z)),
    (False, _TWO, lambda f, z, t, theta: f(z, t)),
    (False, _ONE, lambda f, z, t, theta: f(z)),
)


def _other_call(examples: tuple, rest: PyTree) -> str | None:
    """Return a hint to a call with which `f` runs and that the names of its arguments allow; None if there is none."""
    f = eqx.combine(examples[-1], rest)[0]
    first, fits = _time_first(f), _takes_three(f)
    for time_first, hint, call in _CALLS:
        if first in (None, time_first) and (time_first or not fits) and _explains(call, examples, rest):
            return hint
    return None


def _takes_three(f: Callable) -> bool:
    """Whether the signature of `f` takes `f(z, t, theta)`, so that another number of arguments explains nothing."""
    try:
        inspect.signature(f).bind(None, None, None)
    except (TypeError, ValueError):
        return False
    return True


def _time_first(f: Callable) -> bool | None:
    """Whether time comes first, by the names of the arguments; None if they do not tell."""
    try:
        names = [name.lower() for name in inspect.signature(f).parameters]
    except (TypeError, ValueError):
        return None
    first, second = (name in TIMES for name in (*names, "", "")[:2])
    return None if first == second else first


def _explains(call: Callable, examples: tuple, rest: PyTree) -> bool:
    z0 = examples[0]

    def field(z, t, values):
        f, theta = eqx.combine(values, rest)
        return call(f, z, t, theta)

    try:
        hoisted = hoist(field, *examples)
    except Exception:  # if user code fails, however it does, the guess was wrong
        return False
    looks = any(hoisted.used[: len(jax.tree.leaves(z0))])
    return looks and _kinds(hoisted.shape) == _kinds(z0)
