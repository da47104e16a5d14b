"""The door: checks, defaults and glue. The only module that knows all the others."""

import functools
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax import lanes, tree
from node_jax.adjoints.backsolve import Backsolve
from node_jax.adjoints.checkpointed import Checkpointed
from node_jax.adjoints.direct import Direct
from node_jax.adjoints.forward import Forward
from node_jax.adjoints.interpolated import Interpolated
from node_jax.adjoints.reversible import Reversible
from node_jax.control import Adaptive, Fixed, Grid
from node_jax.methods import ExplicitRK, tsit5
from node_jax.problem import Inputs, Problem
from node_jax.save import Dense, SaveAt, SaveEnd, SaveSteps
from node_jax.solution import Solution, SolveError
from node_jax.times import time_dtype
from node_jax.types import PyTree, VectorField, is_count

ADJOINTS = (Checkpointed, Backsolve, Interpolated, Reversible, Direct, Forward)


class _Static(NamedTuple):
    """Everything about a call that a new compilation depends on."""

    structure: Any
    fixed: tuple  # leaves that are not arrays
    method: ExplicitRK
    adjoint: Any
    max_steps: int | None
    lane_width: int | float | None


def odesolve(
    f: VectorField,
    z0: PyTree,
    t0: Any,
    t1: Any,
    theta: PyTree = None,
    *,
    method: ExplicitRK = tsit5,
    steps: Adaptive | Fixed | Grid = Adaptive(),
    adjoint: Any = Checkpointed(),
    save: SaveEnd | SaveAt | SaveSteps | Dense = SaveEnd(),
    max_steps: int | None = 4096,
    throw: bool = True,
    lane_width: int | float | None = None,
    order: Any = None,
) -> Solution:
    """Solve `dz/dt = f(z, t, theta)` from `z(t0) = z0` to `t1`.

    The batch interface is `jax.vmap`: lanes step independently and fail independently. Gradients flow to `z0`, `t0`,
    `t1`, `theta`, the output times, the leaves of a module `f`, and whatever `f` closes over.

    Args:
        f: vector field `f(z, t, theta)`, returning a pytree like `z` (shapes and dtypes). A module-level function or
            an equinox module; a new lambda for each call compiles anew.
        z0: initial state: pytree of real or complex floating arrays.
        t0: initial time, real scalar. Times keep their digits: all have the widest dtype among times given as arrays
            and the real dtype of `z0`, at least float32. Python numbers have the dtype of the others, or 64 bits where
            that would blur the distances between them (a float32 state and seconds since 1970).
        t1: final time, scalar; `t1 < t0` integrates backwards, `t1 == t0` returns `z0`.
        theta: parameters: any pytree.
        method: an explicit Runge-Kutta method.
        steps: `Adaptive(rtol, atol)`, `Fixed(n)` or `Grid(ts)`.
        adjoint: how gradients are computed.
        save: what is written down besides `z1`.
        max_steps: most trials of one lane under `Adaptive`; None: no limit (and no reverse-mode gradient).
        throw: raise `SolveError` when a solve outside any transformation fails.
        lane_width: most solves of a batch that step together. The others wait, and each takes the lane of one that is
            done: a batch of solves of different lengths costs what its steps cost. Default: chosen for the backend
            (256 on a CPU); `math.inf`: all together.
        order: expected cost of this solve, a real scalar in any unit, each lane its own: those that wait are taken
            longest first. Default: in their order.

    Returns:
        A `Solution`.

    Raises:
        SolveError: if the solve fails, values are concrete and `throw` is true; `.solution` holds what was saved.
        ValueError, TypeError: for arguments of a wrong shape, dtype or type, at trace time.

    Example:
        >>> import node_jax as nj
        >>> def decay(z, t, rate):
        ...     return -rate * z
        >>> sol = nj.odesolve(decay, 1.0, 0.0, 1.0, 2.0)
        >>> bool(abs(sol.z1 - 0.135335) < 1e-4)
        True
        >>> print(sol)
        Solution: 1 ok, ...
    """
    options = {"method": method, "steps": steps, "adjoint": adjoint, "save": save, "max_steps": max_steps}
    _check_options(f, **options, lane_width=lane_width)
    solution = _solve(*prepare(f, z0, t0, t1, theta, **options, lane_width=lane_width, order=order))
    if throw and not lanes.is_traced(solution) and not bool(jnp.all(solution.ok)):
        raise SolveError(solution)
    return solution


