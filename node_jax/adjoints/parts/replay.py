"""The recorded transitions, taken again in order, as code that forward mode differentiates."""

import jax.numpy as jnp
from jax import lax

from node_jax import tree
from node_jax.adjoints.parts.boundary import arrive, depart, moving_times, reached
from node_jax.adjoints.parts.history import History, Slots
from node_jax.adjoints.parts.transition import AllLanes, RecordedStep, at_nodes, crossing, retake
from node_jax.engine import rows
from node_jax.engine.each import Each
from node_jax.engine.lane import Outcome
from node_jax.types import PyTree, Time


def replay(each: Each, outcome: Outcome, history: History, recorder: Slots) -> tuple[PyTree, PyTree, PyTree]:
    """Return the state at `t1`, the saved rows and the recorded states as functions of the inputs, for fixed steps."""
    each, recorder = crossing(each, each.shifted)[0], recorder.of(history)
    problem, moves = each.problem, moving_times(each)
    z0, t0 = each(lambda inputs, _: (depart(problem, inputs, moves), inputs.t0))()
    inside = at_nodes(each)
    accepted = outcome.stats.accepted
    saved = rows.blank(inside, z0, outcome.still)
    lanes = AllLanes(z0, lax.stop_gradient(t0), accepted)

    def body(i, carry):
        t, z, index, saved, slots = carry
        i = jnp.asarray(i, history.n.dtype)  # without `jit` it is a Python number
        _, trial, after, z1 = retake(each, lanes, i, RecordedStep(tree.entry(history.h, i), t, z), index)
        saved, rounds = rows.record(inside, saved, trial, lambda trial, _: trial)
        # the index of the history must have no lane axis, so every lane counts as accepted
        every = trial._replace(accepted=jnp.ones_like(trial.accepted))
        slots = recorder.write(slots._replace(n=i), t, z, every, rounds)
        return after, z1, index + trial.accepted, saved, slots

    t = Time(lanes.t0, jnp.zeros_like(t0))
    start = (t, z0, jnp.zeros_like(accepted), saved, recorder.blank(z0, lanes.t0))
    _, z, _, saved, slots = lax.fori_loop(0, history.n, body, start)
    nodes = (z, rows.finish(inside, saved, z).rows)
    ends = each(lambda inputs, rest: arrive(problem, inputs, rest, moves))((nodes, reached(each, outcome)))
    return ends.z1, ends.rows, slots.z
