"""`odesolve`: check the arguments, choose the dtypes, trace the field, solve, and assemble the `Solution`."""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from node_jax import arguments, placement
from node_jax.adjoints.checkpointed import Checkpointed
from node_jax.checks import find_lost, lanes_in_front, standard, trusting, watching
from node_jax.control import Adaptive
from node_jax.engine import rows
from node_jax.engine.lane import Problem
from node_jax.fallback import or_plain
from node_jax.hints import refuses_by_name
from node_jax.lanes import primitive as lanes
from node_jax.methods import tsit5
from node_jax.outside import reads
from node_jax.protocols import Adjoint, Method, Save, Steps
from node_jax.save import SaveEnd
from node_jax.solution import InputError, Solution, SolveError
from node_jax.times import blur, time_dtype
from node_jax.types import Inputs, PyTree, Status, VectorField


class _Replaced(NamedTuple):
    """A number that is passed as a traced value too: all such numbers are equal, so they share a compilation."""

    number: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Replaced)

    def __hash__(self) -> int:
        return 0


class _Static(NamedTuple):
    """Everything about a call that compilation depends on."""

    structure: Any
    fixed: tuple[Any, ...]  # leaves that are not arrays
    method: Method
    adjoint: Adjoint
    max_steps: int | _Replaced | None
    lane_width: int | float | None
    outside: tuple[Any, ...] = ()  # key of the values that functions read from outside


