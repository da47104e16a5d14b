"""The steps that were taken, again: what forward mode differentiates, and what the way back transposes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from node_jax import tree
from node_jax.adjoints.parts.boundary import arrive, crossing, depart, moving_times, reached
from node_jax.adjoints.parts.history import History, Slots
from node_jax.adjoints.parts.pullback import Start, retrace
from node_jax.engine.each import Each
from node_jax.engine.lane import Inputs, Outcome
from node_jax.save import Trial
from node_jax.types import PyTree, Time


class Lane(NamedTuple):
    """What stays the same on the way back: where idle lanes stand, and the steps of each lane that count."""

    z0: PyTree
    t0: jax.Array
    accepted: jax.Array


class Row(NamedTuple):
    """What is known of one recorded step: its size (None if prescribed), and where it started."""

    h: Any
    t: Time
    z: PyTree


def start_of(lane: Lane, i: jax.Array, row: Row) -> tuple[jax.Array, Start]:
    """Say which lanes made recorded step `i` and where; idle ones stand on their own first state.

    There the field is known to have a pullback, so that a cotangent of zero stays zero.
    """
    index = jnp.full_like(lane.accepted, i)
    h = jnp.zeros_like(lane.t0) if row.h is None else row.h
    active = index < lane.accepted if row.h is None else (h != 0) & (lane.accepted > 0)
    high = lane.t0 if row.t.high is None else jnp.where(active, row.t.high, lane.t0)
    t = Time(high, jnp.zeros_like(high) if row.t.low is None else jnp.where(active, row.t.low, 0.0))
    return active, Start(jnp.where(active, index, 0), t, jnp.where(active, h, 0.0), tree.where(active, row.z, lane.z0))


def retake(each: Each, lane: Lane, i: jax.Array, row: Row, index: jax.Array) -> tuple[Start, Trial, Time, PyTree]:
    """Take recorded step `i` again; return its start, the trial it was, and where it leaves each lane."""
    active, start = start_of(lane, i, row)
    y = each(lambda inputs, start: retrace(each.problem, inputs, start))(start)
    t = start.t._replace(high=y.t)
    end = each(_end)((start.index, t, y.h))
    trial = Trial(active, index, t, y.h, end.high, start.z, y.z1, y.slopes)
    after = row.t if row.t.high is None else tree.where(active, lax.stop_gradient(end), row.t)
    return start, trial, after, tree.where(active, y.z1, row.z)


def _end(inputs: Inputs, rest: tuple[jax.Array, Time, jax.Array]) -> Time:
    """Return where a recorded step ended; under `Adaptive` a constant."""
    end = inputs.steps.end(*rest, inputs.t0, inputs.t1)
    return end if inputs.steps.exact_times else lax.stop_gradient(end)


def recorder_of(adjoint, each: Each, memory: int | None = 0, checkpoints=None, states: bool = False) -> Slots:
    """Return what writes the history of a solve: step sizes, and states if wanted."""
    problem, inputs = each.problem, each.inputs
    limit = inputs.steps.trials(problem.max_steps)
    if limit is None:
        raise ValueError(
            f"max_steps=None: adjoint={adjoint!r} needs a bound on the steps it records; pass max_steps=4096"
        )
    prescribed, slopes = inputs.steps.exact_times, inputs.save.wants_slopes
    timed, rounds = problem.timed or slopes, inputs.save.takes_rounds
    return Slots(memory, checkpoints, limit, prescribed, timed, slopes, rounds, states)


def replay(each: Each, outcome: Outcome, history: History, recorder: Slots, shifted) -> tuple[PyTree, PyTree, PyTree]:
    """Return the state at `t1`, the saved rows and the checkpoints as functions of the inputs, the steps held fixed.

    `shifted` says for each leaf whether it is a time that moves.
    """
    each, recorder = crossing(each, shifted)[0], recorder.of(history)
    problem, method = each.problem, each.problem.method
    moves = moving_times(each, shifted)
    inputs = each.inputs
    save = inputs.save
    z0, t0 = each(lambda inputs, _: (depart(problem, inputs, moves), inputs.t0))()
    inside = at_nodes(each)
    accepted, ok = outcome.stats.accepted, outcome.ok
    out = save.blank(inside, method, z0, outcome.still)
    lane = Lane(z0, lax.stop_gradient(t0), accepted)

    def body(i, carry):
        t, z, index, out, slots = carry
        i = jnp.asarray(i, history.n.dtype)  # a Python number without `jit`
        _, trial, after, z1 = retake(each, lane, i, Row(tree.row(history.h, i), t, z), index)
        out, rounds = save.record(inside, method, lambda trial, _: trial, out, trial)
        # a recorded index counts for all lanes: taken from the loop, it has no lanes, however it is mapped
        every = trial._replace(accepted=jnp.ones_like(trial.accepted))
        slots = recorder.write(slots._replace(n=i), t, z, every, rounds)
        return after, z1, index + trial.accepted, out, slots

    t = Time(lane.t0, jnp.zeros_like(t0))
    start = (t, z0, jnp.zeros_like(accepted), out, recorder.blank(z0, lane.t0))
    _, z, _, out, slots = lax.fori_loop(0, history.n, body, start)
    rows = save.rows(save.finish(inside, out, z, accepted, ok))
    z1, rows = each(lambda inputs, rest: arrive(problem, inputs, rest, moves))(((z, rows), reached(each, outcome)))
    return z1, rows, slots.z


def at_nodes(each: Each) -> Each:
    """Hold the output times fixed, where steps are constants of the derivative."""
    inputs = each.inputs
    if inputs.steps.exact_times or not hasattr(inputs.save, "ts"):
        return each
    i = each.places.save.ts
    return each._replace(leaves=[lax.stop_gradient(x) if i == k else x for k, x in enumerate(each.leaves)])
