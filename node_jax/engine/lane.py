"""A solve of one lane: what it depends on, how far it has come, and one trial of a step."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from node_jax import marks, tree
from node_jax.control import Control, Proposal, direction
from node_jax.methods.explicit import ExplicitRK
from node_jax.save import Trial
from node_jax.types import RUNNING, PyTree, Stats, Status, Time, VectorField


class Inputs(NamedTuple):
    """Everything a solve depends on by value; each leaf has its own lane axes at its end."""

    z0: PyTree
    t0: jax.Array
    t1: jax.Array
    theta: PyTree  # a list of arrays in the solve of a user
    steps: Any
    save: Any
    expected_cost: Any = None  # of a lane; None: not known
    limit: Any = None  # most trials of a lane; None: `max_steps` of the problem

    @property
    def sign(self) -> jax.Array:
        """-1 where time runs backwards, else 1."""
        return direction(self.t0, self.t1)


class Problem(NamedTuple):
    """Everything a solve depends on by structure. `field(z, t, theta)` takes the theta of `Inputs`."""

    field: VectorField
    timed: bool  # whether the field looks at t
    method: ExplicitRK
    max_steps: int | None
    unflatten: Callable[[Sequence[Any]], Inputs]
    crosses: bool = False  # whether breakpoints move in a derivative
    lane_width: int | float | None = None  # lanes that step together; None: chosen
    multiplies: bool = False  # whether the field multiplies matrices
    room: int | None = None  # lanes for which a loop around the field is one function on a CPU; None: not known


class Progress(NamedTuple):
    """How far a lane has come."""

    t: Time
    z: PyTree
    memory: PyTree
    control: Control
    status: jax.Array
    accepted: jax.Array
    rejected: jax.Array
    limited: jax.Array
    unseen: jax.Array
    restarts: Any  # slopes evaluated anew after breakpoints; None if there are none


class Outcome(NamedTuple):
    """What a lane returns: the state at `t1` (NaN after a failure), what was saved, and the account of it."""

    z1: PyTree
    out: PyTree
    status: jax.Array
    t_reached: jax.Array
    stats: Stats

    @property
    def ok(self) -> jax.Array:
        """Whether `t1` was reached."""
        return self.status == Status.SUCCESS

    @property
    def still(self) -> jax.Array:
        """Whether there was nothing to integrate: all that the lane returns is `z0`."""
        return self.ok & (self.stats.accepted == 0)


def _breakpoints(steps: Any) -> jax.Array | None:
    points = getattr(steps, "breakpoints", None)
    return points if points is not None and points.size else None


def _restarts(problem: Problem, steps: Any) -> bool:
    """Whether a slope has to be evaluated anew after a breakpoint."""
    return problem.method.first_same_as_last and _breakpoints(steps) is not None


class Window(NamedTuple):
    """The times between two breakpoints, as far as the field may be asked about them."""

    low: jax.Array
    high: jax.Array


def window(steps: Any, t: jax.Array, sign: jax.Array) -> Window | None:
    """Return the times that a step from `t` in the direction `sign` may see; None if there are no breakpoints.

    A breakpoint at `t` itself lies outside: the step sees the field behind it.
    """
    breakpoints = _breakpoints(steps)
    if breakpoints is None:
        return None
    breakpoints, t = lax.stop_gradient((breakpoints, t))
    high = jnp.min(jnp.where(breakpoints > t, breakpoints, jnp.inf))
    low = jnp.max(jnp.where(breakpoints < t, breakpoints, -jnp.inf))
    here = jnp.any(breakpoints == t)
    return Window(
        next_to(jnp.where(here & (sign > 0), t, low), jnp.inf), next_to(jnp.where(here & (sign < 0), t, high), -jnp.inf)
    )


def next_to(t: jax.Array, towards: float) -> jax.Array:
    """Return the number next to `t`, at 0 the smallest that is not flushed to 0."""
    tiny = float(jnp.finfo(t.dtype).tiny)
    return jnp.where(t == 0, tiny if towards > 0 else -tiny, jnp.nextafter(t, towards))


def within(field: VectorField, times: Window | None) -> VectorField:
    """Return the field that is only asked about times within the window; its derivative in time stays what it is."""
    if times is None:
        return field

    def inside(z, t, theta):
        nearest = jnp.clip(lax.stop_gradient(t), times.low, times.high)
        return field(z, nearest + (t - lax.stop_gradient(t)), theta)

    return inside


def visible(field: VectorField, steps: Any, t: jax.Array, sign: jax.Array) -> VectorField:
    """Return the field as a step from `t` in the direction `sign` may see it: never from beyond a breakpoint."""
    return within(field, window(steps, t, sign))


def at_stages(problem: Problem, inputs: Inputs, t: jax.Array) -> VectorField:
    """Return the field as the stages of a step from `t` may see it; the state of each is computed once.

    That costs a kernel, which the products of matrices need in any case.
    """
    field = visible(problem.field, inputs.steps, t, inputs.sign)
    return field if problem.multiplies else lambda z, time, theta: field(marks.once(z), time, theta)


def _limit(problem: Problem, inputs: Inputs) -> Any:
    """Return the most trials of a lane; None if nothing bounds them."""
    return inputs.steps.trials(problem.max_steps if inputs.limit is None else inputs.limit)


def begin(problem: Problem, inputs: Inputs) -> Progress:
    """Check the values and choose the first step."""
    z0, t0, t1, theta, steps, save, *_ = inputs
    field = visible(problem.field, steps, t0, inputs.sign)
    control, memory = steps.first(problem.method, field, z0, t0, t1, theta, _limit(problem, inputs))
    valid = jnp.isfinite(t0) & jnp.isfinite(t1) & steps.valid(t0, t1) & save.valid(t0, t1)
    finite = tree.all_finite(z0) & tree.all_finite(memory)
    # prescribed steps are taken on a way of no length too: the derivatives in the times are theirs
    status = jnp.full((), RUNNING) if steps.exact_times else jnp.where(t0 == t1, Status.SUCCESS, RUNNING)
    status = jnp.where(finite, status, Status.NON_FINITE)
    status = jnp.where(valid, status, Status.BAD_INPUT).astype(jnp.int32)
    zero = jnp.zeros((), jnp.int32)
    return Progress(
        Time(t0, jnp.zeros_like(t0)),
        z0,
        memory,
        control,
        status,
        zero,
        zero,
        zero,
        zero,
        zero if _restarts(problem, steps) else None,
    )


def attempt(problem: Problem, inputs: Inputs, p: Progress) -> tuple[Progress, tuple[Trial, jax.Array]]:
    """Try one step; a lane that is done stays as it is. Also say whether the step ended at a breakpoint."""
    _, t0, t1, theta, steps, save, *_ = inputs
    live = p.status == RUNNING
    proposal: Proposal = steps.propose(p.control, p.t, p.accepted, t0, t1)
    field = at_stages(problem, inputs, p.t.high)
    step = problem.method.step(field, p.t.high, p.z, proposal.h, theta, p.memory)
    verdict = steps.judge(problem.method, step, p.z, p.t, proposal, p.control, t0, t1)

    accepted = live & verdict.accepted
    done = p.accepted + accepted
    rejected = p.rejected + (live & ~verdict.accepted)
    failure = verdict.failure
    if save.capacity is not None:
        failure = jnp.where((failure == Status.SUCCESS) & (done >= save.capacity), Status.CAPACITY, failure)
    limit = _limit(problem, inputs)
    if limit is not None and not steps.exact_times:
        spent = (failure == Status.SUCCESS) & (done + rejected >= limit)
        failure = jnp.where(spent, Status.MAX_STEPS, failure)
    ended = jnp.where(failure == Status.SUCCESS, RUNNING, failure)
    ended = jnp.where(verdict.accepted & proposal.last, Status.SUCCESS, ended)
    after = Progress(
        tree.where(accepted, proposal.end, p.t),
        tree.where(accepted, step.z1, p.z),
        tree.where(accepted, step.memory, p.memory),
        tree.where(live, verdict.control, p.control),
        jnp.where(live, ended, p.status).astype(jnp.int32),
        done,
        rejected,
        p.limited + (accepted & verdict.limited),
        p.unseen + (accepted & verdict.unseen),
        p.restarts,
    )
    trial = Trial(accepted, p.accepted, p.t, proposal.h, proposal.end.high, p.z, step.z1, step.slopes)
    return after, (trial, accepted & proposal.breaks)


def untried(method: ExplicitRK, p: Progress) -> tuple[Trial, jax.Array]:
    """Return what `attempt` says of the trial before the first."""
    no = jnp.array(False)
    return Trial(no, p.accepted, p.t, p.t.high, p.t.high, p.z, p.z, (p.z,) * len(method.c)), no


def restart(problem: Problem, inputs: Inputs, p: Progress, landed: jax.Array) -> Progress:
    """Evaluate the first slope anew on the far side of a breakpoint."""
    field = visible(problem.field, inputs.steps, p.t.high, inputs.sign)
    memory = problem.method.start(field, p.t.high, p.z, inputs.theta)
    restarts = None if p.restarts is None else p.restarts + landed
    return p._replace(memory=tree.where(landed, memory, p.memory), restarts=restarts)


def outcome(problem: Problem, inputs: Inputs, rest: tuple[Progress, PyTree, jax.Array]) -> Outcome:
    """Sum up one lane."""
    p, out, idle = rest
    method = problem.method
    trials = p.accepted + p.rejected
    nfe = inputs.steps.first_evaluations(method) + trials * method.evaluations
    if p.restarts is not None:
        nfe += p.restarts
    if method.c_dense and inputs.save.wants_slopes:
        steps = p.accepted if inputs.save.capacity else out.dense_steps
        nfe += len(method.c_dense) * steps
    ok = p.status == Status.SUCCESS
    z1 = tree.where(ok, p.z, tree.full_like(p.z, jnp.nan))
    limited = p.limited if method.last_pair is not None else jnp.full_like(p.limited, -1)
    unseen = jnp.full_like(p.unseen, -1) if inputs.steps.exact_times else p.unseen
    return Outcome(z1, out, p.status, p.t.high, Stats(nfe, p.accepted, p.rejected, limited, idle, unseen))
