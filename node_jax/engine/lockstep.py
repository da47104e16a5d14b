"""Many lanes in lockstep: one loop in which all lanes try a step together, for any lane axes.

`lane` says what one lane does; here it is mapped over the lanes. The predicate of the loop is a scalar: whether any
lane is live. A lane that is done does not change.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from node_jax import marks, tree
from node_jax.engine import rows
from node_jax.engine.each import Each
from node_jax.engine.lane import Outcome, Progress, at_stages, attempt, begin, outcome, restart
from node_jax.engine.loops import Packing, until
from node_jax.engine.rows import Saved
from node_jax.protocols import Recorder
from node_jax.types import RUNNING, Inputs, Status, Trial


def completed(each: Each) -> Callable[[Trial, jax.Array], Trial]:
    """Return a function that adds to a trial the states that only dense output needs, if any lane wants them."""
    method = each.problem.method

    def more(inputs: Inputs, trial: Trial) -> tuple:
        field = at_stages(each.problem, inputs, trial.t.high)
        return method.complete(field, trial.t.high, trial.z, trial.h, inputs.theta, trial.dense)

    def added(trial: Trial, wanted: jax.Array) -> Trial:
        if not method.dense_evaluations:
            return trial

        def nothing(trial: Trial) -> tuple:
            return tuple(tree.full_like(trial.z, 0.0) for _ in range(method.dense_evaluations))

        return trial._replace(dense=trial.dense + lax.cond(wanted, each(more), nothing, trial))

    return added


def advance(each: Each) -> Callable[[Progress, Saved], tuple[Progress, Saved]]:
    """Return a function that tries one step in every lane."""

    def step(p: Progress, saved: Saved) -> tuple[Progress, Saved]:
        after, (trial, landed) = each(functools.partial(attempt, each.problem))(p)
        saved, _ = rows.record(each, saved, trial, completed(each))
        return jumped(each, after, landed), saved

    return step


def jumped(each: Each, p: Progress, landed: jax.Array) -> Progress:
    """Evaluate first slopes anew in lanes that landed on a breakpoint."""
    if p.restarts is None:
        return p
    again = each(lambda inputs, rest: restart(each.problem, inputs, *rest))
    return lax.cond(jnp.any(landed), again, lambda rest: rest[0], (p, landed))


def _turn(each: Each, recorder: Recorder | None, packing: Packing) -> Callable:
    """Return the body of the loop; for a single lane that records or saves anything, it carries the last trial too."""
    try_step = each(functools.partial(attempt, each.problem))

    def counts(saved, trial):
        return rows.due(each, saved, trial) if recorder is None else trial.accepted

    def turn(carry):
        packed, last, saved, history = carry
        before = packing.opened(packed)
        if last:
            packed, last = until(functools.partial(counts, saved), try_step, packing, packed, last)
            trial, landed = last
        else:
            after, (trial, landed) = try_step(before)
            packed = packing.closed(after)
        if packing.like.restarts is not None:
            packed = packing.closed(jumped(each, packing.opened(packed), landed))
        saved, rounds = rows.record(each, saved, trial, completed(each))
        if recorder is not None:
            memory = packing.opened(packed).memory
            history = recorder.write(history, before.t, before.z, trial, rounds, memory)
        return packed, last, saved, history

    return turn


def integrate(each: Each, recorder: Recorder | None, used: Any = None) -> tuple[Outcome, Any]:
    """Solve all lanes; return the outcomes, and the history, for which the buffers of `used` are reused if given."""
    begun = each(lambda inputs, _: begin(each.problem, inputs))

    def whole(carry):
        # several lanes begin outside, as in the queue, so that results of both are equal to the last bit
        start, history = carry if each.lanes else (begun(), carry[1])
        return _looped(each, recorder, start, history)

    carry = (begun() if each.lanes else (), used if used is None else used.cleared())
    p, saved, history = marks.whole(whole, carry)
    trials = p.accepted + p.rejected
    return concluded(each, p, saved, jnp.max(trials, initial=0) - trials), history


def _looped(each: Each, recorder: Recorder | None, start: Progress, history: Any) -> tuple[Progress, Saved, Any]:
    """Run every lane from its start; return progress, what was saved, and the history."""
    steps = each.inputs.steps
    saved = rows.blank(each, start.z, start.status == Status.SUCCESS)
    if history is None:
        history = () if recorder is None else recorder.blank(start.z, start.t.high)
    packing = Packing.of(each.lanes, start, each.emitted(start))
    turn = _turn(each, recorder, packing)

    def live(carry):
        return jnp.any(packing.opened(carry[0]).status == RUNNING)

    carries = jax.tree.leaves((saved, history)) if packing.packs else recorder is not None
    last = _no_trial(each, start) if carries and not each.lanes else ()
    carry = (packing.closed(start), last, saved, history)
    if steps.fixed_count() is not None and each.lanes:
        carry = lax.fori_loop(0, steps.trials(each.problem.max_steps), lambda _, carry: turn(carry), carry)
    else:
        carry = lax.while_loop(live, turn, carry)
    packed, _, saved, history = carry
    return packing.opened(packed), saved, history


def _no_trial(each: Each, p: Progress) -> tuple[Trial, jax.Array]:
    """Return a trial and a flag for the carry before the first trial."""
    no = jnp.array(False)
    return Trial(no, p.accepted, p.t, p.t.high, p.t.high, p.z, p.z, (p.z,) * each.problem.method.dense_size), no


def concluded(each: Each, p: Progress, saved: Saved, idle: jax.Array) -> Outcome:
    """Return the outcomes of all lanes."""
    saved = rows.finish(each, saved, p.z)
    return each(lambda inputs, rest: outcome(each.problem, inputs, rest))((p, saved, idle))
