"""One lane from its start to its outcome: the problem, its progress, and one trial step.

`run` solves a single lane and is the reference: `lockstep` and `queue` give the same results for many lanes.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from node_jax import marks, tree
from node_jax.events import has_breakpoints, visible
from node_jax.protocols import Method
from node_jax.types import RUNNING, Inputs, Proposal, PyTree, Stats, Status, Step, Time, Trial, VectorField


class Problem(NamedTuple):
    """Everything that a solve depends on by structure; `field(z, t, theta)` takes the theta of `Inputs`."""

    field: VectorField
    timed: bool  # whether the field depends on t
    method: Method
    max_steps: int | None
    unflatten: Callable[[Sequence[Any]], Inputs]
    crosses: bool = False  # whether a derivative with respect to breakpoints is taken
    lane_width: int | float | None = None  # most lanes that step together; None: chosen by `ensemble.width_of`
    multiplies: bool = False  # whether the field multiplies matrices
    room: int | None = None  # most lanes with which a loop around the field is one function; None: not known


class Progress(NamedTuple):
    """How far a lane has come; a count is None if it is not needed or follows from others."""

    t: Time
    z: PyTree
    memory: PyTree
    control: PyTree
    status: jax.Array
    accepted: jax.Array
    rejected: jax.Array
    limited: Any  # accepted steps at the limit of stability
    unseen: jax.Array
    restarts: Any  # slopes evaluated anew after breakpoints
    work: Any  # field evaluations of all trials


class Outcome(NamedTuple):
    """The result of a lane: the state at `t1` (NaN after a failure), what was saved, status and counts."""

    z1: PyTree
    saved: PyTree
    status: jax.Array
    t_reached: jax.Array
    stats: Stats

    @property
    def ok(self) -> jax.Array:
        """Whether `t1` was reached."""
        return self.status == Status.SUCCESS

    @property
    def still(self) -> jax.Array:
        """Whether there was nothing to integrate, so that every output is `z0`."""
        return self.ok & (self.stats.accepted == 0)


class Sink(NamedTuple):
    """A place to record a lane: `write(held, before, trial, after)` returns what is held after a trial."""

    held: PyTree
    write: Callable[[PyTree, Progress, Trial, Progress], PyTree]


def run(problem: Problem, inputs: Inputs, sinks: Sequence[Sink] = ()) -> tuple[Progress, list]:
    """Solve one lane; return its progress and what the sinks hold."""

    def live(carry):
        return carry[0].status == RUNNING

    def turn(carry):
        before, held = carry
        after, (trial, landed) = attempt(problem, inputs, before)
        after = jump(problem, inputs, after, landed)
        return after, [sink.write(x, before, trial, after) for sink, x in zip(sinks, held, strict=True)]

    return lax.while_loop(live, turn, (begin(problem, inputs), [sink.held for sink in sinks]))


def begin(problem: Problem, inputs: Inputs) -> Progress:
    """Check the values of the inputs and choose the first step."""
    z0, t0, t1, theta, steps, save, *_ = inputs
    method = problem.method
    field = visible(problem.field, inputs, t0)
    control, memory = steps.first(method, field, z0, t0, t1, theta, _limit(problem, inputs))
    valid = jnp.isfinite(t0) & jnp.isfinite(t1) & steps.valid(t0, t1) & save.valid(t0, t1)
    finite = tree.all_finite(z0) & tree.all_finite(memory)
    # prescribed steps are taken even if t0 == t1: derivatives with respect to times come from them
    status = jnp.full((), RUNNING) if steps.exact_times else jnp.where(t0 == t1, Status.SUCCESS, RUNNING)
    status = jnp.where(finite, status, Status.NON_FINITE)
    status = jnp.where(valid, status, Status.BAD_INPUT).astype(jnp.int32)
    zero = jnp.zeros((), jnp.int32)
    return Progress(
        t=Time(t0, jnp.zeros_like(t0)),
        z=z0,
        memory=memory,
        control=control,
        status=status,
        accepted=zero,
        rejected=zero,
        limited=zero if method.sees_limit else None,
        unseen=zero,
        restarts=zero if method.first_same_as_last and has_breakpoints(steps) else None,
        work=zero if method.evaluations is None else None,
    )


def attempt(problem: Problem, inputs: Inputs, p: Progress) -> tuple[Progress, tuple[Trial, jax.Array]]:
    """Try one step, unless the lane is done; return also the trial, and whether the step ended at a breakpoint."""
    _, t0, t1, theta, steps, save, *_ = inputs
    live = p.status == RUNNING
    proposal: Proposal = steps.propose(p.control, p.t, p.accepted, t0, t1)
    field = at_stages(problem, inputs, p.t.high)
    step = problem.method.step(field, p.t.high, p.z, proposal.h, theta, p.memory)
    _check_step(problem.method, step)
    verdict = steps.judge(problem.method, step, p.z, p.t, proposal, p.control, t0, t1)
    counts = verdict.accepted if step.ok is True else verdict.accepted & step.ok

    accepted = live & counts
    done = p.accepted + accepted
    rejected = p.rejected + (live & ~counts)
    failure = verdict.failure
    if save.capacity is not None:
        failure = jnp.where((failure == Status.SUCCESS) & (done >= save.capacity), Status.CAPACITY, failure)
    limit = _limit(problem, inputs)
    if limit is not None and steps.fixed_count() is None:
        spent = (failure == Status.SUCCESS) & (done + rejected >= limit)
        failure = jnp.where(spent, Status.MAX_STEPS, failure)
    ended = jnp.where(failure == Status.SUCCESS, RUNNING, failure)
    ended = jnp.where(counts & proposal.last, Status.SUCCESS, ended)
    after = Progress(
        t=tree.where(accepted, proposal.end, p.t),
        z=tree.where(accepted, step.z1, p.z),
        memory=tree.where(accepted, step.memory, p.memory if step.retry is None else step.retry),
        control=tree.where(live, verdict.control, p.control),
        status=jnp.where(live, ended, p.status).astype(jnp.int32),
        accepted=done,
        rejected=rejected,
        limited=None if p.limited is None else p.limited + (accepted & verdict.limited),
        unseen=p.unseen + (accepted & verdict.unseen),
        restarts=p.restarts,
        work=None if p.work is None else p.work + jnp.where(live, step.work, 0).astype(jnp.int32),
    )
    trial = Trial(accepted, p.accepted, p.t, proposal.h, proposal.end.high, p.z, step.z1, step.dense)
    return after, (trial, accepted & proposal.breaks)


def _check_step(method: Method, step: Step) -> None:
    """Refuse a step that lacks what the method says it has."""
    if type(step.error) is not tuple or method.has_error > len(step.error):
        raise TypeError(f"method={method!r}: Step.error must be a tuple of one or two states, got {step.error!r}")
    if method.evaluations is None and step.work is None:
        raise TypeError(f"method={method!r}: Step.work must be a count, as the evaluations of the method are None")


def jump(problem: Problem, inputs: Inputs, p: Progress, landed: jax.Array) -> Progress:
    """Evaluate the first slope anew if the step landed on a breakpoint."""
    if p.restarts is None:
        return p
    return lax.cond(landed, lambda p: restart(problem, inputs, p, landed), lambda p: p, p)


def restart(problem: Problem, inputs: Inputs, p: Progress, landed: jax.Array) -> Progress:
    """Build the memory of the method anew if the lane landed on a breakpoint."""
    field = visible(problem.field, inputs, p.t.high)
    memory = problem.method.start(field, p.t.high, p.z, inputs.theta)
    restarts = None if p.restarts is None else p.restarts + landed
    return p._replace(memory=tree.where(landed, memory, p.memory), restarts=restarts)


def outcome(problem: Problem, inputs: Inputs, rest: tuple[Progress, PyTree, jax.Array]) -> Outcome:
    """Return the outcome of one lane from `(progress, what was saved, idle trials)`."""
    p, saved, idle = rest
    method = problem.method
    work = p.work if method.evaluations is None else (p.accepted + p.rejected) * method.evaluations
    nfe = inputs.steps.first_evaluations(method) + work
    if p.restarts is not None:
        nfe += p.restarts
    if saved.completed is not None:
        nfe += method.dense_evaluations * saved.completed
    ok = p.status == Status.SUCCESS
    z1 = tree.where(ok, p.z, tree.full_like(p.z, jnp.nan))
    limited = jnp.full_like(p.unseen, -1) if p.limited is None else p.limited
    unseen = jnp.full_like(p.unseen, -1) if inputs.steps.exact_times else p.unseen
    return Outcome(z1, saved, p.status, p.t.high, Stats(nfe, p.accepted, p.rejected, limited, idle, unseen))


def at_stages(problem: Problem, inputs: Inputs, t: jax.Array, against: bool = False) -> VectorField:
    """Return the field for the stages of a step from `t`, or of one `against` the direction of the solve."""
    return marks.stages_once(visible(problem.field, inputs, t, against), problem.multiplies)


def _limit(problem: Problem, inputs: Inputs) -> Any:
    """Return the largest number of trials of a lane; None if there is none."""
    return inputs.steps.trials(problem.max_steps if inputs.limit is None else inputs.limit)
