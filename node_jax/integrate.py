"""The lane engine: one loop of masked trials, for any lane axes.

Functions on one lane come first; `integrate` lifts them over the lanes. The loop's predicate is never batched: it asks
whether any lane is live, and a lane that is done changes nothing.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax

from node_jax import tree
from node_jax.control import Control, Proposal
from node_jax.fused import fused
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
    order: Any = None  # what a lane is expected to cost; None: not known


class Problem(NamedTuple):
    """Everything a solve depends on by structure. `field(z, t, theta)` takes the theta of `Inputs`."""

    field: VectorField
    timed: bool  # whether the field looks at t
    method: ExplicitRK
    max_steps: int | None
    unflatten: Callable[[Sequence[Any]], Inputs]
    crosses: bool = False  # whether breakpoints move in a derivative
    lane_width: int | float | None = None  # lanes that step together; None: chosen


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
    restarts: Any  # slopes evaluated anew after breakpoints; None if there are none


class Outcome(NamedTuple):
    """What a lane returns: the state at `t1` (NaN after a failure), what was saved, and the account of it."""

    z1: PyTree
    out: PyTree
    status: jax.Array
    t_reached: jax.Array
    stats: Stats


@runtime_checkable
class Recorder(Protocol):
    """What an adjoint writes down while the engine runs, at one shared index for all lanes."""

    def blank(self, z: PyTree, t: jax.Array) -> Any:
        """Set the buffers apart."""
        ...

    def write(self, history: Any, t: Time, z: PyTree, trial: Trial, rounds: jax.Array, memory: PyTree = ()) -> Any:
        """Record the accepted steps of one trial that started at `(t, z)` and left the method with this memory."""
        ...


class Each(NamedTuple):
    """Map a function of one lane over the lanes: `each(fn)(rest)` calls `fn(inputs, rest)`."""

    problem: Problem
    leaves: Sequence[jax.Array]
    masks: Sequence[Sequence[bool]]
    lanes: Sequence[int]
    columns: Any = None  # of tables that these lanes write; None: each lane its own

    def __call__(self, fn):
        """Lift `fn(inputs, rest)`."""
        lifted = tree.lift(lambda leaves, rest: fn(self.problem.unflatten(leaves), rest), self.masks, self.lanes)
        return lambda rest=(): lifted(list(self.leaves), rest)

    def put(self, chosen: Sequence[bool], some: Sequence) -> "Each":
        """Put `some` in the place of the leaves that are chosen."""
        return self._replace(leaves=tree.replaced(self.leaves, chosen, some))

    def write(self, rows: PyTree, values: PyTree, i: jax.Array) -> PyTree:
        """Write values of shape `(m, *shape, *lanes)` at rows `i` of a table, of each lane its own `i`."""
        return tree.write_rows(rows, values, i, self.columns)


def _breakpoints(steps: Any) -> jax.Array | None:
    points = getattr(steps, "breakpoints", None)
    return points if points is not None and points.size else None


def _restarts(problem: Problem, steps: Any) -> bool:
    """Whether a slope has to be evaluated anew after a breakpoint."""
    return problem.method.first_same_as_last and _breakpoints(steps) is not None


def visible(field: VectorField, steps: Any, t: jax.Array, h: jax.Array) -> VectorField:
    """Return the field as a step from `t` may see it: never from beyond a breakpoint."""
    breakpoints = _breakpoints(steps)
    if breakpoints is None:
        return field
    breakpoints, t, h = lax.stop_gradient((breakpoints, t, h))
    backward = h < 0
    high = jnp.min(jnp.where(breakpoints > t, breakpoints, jnp.inf))
    low = jnp.max(jnp.where(breakpoints < t, breakpoints, -jnp.inf))
    here = jnp.any(breakpoints == t)
    high = jnp.nextafter(jnp.where(here & backward, t, high), -jnp.inf)
    low = jnp.nextafter(jnp.where(here & ~backward, t, low), jnp.inf)
    return lambda z, time, theta: field(z, jnp.clip(time, low, high), theta)


def begin(problem: Problem, inputs: Inputs) -> Progress:
    """Check the values and choose the first step."""
    z0, t0, t1, theta, steps, save, _ = inputs
    field = visible(problem.field, steps, t0, t1 - t0)
    control, memory = steps.first(problem.method, field, z0, t0, t1, theta)
    valid = jnp.isfinite(t0) & jnp.isfinite(t1) & steps.valid(t0, t1) & save.valid(t0, t1)
    finite = tree.all_finite(z0) & tree.all_finite(memory)
    status = jnp.where(t0 == t1, Status.SUCCESS, RUNNING)
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
        zero if _restarts(problem, steps) else None,
    )


def attempt(problem: Problem, inputs: Inputs, p: Progress) -> tuple[Progress, tuple[Trial, jax.Array]]:
    """Try one step; a lane that is done stays as it is. Also say whether the step ended at a breakpoint."""
    _, t0, t1, theta, steps, save, _ = inputs
    live = p.status == RUNNING
    proposal: Proposal = steps.propose(p.control, p.t, p.accepted, t0, t1)
    field = visible(problem.field, steps, p.t.high, proposal.h)
    step = problem.method.step(field, p.t.high, p.z, proposal.h, theta, p.memory)
    verdict = steps.judge(problem.method, step, p.z, p.t, proposal, p.control, t0, t1)

    accepted = live & verdict.accepted
    done = p.accepted + accepted
    rejected = p.rejected + (live & ~verdict.accepted)
    failure = verdict.failure
    if save.capacity is not None:
        failure = jnp.where((failure == Status.SUCCESS) & (done >= save.capacity), Status.CAPACITY, failure)
    limit = steps.trials(problem.max_steps)
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
        p.restarts,
    )
    trial = Trial(accepted, p.accepted, p.t, proposal.h, proposal.end.high, p.z, step.z1, step.slopes)
    return after, (trial, accepted & proposal.breaks)


def restart(problem: Problem, inputs: Inputs, p: Progress, landed: jax.Array) -> Progress:
    """Evaluate the first slope anew on the far side of a breakpoint."""
    field = visible(problem.field, inputs.steps, p.t.high, p.control.h)
    memory = problem.method.start(field, p.t.high, p.z, inputs.theta)
    return p._replace(memory=tree.where(landed, memory, p.memory), restarts=p.restarts + landed)


def extend(each: Each):
    """Return the function that adds the slopes which only dense output needs, where any lane wants them."""
    method = each.problem.method

    def more(inputs, trial):
        field = visible(each.problem.field, inputs.steps, trial.t.high, trial.h)
        slopes = method.dense_slopes(field, trial.t.high, trial.z, trial.h, inputs.theta, trial.slopes)
        return slopes[len(trial.slopes) :]

    def none(inputs, trial):
        return tuple(tree.full_like(trial.z, 0.0) for _ in method.c_dense)

    def added(trial: Trial, wanted: jax.Array) -> Trial:
        if not method.c_dense or len(trial.slopes) == len(method.dense):
            return trial
        extra = lax.cond(wanted, each(more), each(none), trial)
        return trial._replace(slopes=trial.slopes + extra)

    return added


def advance(each: Each) -> Callable:
    """Return what tries one step of every lane: `(progress, out) -> (progress, out)`."""

    def step(p: Progress, out: PyTree) -> tuple[Progress, PyTree]:
        after, (trial, landed) = each(lambda inputs, p: attempt(each.problem, inputs, p))(p)
        out, _ = each.problem.unflatten(each.leaves).save.record(each, each.problem.method, extend(each), out, trial)
        return restarted(each, after, landed), out

    return step


def restarted(each: Each, p: Progress, landed: jax.Array) -> Progress:
    """Restart the lanes that landed on a breakpoint."""
    if p.restarts is None:
        return p
    again = each(lambda inputs, rest: restart(each.problem, inputs, *rest))
    return lax.cond(jnp.any(landed), again, lambda rest: rest[0], (p, landed))


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
    return Outcome(z1, out, p.status, p.t.high, Stats(nfe, p.accepted, p.rejected, limited, idle))


def closed(p: Progress) -> PyTree:
    """Pack what each lane has one number of: on a CPU every array of a loop's carry costs a kernel.

    With hundreds of lanes two threads share the kernels of a turn, and lose more by that than they gain: saving at
    times took twice as long with a kernel for each of these arrays.
    """
    return tree.pack(p._replace(z=(), memory=())), p.z, p.memory


def opened(packed: PyTree, like: Progress) -> Progress:
    """Invert `closed`."""
    scalars, z, memory = packed
    return tree.unpack(scalars, like._replace(z=(), memory=()))._replace(z=z, memory=memory)


def _until(counts: Callable, try_step: Callable, like: Progress, packed: PyTree, last: PyTree) -> tuple:
    """Repeat the trials of a single lane until one counts or the lane ends; the last trial travels along.

    Buffers then stay out of the innermost loop: XLA on a CPU runs a loop body one kernel after the other, without a
    thread pool, only if all its arrays are small (0.6 us a step against 1.6).
    """

    def live(carry):
        packed, _, done = carry
        return ~done & (opened(packed, like).status == RUNNING)

    def body(carry):
        after, (trial, landed) = try_step(opened(carry[0], like))
        return closed(after), (trial, landed), counts(trial) | landed

    packed, last, _ = lax.while_loop(live, body, (packed, last, jnp.array(False)))
    return packed, last


def _turn(each: Each, recorder: Recorder | None, start: Progress) -> tuple[Callable, Any]:
    """Return the body of the loop, and the last trial of a single lane (zeros) if there is anything to write down."""
    problem, save = each.problem, each.problem.unflatten(each.leaves).save
    try_step = each(lambda inputs, p: attempt(problem, inputs, p))

    def counts(out, trial):
        return save.due(each, out, trial) if recorder is None else trial.accepted

    def turn(carry):
        packed, last, out, history = carry
        before = opened(packed, start)
        if last:
            packed, last = _until(functools.partial(counts, out), try_step, start, packed, last)
            trial, landed = last
        else:
            after, (trial, landed) = try_step(before)
            packed = closed(after)
        if start.restarts is not None:
            packed = closed(restarted(each, opened(packed, start), landed))
        out, rounds = save.record(each, problem.method, extend(each), out, trial)
        if recorder is not None:
            memory = opened(packed, start).memory
            history = recorder.write(history, before.t, before.z, trial, rounds, memory)
        return packed, last, out, history

    return turn, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(try_step, start)[1])


def integrate(each: Each, recorder: Recorder | None, used: Any = None) -> tuple[Outcome, Any]:
    """Run every lane to its end and return the outcomes, with the history that `recorder` wrote.

    It is written over `used`, a history that has served, if there is one.
    """
    problem = each.problem
    shape = problem.unflatten(each.leaves)
    start = each(lambda inputs, _: begin(problem, inputs))()
    out = shape.save.blank(each, problem.method, start.z)
    history = () if used is None else used.cleared()
    if recorder is not None and used is None:
        history = recorder.blank(start.z, start.t.high)
    turn, last = _turn(each, recorder, start)

    def live(carry):
        return jnp.any(opened(carry[0], start).status == RUNNING)

    def loop(carry):
        if shape.steps.fixed_count() is not None and each.lanes:
            return lax.fori_loop(0, shape.steps.trials(problem.max_steps), lambda _, carry: turn(carry), carry)
        return lax.while_loop(live, turn, carry)

    singly = not each.lanes and jax.tree.leaves((out, history))
    packed, _, out, history = fused(loop, (closed(start), last if singly else (), out, history))
    p = opened(packed, start)
    trials = p.accepted + p.rejected
    return concluded(each, p, out, jnp.max(trials, initial=0) - trials), history


def concluded(each: Each, p: Progress, out: PyTree, idle: jax.Array) -> Outcome:
    """Sum up all lanes."""
    save = each.problem.unflatten(each.leaves).save
    out = save.finish(each, out, p.z, p.accepted, p.status == Status.SUCCESS)
    return each(lambda inputs, rest: outcome(each.problem, inputs, rest))((p, out, idle))
