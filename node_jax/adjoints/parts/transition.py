"""A recorded transition, taken again: a step, and the jump after it if it landed on a breakpoint.

Forward mode differentiates it, and every backward pass transposes it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from node_jax import tree
from node_jax.engine.each import Each
from node_jax.engine.lane import Problem, at_stages
from node_jax.events import cross
from node_jax.types import Inputs, PyTree, Time, Trial


class AllLanes(NamedTuple):
    """What all transitions share: first state and time of every lane, where idle ones stand, and its steps."""

    z0: PyTree
    t0: jax.Array
    accepted: jax.Array


class RecordedStep(NamedTuple):
    """What was recorded of one step: its size (None if prescribed), and the time and state at its start."""

    h: Any
    t: Time
    z: PyTree


class Start(NamedTuple):
    """The start of a recorded step: for each lane its number, time, size and state."""

    index: jax.Array
    t: Time
    h: jax.Array
    z: PyTree


class Retraced(NamedTuple):
    """A transition taken again: state after it, dense output, time and size; also the type of its cotangents."""

    z1: PyTree
    dense: tuple[PyTree, ...]
    t: jax.Array
    h: jax.Array


def start_of(lanes: AllLanes, i: jax.Array, row: RecordedStep) -> tuple[jax.Array, Start]:
    """Say which lanes took recorded step `i`, and its start; idle lanes stand at `z0`, where the pullback is finite."""
    index = jnp.full_like(lanes.accepted, i)
    h = jnp.zeros_like(lanes.t0) if row.h is None else row.h
    active = index < lanes.accepted if row.h is None else (h != 0) & (lanes.accepted > 0)
    high = lanes.t0 if row.t.high is None else jnp.where(active, row.t.high, lanes.t0)
    t = Time(high, jnp.zeros_like(high) if row.t.low is None else jnp.where(active, row.t.low, 0.0))
    return active, Start(jnp.where(active, index, 0), t, jnp.where(active, h, 0.0), tree.where(active, row.z, lanes.z0))


def times_of(inputs: Inputs, start: Start) -> tuple[jax.Array, jax.Array]:
    """Return time and size of a recorded step of one lane, as functions of the inputs if the steps are."""
    if not inputs.steps.exact_times:
        return start.t.high, start.h
    t, end = inputs.steps.interval(start.index, inputs.t0, inputs.t1)
    return t, end - t


def retrace(problem: Problem, inputs: Inputs, start: Start, dense: bool = False) -> Retraced:
    """Take a recorded transition of one lane again, with dense output if asked or if the save reads it."""
    t, h = times_of(inputs, start)
    field = at_stages(problem, inputs, t)
    z1, states = problem.method.replay(field, t, start.z, h, inputs.theta, dense or inputs.save.reads_dense)
    if problem.crosses:
        z1 = cross(problem, inputs, t + h, h, z1)
    return Retraced(z1, states, t, h)


def retake(
    each: Each, lanes: AllLanes, i: jax.Array, row: RecordedStep, index: jax.Array
) -> tuple[Start, Trial, Time, PyTree]:
    """Take recorded transition `i` of all lanes again; return its start, the trial, and time and state after it."""
    active, start = start_of(lanes, i, row)
    y = each(lambda inputs, start: retrace(each.problem, inputs, start))(start)
    t = start.t._replace(high=y.t)
    end = each(_end)((start.index, t, y.h))
    trial = Trial(active, index, t, y.h, end.high, start.z, y.z1, y.dense)
    after = row.t if row.t.high is None else tree.where(active, lax.stop_gradient(end), row.t)
    return start, trial, after, tree.where(active, y.z1, row.z)


def _end(inputs: Inputs, rest: tuple[jax.Array, Time, jax.Array]) -> Time:
    """Return the end of a recorded step; a constant unless steps are functions of the times."""
    end = inputs.steps.end(*rest, inputs.t0, inputs.t1)
    return end if inputs.steps.exact_times else lax.stop_gradient(end)


def differentiable(inputs: Inputs) -> list[bool]:
    """Say for each leaf whether a step depends on it differentiably; on times only if steps are functions of them."""
    exact = inputs.steps.exact_times
    wanted = Inputs(z0=False, t0=exact, t1=exact, theta=True, steps=exact, save=False, expected_cost=False, limit=False)
    return [
        bool(want) and jnp.issubdtype(x.dtype, jnp.inexact)
        for want, part in zip(wanted, inputs, strict=True)
        for x in jax.tree.leaves(part)
    ]


def within_steps(each: Each) -> Each:
    """Return the engine in which only leaves move that recorded transitions depend on, breakpoints included."""
    each, points = crossing(each, each.shifted)
    pairs = zip(each.moving, differentiable(each.inputs), points, strict=True)
    return each.replace(moving=[yes and (part or point) for yes, part, point in pairs])


def crossing(each: Each, moving: Sequence[bool]) -> tuple[Each, list[bool]]:
    """Let the problem know whether breakpoints move; return also which leaves are moving breakpoints."""
    at = each.places.steps.breakpoints
    points = [i == at and moves for i, moves in enumerate(moving)]
    return each.replace(problem=each.problem._replace(crosses=any(points))), points


def pull_crossing(each: Each, node: jax.Array, h: jax.Array, z: PyTree, bar: PyTree) -> list[Any]:
    """Pull the cotangent of the state after a node back to the breakpoints among the moving leaves."""
    return each.vjp(lambda inputs, _, rest: cross(each.problem, inputs, *rest), (), (node, h, z))[1](bar)[0]


def at_nodes(each: Each) -> Each:
    """Return the engine with output times held constant, if nodes are constants of the derivative."""
    i = each.places.save.ts
    if each.inputs.steps.exact_times or i is None:
        return each
    return each.replace(leaves=[lax.stop_gradient(x) if i == k else x for k, x in enumerate(each.leaves)])