def prepare(
    f, z0, t0, t1, theta, *, method, steps, adjoint, save, max_steps, lane_width=None, order=None
) -> tuple[_Static, list]:
    """Separate what a compilation depends on from the values."""
    z0 = _state(z0)
    dtype = time_dtype(z0, {"t0": t0, "t1": t1, **save.times(), **steps.times()})
    t0, t1 = _time("t0", t0, dtype), _time("t1", t1, dtype)
    steps, save = (_cast(part, dtype) for part in (steps, save))
    _check_tolerances(steps, z0)

    order = None if order is None else _time("order", order, dtype)

    leaves, structure = jax.tree.flatten((f, theta, z0, t0, t1, steps, save, order))
    number_of_f = len(jax.tree.leaves(f))
    dynamic = [x if _is_value(x, i >= number_of_f) else None for i, x in enumerate(leaves)]
    fixed = tuple(None if d is not None else x for x, d in zip(leaves, dynamic, strict=True))
    return _Static(structure, fixed, method, adjoint, max_steps, lane_width), dynamic


def problem_of(static: _Static, dynamic: list) -> tuple[Problem, list, PyTree]:
    """Return the problem by structure and by value, and theta."""
    leaves = [x if d is None else d for x, d in zip(static.fixed, dynamic, strict=True)]
    f, theta, z0, t0, t1, steps, save, order = jax.tree.unflatten(static.structure, leaves)
    arrays, rigid = eqx.partition(f, eqx.is_array)
    numbers, other = eqx.partition(theta, eqx.is_array_like)
    values = (arrays, numbers)
    field = _hoist_field(z0, t0, values, (rigid, other))
    params, params_structure = jax.tree.flatten(values)

    def with_params(z, t, theta):
        parts = jax.tree.unflatten(params_structure, theta[: len(params)])
        return field.call(theta[len(params) :], z, t, parts)

    steps, save = (part.aligned(t0, t1) for part in (steps, save))
    inputs = Inputs(z0, t0, t1, [jnp.asarray(p) for p in params + field.consts], steps, save, order)
    flat, structure = jax.tree.flatten(inputs)
    timed = field.used[len(jax.tree.leaves(z0))]
    unflatten = functools.partial(_unflatten, structure)
    method = static.adjoint.scheme(static.method) if isinstance(static.adjoint, Reversible) else static.method
    width, multiplies = static.lane_width, field.multiplies
    problem = Problem(with_params, timed, method, static.max_steps, unflatten, lane_width=width, multiplies=multiplies)
    return problem, flat, theta


@functools.partial(jax.jit, static_argnums=0)
def _solve(static: _Static, dynamic: list) -> Solution:
    problem, flat, theta = problem_of(static, dynamic)
    save = problem.unflatten(flat).save
    outcome = lanes.solve(problem, static.adjoint, flat)

    rows = save.rows(outcome.out)
    ts, zs, interpolant = None, None, None
    if isinstance(save, SaveAt):
        ts, zs = save.ts, rows
        if save.fn is not None:
            inputs = problem.unflatten(flat)
            zs = _observed(save, (inputs.z0, inputs.t0, theta), zs, save.written(outcome.out, 0, outcome.ok))
    elif isinstance(save, SaveSteps):
        ts, zs = rows
    elif isinstance(save, Dense):
        interpolant = rows
    t_reached = jax.lax.stop_gradient(outcome.t_reached)
    return Solution(outcome.z1, ts, zs, outcome.status, t_reached, outcome.stats, interpolant)


def _observed(save: SaveAt, start: tuple, zs: PyTree, written: jax.Array) -> PyTree:
    """Return `save.fn` of all rows, NaN in those that were not reached.

    There it is given the start of the solve, and ones in the place of what is not finite: what it would make of NaN
    would spoil the gradient of all that it depends on.
    """
    reached = jnp.any(written)

    def finite(x):
        return jnp.where(reached | jnp.isfinite(x), x, jnp.ones_like(x)) if eqx.is_inexact_array(x) else x

    z0, t0, theta = jax.tree.map(finite, start)
    z0 = jax.tree.map(lambda x: jnp.where(jnp.isfinite(x), x, jnp.ones_like(x)), z0)
    zs = tree.where_rows(written, zs, jax.tree.map(lambda x, rows: jnp.broadcast_to(x, rows.shape), z0, zs))
    rows = jax.vmap(lambda z, t: save.fn(z, t, theta))(zs, jnp.where(written, save.ts, t0))
    return tree.where_rows(written, rows, tree.full_like(rows, jnp.nan))


def _unflatten(structure, leaves):
    return jax.tree.unflatten(structure, leaves)


def _is_value(x: Any, numbers: bool) -> bool:
    """Whether a leaf is traced: arrays always, Python numbers outside a module `f`."""
    return eqx.is_array_like(x) if numbers else eqx.is_array(x)


def _state(z0: PyTree) -> PyTree:
    def leaf(x):
        if not eqx.is_array_like(x):
            raise TypeError(f"z0 must be a pytree of arrays, got a leaf of type {type(x).__name__}")
        x = jnp.asarray(x, dtype=jnp.result_type(x))
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            raise TypeError(f"z0 must be of a real or complex floating dtype, got a leaf of {x.dtype}: {x}")
        return x

    return jax.tree.map(leaf, z0)