@refuses_by_name()
def odesolve(
    f: VectorField,
    z0: PyTree,
    t0: Any,
    t1: Any,
    theta: PyTree = None,
    *,
    method: Method = tsit5,
    steps: Steps = Adaptive(),
    adjoint: Adjoint = Checkpointed(),
    save: Save = SaveEnd(),
    max_steps: int | None = 4096,
    throw: bool = True,
    lane_width: int | float | None = None,
    expected_cost: Any = None,
) -> Solution:
    """Solve `dz/dt = f(z, t, theta)` from `z(t0) = z0` to `t1`.

    The batch interface is `jax.vmap`: lanes step independently and fail independently. Gradients flow to `z0`, `t0`,
    `t1`, `theta`, the output times, the leaves of a module `f`, and whatever `f` closes over.

    Args:
        f: vector field `f(z, t, theta)`, returning a pytree like `z` (shapes and dtypes). A module-level function or
            an equinox module: a new lambda for each call compiles again. What it reads from outside (a global,
            `self.k`, a variable it closes over) becomes a constant of the compiled solve. When such a name is bound to
            another value, the solve compiles again. Changes inside an array, a list or a dictionary are not noticed,
            nor are values that functions of other modules read. Inside a `jit` of the caller nothing is noticed. Pass
            what changes as `theta`.
        z0: initial state: pytree of real or complex floating arrays.
        t0: initial time, real scalar. All times get the widest dtype among times given as arrays and the real dtype of
            `z0`, at least float32. Python numbers get that dtype too, or 64 bits where it would blur the distances
            between them (a float32 state and seconds since 1970).
        t1: final time, scalar; `t1 < t0` integrates backwards, `t1 == t0` returns `z0`.
        theta: parameters: any pytree of arrays, Python numbers and functions. Numbers are traced as arrays, bools and
            integers too; functions are static. Text and other objects are refused: put them into static fields of a
            module, or let `f` close over them.
        method: an explicit Runge-Kutta method, or one of your own (`node_jax.protocols.Method`).
        steps: `Adaptive(rtol, atol)`, `Fixed(n)`, `Grid(ts)`, or a policy of your own.
        adjoint: how gradients are computed.
        save: what is saved besides `z1`.
        max_steps: largest number of trials of one lane under `Adaptive`; None: no limit (and no reverse mode).
        throw: raise `SolveError` when a solve outside any transformation fails.
        lane_width: largest number of solves of a batch that step together. The others wait in a queue, and each takes
            the lane of one that is done, so that short solves do not wait for long ones. Default: on a CPU 64 for small
            states, fewer for large ones, 256 for fields that multiply matrices; elsewhere, and with `math.inf`, all.
        expected_cost: expected cost of this solve relative to the others of the batch, a real scalar in any unit: the
            queue takes the most expensive first. Default: in the order of the batch.

    Returns:
        A `Solution`.

    Raises:
        SolveError: if the solve fails, values are concrete and `throw` is true; `.solution` holds what was saved. If
            an argument is wrong it is an `InputError`, also a `ValueError`, which names the argument and its value.
        ValueError, TypeError: for arguments of a wrong shape, dtype or type, at trace time.
        FloatingPointError: under `jax_debug_nans` or `jax_debug_infs`, if a solve meets a NaN or an infinity. Rows that
            no step wrote are NaN on purpose and accepted, except as results of a `jit` of the caller, which JAX checks.
        NotImplementedError: if `f` has an ordered effect or a `checkify.check`, which no solve can carry out, or an
            operation that `div_checks` or `index_checks` of `checkify` would test. Its `nan_checks` find failed solves.

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
    arguments.check_options(f, **options, lane_width=lane_width, throw=throw)
    arguments.warn_of_tolerances(steps, z0)
    solved = _watched if watching() else _solved
    solution = solved(f, z0, t0, t1, theta, **options, lane_width=lane_width, expected_cost=expected_cost)
    if placement.is_traced(solution):
        return solution
    arguments.warn_of_small_states(steps, z0, solution)
    if throw and not bool(jnp.all(solution.ok)):
        if bool(jnp.any(solution.status == Status.BAD_INPUT)):
            raise InputError(solution, _complaint(t0, t1, steps, save))
        raise SolveError(solution)
    return solution


def _complaint(t0: Any, t1: Any, steps: Any, save: Any) -> str | None:
    """Return a message about the first argument of a concrete solve whose value is wrong."""
    for name, t in (("t0", t0), ("t1", t1)):
        if not np.isfinite(t):
            return f"{name} must be finite, got {t}"
    return steps.complaint(t0, t1) or save.complaint(t0, t1)


def _solved(*args, **options) -> Solution:
    static, dynamic = _with_limit(*prepare(*args, **options))
    if jax.config.jax_check_tracer_leaks:  # pyright: ignore[reportAttributeAccessIssue]
        # no cache here: it would keep the functions in `static` and the tracers that they close over alive
        return jax.jit(functools.partial(_solve, static))(dynamic)
    return _compiled(static, dynamic)


def _watched(*args, **options) -> Solution:
    """Solve under `jax_debug_nans` or `jax_debug_infs`: allow rows that are NaN on purpose, find failed solves."""
    with trusting():
        solution = jax.tree.map(lanes_in_front, _solved(*args, **options))
    try:
        find_lost(solution.status == Status.NON_FINITE)
    except FloatingPointError as error:
        where = "" if placement.is_traced(solution) else f" at t = {jnp.asarray(solution.t_reached)[()]}"
        raise FloatingPointError(
            f"a solve ended NON_FINITE{where}: a value of f, z0, theta or the times is NaN or infinite. Call f there by"
            " hand, still under jax_debug_nans, to find the operation; without the switch, sol.status says which lanes"
        ) from error
    return solution


def prepare(
    f, z0, t0, t1, theta, *, method, steps, adjoint, save, max_steps, lane_width=None, expected_cost=None
) -> tuple[_Static, list[Any]]:
    """Separate what compilation depends on from the values."""
    z0, theta = arguments.checked_state(z0), arguments.checked_theta(theta)
    dtype = time_dtype(z0, t0, t1, (steps, save))
    ends, (t0, t1) = (t0, t1), (_time("t0", t0, dtype), _time("t1", t1, dtype))
    steps, save = (_cast(part, ends, t0, t1) for part in (steps, save))
    steps = arguments.checked_tolerances(steps, z0)

    cost = None if expected_cost is None else _time("expected_cost", expected_cost, dtype)

    leaves, structure = jax.tree.flatten((f, theta, z0, t0, t1, steps, save, cost))
    number_of_f = len(jax.tree.leaves(f))
    dynamic = [x if _is_value(x, i >= number_of_f) else None for i, x in enumerate(leaves)]
    fixed = tuple(None if d is not None else x for x, d in zip(leaves, dynamic, strict=True))
    functions = [x for x in fixed if callable(x)]
    outside = reads(*functions, *_classes(f))
    return _Static(structure, fixed, method, adjoint, max_steps, lane_width, outside), dynamic


def _with_limit(static: _Static, dynamic: list[Any]) -> tuple[_Static, list[Any]]:
    """Outside all transformations pass `max_steps` as a value, so that another one does not compile anew."""
    limit = static.max_steps
    if not isinstance(limit, int) or not placement.outermost():
        return static, dynamic
    return static._replace(max_steps=_Replaced(limit)), [*dynamic, np.int32(min(limit, np.iinfo(np.int32).max))]


def _classes(f: Any) -> list[type]:
    """Return the classes of a user's modules in `f`, including modules inside modules."""
    found: dict[type, None] = {}

    def look(x):
        if isinstance(x, eqx.Module) and not type(x).__module__.startswith(_PACKAGES):
            found[type(x)] = None
        for child in jax.tree.leaves(x, is_leaf=lambda y: y is not x):
            if child is not x and not eqx.is_array(child):
                look(child)

    look(f)
    if not found and not jax.tree_util.all_leaves([f]) and not isinstance(f, eqx.Module):
        found[type(f)] = None
    return list(found)


