"""The backward pass over recorded transitions, for every adjoint that transposes or integrates step by step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from node_jax import axes, marks, tree
from node_jax.adjoints.parts.boundary import Cotangents, Ends
from node_jax.adjoints.parts.history import History, Slots
from node_jax.adjoints.parts.pullback import Pullback
from node_jax.adjoints.parts.segments import go_back
from node_jax.adjoints.parts.transition import AllLanes, RecordedStep, Retraced, at_nodes, start_of
from node_jax.engine import rows
from node_jax.engine.each import Each
from node_jax.types import PyTree, Trial


class Backward(NamedTuple):
    """The carry of the backward pass; `left` counts the steps of each lane that remain to be undone."""

    z: PyTree
    leaves: list[Any]
    saved: rows.SavedBar
    left: jax.Array


def back_over_steps(
    ends: Ends, each: Each, history: History, bar: Cotangents, pullback: Pullback, recorder: Slots, exact: bool
) -> tuple[PyTree, list[Any]]:
    """Return the cotangent of the first node and, for each leaf, that from the steps; `exact`: also of the times.

    `each` is the engine in which only leaves move that steps depend on.
    """
    lanes, inside = lanes_of(ends), at_nodes(each)

    def undo(i, row: RecordedStep, carry: Backward) -> Backward:
        active, start = start_of(lanes, i, row)
        y, pull = pullback(start)
        time = start.t._replace(high=y.t)
        trial = Trial(active, jnp.maximum(carry.left - 1, 0), time, y.h, time.high, start.z, y.z1, y.dense)
        saved, into = rows.pull(inside, carry.saved, trial, tree.entry(history.rounds, i))
        z1_bar = tree.add(tree.where(active, carry.z, tree.full_like(carry.z, 0.0)), into.z1)
        leaves_bar, z_bar = pull(Retraced(z1_bar, into.dense, into.t, into.h))
        z_bar = tree.where(active, tree.add(z_bar, into.z), carry.z)
        return Backward(z_bar, tree.add(carry.leaves, leaves_bar), saved, carry.left - active)

    saved = rows.unwind(each, ends.outcome.saved, bar.rows, exact)
    carry = Backward(bar.z1, each.zeros(), saved, lanes.accepted)
    carry = marks.whole(lambda carry: go_back(each, history, lanes, recorder, undo, carry), carry)
    return carry.z, of_leaves(ends, each, carry)


def lanes_of(ends: Ends) -> AllLanes:
    """Return what all transitions share; a lane whose steps do not contribute has no steps."""
    z0, t0 = ends.each(lambda inputs, _: (inputs.z0, inputs.t0))()
    return AllLanes(z0, t0, jnp.where(ends.contribution.steps, ends.outcome.stats.accepted, 0))


def of_leaves(ends: Ends, each: Each, carry: Any) -> list[Any]:
    """Return the cotangents of the leaves after the backward pass, None for leaves without."""
    summed = tree.where(jnp.any(ends.contribution.steps), carry.leaves, tree.full_like(carry.leaves, 0.0))
    along, place = each.of_all(summed), each.places.save.ts
    if carry.saved.ts is not None:
        along[place] = axes.sum_missing(carry.saved.ts, each.masks[place])
    return along
