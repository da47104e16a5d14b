"""The lane engine: one loop of masked trials, for any lane axes.

What one lane does is in `problem`; here it is lifted over the lanes. The loop's predicate is never batched: it asks
whether any lane is live, and a lane that is done changes nothing.
"""

import functools
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax

from node_jax import marks, tree
from node_jax.engine.each import Each
from node_jax.engine.lane import Outcome, Progress, at_stages, attempt, begin, outcome, restart, untried
from node_jax.engine.loops import Packing, until
from node_jax.save import Trial
from node_jax.types import RUNNING, PyTree, Status, Time


@runtime_checkable
class Recorder(Protocol):
    """What an adjoint writes down while the engine runs, at one shared index for all lanes."""

    def blank(self, z: PyTree, t: jax.Array) -> Any:
        """Set the buffers apart."""
        ...

    def write(self, history: Any, t: Time, z: PyTree, trial: Trial, rounds: jax.Array, memory: PyTree = ()) -> Any:
        """Record the accepted steps of one trial that started at `(t, z)` and left the method with this memory."""
        ...


def extend(each: Each):
    """Return the function that adds the slopes which only dense output needs, where any lane wants them."""
    method = each.problem.method

    def more(inputs, trial):
        field = at_stages(each.problem, inputs, trial.t.high)
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
        out, _ = each.inputs.save.record(each, each.problem.method, extend(each), out, trial)
        return restarted(each, after, landed), out

    return step


def restarted(each: Each, p: Progress, landed: jax.Array) -> Progress:
    """Restart the lanes that landed on a breakpoint."""
    if p.restarts is None:
        return p
    again = each(lambda inputs, rest: restart(each.problem, inputs, *rest))
    return lax.cond(jnp.any(landed), again, lambda rest: rest[0], (p, landed))


def _turn(each: Each, recorder: Recorder | None, packing: Packing) -> Callable:
    """Return the body of the loop; with a single lane that writes anything down, its last trial travels along."""
    problem, save = each.problem, each.inputs.save
    try_step = each(lambda inputs, p: attempt(problem, inputs, p))

    def counts(out, trial):
        return save.due(each, out, trial) if recorder is None else trial.accepted

    def turn(carry):
        packed, last, out, history = carry
        before = packing.opened(packed)
        if last:
            packed, last = until(functools.partial(counts, out), try_step, packing, packed, last)
            trial, landed = last
        else:
            after, (trial, landed) = try_step(before)
            packed = packing.closed(after)
        if packing.like.restarts is not None:
            packed = packing.closed(restarted(each, packing.opened(packed), landed))
        out, rounds = save.record(each, problem.method, extend(each), out, trial)
        if recorder is not None:
            memory = packing.opened(packed).memory
            history = recorder.write(history, before.t, before.z, trial, rounds, memory)
        return packed, last, out, history

    return turn


def integrate(each: Each, recorder: Recorder | None, used: Any = None) -> tuple[Outcome, Any]:
    """Run every lane to its end and return the outcomes, with the history that `recorder` wrote.

    It is written over `used`, a history that has served, if there is one.
    """
    begun = each(lambda inputs, _: begin(each.problem, inputs))

    def whole(carry):
        # lanes begin outside, as those of the queue do: results are the same to the last bit
        start, history = carry if each.lanes else (begun(), carry[1])
        return _looped(each, recorder, start, history)

    carry = (begun() if each.lanes else (), used if used is None else used.cleared())
    p, out, history = marks.whole(whole, carry)
    trials = p.accepted + p.rejected
    return concluded(each, p, out, jnp.max(trials, initial=0) - trials), history


def _looped(each: Each, recorder: Recorder | None, start: Progress, history: Any) -> tuple[Progress, PyTree, Any]:
    """Run every lane from its start; return progress, what was saved, and the history."""
    problem = each.problem
    shape = each.inputs
    out = shape.save.blank(each, problem.method, start.z, start.status == Status.SUCCESS)
    if history is None:
        history = () if recorder is None else recorder.blank(start.z, start.t.high)
    packing = Packing.of(each.lanes, start, each.emitted(start))
    turn = _turn(each, recorder, packing)

    def live(carry):
        return jnp.any(packing.opened(carry[0]).status == RUNNING)

    carries = jax.tree.leaves((out, history)) if packing.packs else recorder is not None
    last = untried(problem.method, start) if carries and not each.lanes else ()
    carry = (packing.closed(start), last, out, history)
    if shape.steps.fixed_count() is not None and each.lanes:
        carry = lax.fori_loop(0, shape.steps.trials(problem.max_steps), lambda _, carry: turn(carry), carry)
    else:
        carry = lax.while_loop(live, turn, carry)
    packed, _, out, history = carry
    return packing.opened(packed), out, history


def concluded(each: Each, p: Progress, out: PyTree, idle: jax.Array) -> Outcome:
    """Sum up all lanes."""
    save = each.inputs.save
    out = save.finish(each, out, p.z, p.accepted, p.status == Status.SUCCESS)
    return each(lambda inputs, rest: outcome(each.problem, inputs, rest))((p, out, idle))
