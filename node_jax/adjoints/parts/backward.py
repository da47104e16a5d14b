"""The way back over recorded steps, for every strategy that has one."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from node_jax import axes, marks, tree
from node_jax.adjoints.parts.boundary import Cotangents, crossing
from node_jax.adjoints.parts.history import History, Slots
from node_jax.adjoints.parts.pullback import Pullback, Retraced, differentiable
from node_jax.adjoints.parts.replay import Lane, Row, at_nodes, start_of
from node_jax.adjoints.parts.segments import go_back
from node_jax.engine.each import Each
from node_jax.engine.lane import Inputs, Outcome
from node_jax.save import Trial
from node_jax.types import PyTree


def within_steps(each: Each, moving: Sequence[bool], shifted: Sequence[bool]) -> tuple[Each, list[bool]]:
    """Say which leaves that move are part of a recorded step; let the steps know if breakpoints are."""
    each, points = crossing(each, shifted)
    parts = differentiable(each.inputs)
    return each, [yes and (part or point) for yes, part, point in zip(moving, parts, points, strict=True)]


class Backward(NamedTuple):
    """The carry of the way back; `left` counts the steps of each lane that are not yet undone."""

    z: PyTree
    leaves: list
    save: PyTree
    left: jax.Array


def back_over_steps(
    each: Each,
    solved: tuple[Outcome, History],
    bar: Cotangents,
    lane_ok: jax.Array,
    chosen: Sequence[bool],
    pullback: Pullback,
    recorder: Slots,
    exact: bool,
) -> tuple[PyTree, list]:
    """Return the cotangent of the first node and, leaf by leaf, that of the steps; `exact`: of the times too."""
    problem, (outcome, history) = each.problem, solved
    inside, lane = at_nodes(each), lane_of(each, outcome, lane_ok)
    saved = each.inputs.save

    def undo(i, row: Row, carry: Backward) -> Backward:
        active, start = start_of(lane, i, row)
        y, pull = pullback(start)
        time = start.t._replace(high=y.t)
        trial = Trial(active, jnp.maximum(carry.left - 1, 0), time, y.h, time.high, start.z, y.z1, y.slopes)
        save, into = saved.pull(inside, problem.method, carry.save, trial, tree.row(history.rounds, i))
        z1_bar = tree.add(tree.where(active, carry.z, tree.full_like(carry.z, 0.0)), into.z1)
        leaves_bar, z_bar = pull(Retraced(z1_bar, into.slopes, into.t, into.h))
        z_bar = tree.where(active, tree.add(z_bar, into.z), carry.z)
        return Backward(z_bar, tree.add(carry.leaves, leaves_bar), save, carry.left - active)

    leaves_bar = tree.full_like(tree.picked(each.leaves, chosen), 0.0)
    carry = Backward(bar.z1, leaves_bar, unwind(each, outcome, bar, exact), lane.accepted)
    carry = marks.whole(lambda carry: go_back(each, history, lane, recorder, undo, carry), carry)
    return carry.z, of_leaves(each, chosen, carry, lane_ok, exact)


def lane_of(each: Each, outcome: Outcome, lane_ok: jax.Array) -> Lane:
    """Return what stays the same on the way back."""
    z0, t0 = each(lambda inputs, _: (inputs.z0, inputs.t0))()
    return Lane(z0, t0, jnp.where(lane_ok, outcome.stats.accepted, 0))


def unwind(each: Each, outcome: Outcome, bar: Cotangents, exact: bool) -> PyTree:
    """Return the cotangents of what was saved, ready to be sent back."""

    def start(inputs: Inputs, rest):
        return inputs.save.unwind(*rest, getattr(inputs.save, "ts", None) if exact else None)

    return each(start)((outcome.out, bar.rows))


def of_leaves(each: Each, chosen: Sequence[bool], carry: Any, lane_ok: jax.Array, exact: bool) -> list:
    """Return the cotangents of the leaves at the end of the way back, None where there are none."""
    summed = tree.where(jnp.any(lane_ok), carry.leaves, tree.full_like(carry.leaves, 0.0))
    looped = tree.replaced([None] * len(chosen), chosen, summed)
    at = each.places.save
    if exact and hasattr(at, "ts"):
        looped[at.ts] = axes.sum_missing(carry.save.ts, each.masks[at.ts])
    return looped