_PACKAGES = ("node_jax.", "equinox.")


def problem_of(static: _Static, dynamic: list[Any]) -> tuple[Problem, list[Any], PyTree]:
    """Return the static problem, the leaves of its inputs, and theta."""
    max_steps, limit = static.max_steps, None
    if isinstance(max_steps, _Replaced):
        max_steps, (*dynamic, limit) = max_steps.number, dynamic
        limit = jnp.asarray(limit)
    leaves = [x if d is None else d for x, d in zip(static.fixed, dynamic, strict=True)]
    f, theta, z0, t0, t1, steps, save, cost = jax.tree.unflatten(static.structure, leaves)
    arrays, rigid = eqx.partition(f, eqx.is_array)
    numbers, other = eqx.partition(theta, eqx.is_array_like)
    values = (arrays, numbers)
    field = arguments.hoisted_field(z0, t0, values, (rigid, other))
    numbers = [jnp.asarray(p) for p in jax.tree.leaves(values) + field.consts]
    inputs = Inputs(z0, t0, t1, numbers, steps.aligned(t0, t1), save, cost, limit)
    flat, structure = jax.tree.flatten(inputs)
    timed = field.used[len(jax.tree.leaves(z0))]
    method = static.adjoint.scheme(static.method)
    known = {"lane_width": static.lane_width, "multiplies": field.multiplies, "room": field.room}
    unflatten = functools.partial(jax.tree.unflatten, structure)
    problem = Problem(field.call, timed, method, max_steps, unflatten, **known)
    return problem, flat, theta


def _solve(static: _Static, dynamic: list[Any]) -> Solution:
    problem, flat, theta = problem_of(static, dynamic)
    outcome = standard(lanes.solve)(problem, static.adjoint, flat)

    inputs = problem.unflatten(flat)
    written = standard(rows.written)(inputs, outcome.saved, outcome.stats.accepted, outcome.ok)
    found = inputs.save.results(outcome.saved.rows, (inputs.z0, inputs.t0, theta), written)
    t_reached = jax.lax.stop_gradient(outcome.t_reached)
    return Solution(outcome.z1, found.ts, found.zs, outcome.status, t_reached, outcome.stats, found.interpolant)


_compiled = or_plain(_solve)


def _is_value(x: Any, numbers: bool) -> bool:
    """Whether a leaf is traced: arrays always are, Python numbers only outside a module `f`."""
    return eqx.is_array_like(x) if numbers else eqx.is_array(x)


def _time(name: str, t: Any, dtype: jnp.dtype) -> jax.Array:
    if not eqx.is_array_like(t) or jnp.ndim(t) != 0 or jnp.iscomplexobj(t):
        raise ValueError(f"{name} must be a real scalar, got {t!r}")
    return jnp.asarray(t, dtype)


def _cast(part: Any, ends: tuple[Any, ...], t0: jax.Array, t1: jax.Array) -> Any:
    """Cast the values of steps or save to the dtype of times, and align times that came with fewer digits."""

    def leaf(x):
        real = type(x) in (int, float) or (eqx.is_array_like(x) and jnp.issubdtype(jnp.result_type(x), jnp.floating))
        return jnp.asarray(x, t0.dtype) if real else x

    cast = jax.tree.map(leaf, part)
    given = [x for name in part.times if (x := getattr(part, name)) is not None]
    blurred = blur((*given, *ends), t0.dtype) if given else 0.0
    return cast.aligned(t0, t1, blurred) if blurred else cast