def _time(name: str, t: Any, dtype: jnp.dtype) -> jax.Array:
    if not eqx.is_array_like(t) or jnp.ndim(t) != 0 or jnp.iscomplexobj(t):
        raise ValueError(f"{name} must be a real scalar, got {t!r}")
    return jnp.asarray(t, dtype)


def _cast(part: Any, dtype: jnp.dtype) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), part)


def _check_options(f, method, steps, save, adjoint, max_steps, lane_width) -> None:
    if not callable(f):
        raise TypeError(f"f must be callable as f(z, t, theta), got {f!r}")
    if type(method) is not ExplicitRK:  # a `Coupled` comes with adjoint=Reversible() only
        raise TypeError(f"method must be an ExplicitRK record such as node_jax.tsit5, got {method!r}")
    if not isinstance(steps, (Adaptive, Fixed, Grid)):
        raise TypeError(f"steps must be Adaptive(...), Fixed(n) or Grid(ts), got {steps!r}")
    if not isinstance(save, (SaveEnd, SaveAt, SaveSteps, Dense)):
        raise TypeError(f"save must be SaveEnd(), SaveAt(ts), SaveSteps(n) or Dense(n), got {save!r}")
    if not isinstance(adjoint, ADJOINTS):
        names = ", ".join(f"{adjoint.__name__}()" for adjoint in ADJOINTS)
        raise TypeError(f"adjoint must be one of {names}, got {adjoint!r}")
    if isinstance(steps, Adaptive) and not method.has_error:
        raise ValueError(f"method={method!r} has no error estimate: use steps=Fixed(n), or a method such as tsit5")
    if save.wants_slopes and not method.dense:
        raise ValueError(f"method={method!r} has no dense output: use save=SaveEnd() or SaveSteps(n)")
    if max_steps is not None and not is_count(max_steps):
        raise ValueError(f"max_steps must be a positive integer or None, got {max_steps!r}")
    if lane_width is not None and lane_width != math.inf and not is_count(lane_width):
        raise ValueError(f"lane_width must be a positive integer, math.inf or None, got {lane_width!r}")


def _check_tolerances(steps: Any, z0: PyTree) -> None:
    if not isinstance(steps, Adaptive):
        return
    for name in ("rtol", "atol"):
        value = getattr(steps, name)
        try:
            spread = tree.spread(value, z0)
            fits = jax.tree.map(lambda tol, x: jnp.broadcast_shapes(tol.shape, x.shape) == x.shape, spread, z0)
            if not all(jax.tree.leaves(fits)):
                raise ValueError("the tolerance is larger than the state")
        except ValueError as error:
            raise ValueError(f"{name} must be a scalar or a pytree prefix of z0, got {value!r}") from error


def _hoist_field(z0, t0, values, rest):
    """Trace the field once and check that what it returns is a slope of `z0`."""

    def field(z, t, values):
        f, theta = eqx.combine(values, rest)
        return _narrowed(f(z, t, theta), z, t)

    def swapped(z, t, values):
        f, theta = eqx.combine(values, rest)
        return f(t, z, theta)

    def without_theta(z, t, values):
        return eqx.combine(values, rest)[0](t, z)

    want = jax.tree.map(lambda x: (x.shape, str(x.dtype)), z0)
    try:
        hoisted = lanes.hoist(field, z0, t0, values)
        got = jax.tree.map(lambda x: (x.shape, str(x.dtype)), hoisted.shape)
    except (TypeError, ValueError, IndexError) as error:
        if any(_fits(other, want, z0, t0, values) for other in (swapped, without_theta)):
            raise TypeError(f"f failed as f(z, t, theta), with {error!r}, but runs with t before z. {_SWAP}") from error
        raise
    if got != want:
        hint = f" {_SWAP}" if any(_fits(other, want, z0, t0, values) for other in (swapped, without_theta)) else ""
        raise TypeError(f"f(z, t, theta) must return a pytree like z0 = {want}, got {got}.{hint}")
    return hoisted


def _narrowed(slope: PyTree, z: PyTree, t: jax.Array) -> PyTree:
    """Bring a slope to the dtypes of the state where times have more digits than the state, and gave them to it."""
    if t.dtype == tree.real_dtype(z) or jax.tree.structure(slope) != jax.tree.structure(z):
        return slope

    def leaf(k, x):
        return k.astype(x.dtype) if jnp.result_type(k) == jnp.promote_types(x.dtype, t.dtype) else k

    return jax.tree.map(leaf, slope, z)


_SWAP = "The arguments look swapped: wrap it as from_torchdiffeq(f) or from_diffrax(f)."


def _fits(field, want, z0, t0, values) -> bool:
    try:
        shape = jax.eval_shape(field, z0, t0, values)
    except Exception:  # any failure of user code means that the guess was wrong
        return False
    return jax.tree.map(lambda x: (x.shape, str(x.dtype)), shape) == want
