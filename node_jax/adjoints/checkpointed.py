"""The exact gradient of the discrete solve, from stored step sizes and checkpoints.

The forward pass records every accepted step size and the states at checkpoints. The way back replays accepted steps
only, without error estimates or controller, and transposes each.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from node_jax import tree
from node_jax.adjoints.boundary import Cotangents, arrival_slope, departure_slope, settle, split
from node_jax.adjoints.pullback import Retraced, Start, differentiable, pullback_of_steps, retrace
from node_jax.adjoints.slots import History, Slots
from node_jax.control import add_time
from node_jax.integrate import Each, Inputs, Outcome, Problem
from node_jax.save import Trial
from node_jax.types import PyTree, Status, Time, is_count


class Checkpointed(eqx.Module):
    """Differentiate the steps that were taken, exactly, within a memory budget.

    States are kept at every `s`-th recorded step; `s` starts at 1 and doubles, dropping every second state, when the
    slots are full. The way back replays each segment once: at most `slots + 2 max_steps / slots` states and one extra
    replay (Griewank and Walther, Evaluating Derivatives, ch. 12, for the general law). Step sizes are constants of the
    gradient under `Adaptive`, an error of the order of the tolerance; under `Fixed` and `Grid` they are differentiated.

    Args:
        memory: budget for the slots, in bytes.
        checkpoints: number of slots instead of a budget.

    Raises:
        ValueError: if `memory` or `checkpoints` is not positive.

    Example:
        >>> Checkpointed(checkpoints=64).checkpoints
        64
    """

    memory: int = eqx.field(static=True, default=256 * 2**20)
    checkpoints: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        """Refuse a budget that holds nothing."""
        for name in ("memory", "checkpoints"):
            value = getattr(self, name)
            if value is not None and not is_count(value):
                raise ValueError(f"Checkpointed({name}=...) must be a positive integer, got {value!r}")

    def recorder(self, problem: Problem, inputs: Inputs) -> Slots:
        """Return what writes the history of a solve."""
        limit = inputs.steps.trials(problem.max_steps)
        if limit is None:
            raise ValueError("max_steps=None: a gradient needs a bound on the steps it records; pass max_steps=4096")
        prescribed, slopes = inputs.steps.exact_times, inputs.save.wants_slopes
        return Slots(
            self.memory, self.checkpoints, limit, prescribed, problem.timed or slopes, slopes, inputs.save.takes_rounds
        )

    def has_lanes(self, history: History) -> list[bool]:
        """Say for each leaf of a history whether it has lane axes."""
        own = jax.tree.map(lambda _: True, history)
        return jax.tree.leaves(own._replace(rounds=None if history.rounds is None else False, n=False, stride=False))

    def backward(self, each: Each, outcome: Outcome, history: History, bar: Cotangents) -> list:
        """Return a cotangent for every leaf of the inputs (None where there is none)."""
        return _backward(each, outcome, history, bar, self.recorder(each.problem, each.problem.unflatten(each.leaves)))

    def replay(self, each: Each, outcome: Outcome, history: History) -> tuple[PyTree, PyTree, PyTree]:
        """Return the state at `t1`, the saved rows and the checkpoints, differentiable in the inputs."""
        return _replay(each, outcome, history, self.recorder(each.problem, each.problem.unflatten(each.leaves)))


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


def _start(lane: Lane, i: jax.Array, row: Row) -> tuple[jax.Array, Start]:
    """Say which lanes made recorded step `i` and where; idle ones stand on their own first state.

    There the field is known to have a pullback, so that a cotangent of zero stays zero.
    """
    index = jnp.full_like(lane.accepted, i)
    h = jnp.zeros_like(lane.t0) if row.h is None else row.h
    active = index < lane.accepted if row.h is None else (h != 0) & (lane.accepted > 0)
    high = lane.t0 if row.t.high is None else jnp.where(active, row.t.high, lane.t0)
    t = Time(high, jnp.zeros_like(high) if row.t.low is None else jnp.where(active, row.t.low, 0.0))
    return active, Start(jnp.where(active, index, 0), t, jnp.where(active, h, 0.0), tree.where(active, row.z, lane.z0))


class Backward(NamedTuple):
    """The carry of the way back; `left` counts the steps of each lane that are not yet undone."""

    z: PyTree
    leaves: list
    save: PyTree
    left: jax.Array


def _backward(each: Each, outcome: Outcome, history: History, bar: Cotangents, recorder: Slots) -> list:
    each, bar, lane_ok, poison = split(each, outcome, bar)
    problem = each.problem
    inputs = problem.unflatten(each.leaves)
    exact = inputs.steps.exact_times
    z0, t0, ts = each(lambda inputs, _: (inputs.z0, inputs.t0, getattr(inputs.save, "ts", None)))()
    lane = Lane(z0, t0, jnp.where(lane_ok, outcome.stats.accepted, 0))
    chosen = differentiable(inputs)
    picked = [x for x, yes in zip(each.leaves, chosen, strict=True) if yes]
    pullback = pullback_of_steps(each, chosen)

    def undo(i, row: Row, carry: Backward) -> Backward:
        active, start = _start(lane, i, row)
        y, pull = pullback(start)
        time = start.t._replace(high=y.t)
        trial = Trial(active, jnp.maximum(carry.left - 1, 0), time, y.h, time.high, start.z, y.z1, y.slopes)
        save, into = inputs.save.pull(each, problem.method, carry.save, trial, tree.row(history.rounds, i))
        z1_bar = tree.add(tree.where(active, carry.z, tree.full_like(carry.z, 0.0)), into.z1)
        leaves_bar, z_bar = pull(Retraced(z1_bar, into.slopes, into.t, into.h))
        z_bar = tree.where(active, tree.add(z_bar, into.z), carry.z)
        return Backward(z_bar, tree.add(carry.leaves, leaves_bar), save, carry.left - active)

    save = each(lambda inputs, rest: inputs.save.unwind(*rest))((outcome.out, bar.rows, ts if exact else None))
    carry = Backward(bar.z1, tree.full_like(picked, 0.0), save, lane.accepted)
    if recorder.thinned(z0):
        carry = _by_segments(each, history, lane, undo, carry, recorder)
    else:
        carry = _down_rows(history.n, Row(history.h, history.t, history.z), undo, carry)
    loop_bar = iter(tree.where(jnp.any(lane_ok), carry.leaves, tree.full_like(carry.leaves, 0.0)))
    loop_bars = [next(loop_bar) if yes else None for yes in chosen]
    return settle(each, outcome, bar, carry.z, getattr(carry.save, "ts", None), loop_bars, poison)


def _down(n: jax.Array, body, carry):
    """Run `body(i, carry)` for `i` from `n - 1` down to 0."""
    return lax.while_loop(lambda s: s[0] > 0, lambda s: (s[0] - 1, body(s[0] - 1, s[1])), (n, carry))[1]


def _down_rows(n: jax.Array, rows: Row, undo, carry: Backward) -> Backward:
    """Run `undo(i, rows[i], carry)` for `i` from `n - 1` down to 0, a small block of rows at a time.

    The buffers then stay out of the inner loop, for the reason given in `integrate`.
    """
    limit = max((x.shape[0] for x in jax.tree.leaves(rows)), default=0)
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(rows)) // max(limit, 1)
    block = min(512 // max(size, 1), limit)
    if block < 4:
        return _down(n, lambda i, c: undo(i, tree.row(rows, i), c), carry)

    def outer(state):
        end, carry = state
        first = jnp.maximum(end - block, 0)
        some = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, first, block, axis=0), rows)
        return first, _down(end - first, lambda j, c: undo(first + j, tree.row(some, j), c), carry)

    return lax.while_loop(lambda state: state[0] > 0, outer, (n, carry))[1]


def _by_segments(each: Each, history: History, lane: Lane, undo, carry: Backward, recorder: Slots) -> Backward:
    """Replay one segment at a time from its checkpoint into a buffer, then undo its steps."""
    length = 1
    while length * recorder.count(lane.z0) < recorder.limit:
        length *= 2
    one = jax.tree.map(lambda x: x[0], (history.t, history.z))

    def row_at(i, t, z):
        return Row(tree.row(history.h, i), t, z)

    def advance(i, row: Row):
        active, start = _start(lane, i, row)
        y = each(lambda inputs, start: retrace(each.problem, inputs, start))(start)
        t = row.t if row.t.high is None else tree.where(active, add_time(start.t, y.h), row.t)
        return t, tree.where(active, y.z1, row.z)

    def segment(s, carry):
        first = s * history.stride
        count = jnp.minimum(history.stride, history.n - first)

        def forward(j, state):
            rows, (t, z) = state
            return tree.put(rows, (t, z), j), advance(first + j, row_at(first + j, t, z))

        rows = (tree.buffer(one, length), tree.row((history.t, history.z), s))
        rows, _ = lax.fori_loop(0, count, forward, rows)
        return _down(count, lambda j, c: undo(first + j, row_at(first + j, *tree.row(rows, j)), c), carry)

    return _down((history.n + history.stride - 1) // history.stride, segment, carry)


def _replay(each: Each, outcome: Outcome, history: History, recorder: Slots) -> tuple[PyTree, PyTree, PyTree]:
    """Return the state at `t1`, the saved rows and the checkpoints as functions of the inputs, the steps held fixed."""
    method = each.problem.method
    save = each.problem.unflatten(each.leaves).save
    z0, t0, t1 = each(lambda inputs, _: (_departure(each, inputs), inputs.t0, inputs.t1))()
    out = save.blank(each, method, z0)
    accepted, ok = outcome.stats.accepted, outcome.status == Status.SUCCESS
    lane = Lane(z0, lax.stop_gradient(t0), accepted)

    def body(i, carry):
        t, z, index, out, slots = carry
        active, start = _start(lane, i, Row(tree.row(history.h, i), t, z))
        y = each(lambda inputs, start: retrace(each.problem, inputs, start))(start)
        beyond = add_time(start.t, y.h)
        end = jnp.where((index == accepted - 1) & ok, t1, beyond.high)
        trial = Trial(active, index, start.t._replace(high=y.t), y.h, lax.stop_gradient(end), start.z, y.z1, y.slopes)
        out, rounds = save.record(each, method, lambda trial, _: trial, out, trial)
        # a recorded index counts for all lanes: taken from the loop, it has no lanes, however it is mapped
        every = trial._replace(accepted=jnp.ones_like(active))
        slots = recorder.write(slots._replace(n=i), t, z, every, rounds)
        t, z = tree.where(active, beyond, t), tree.where(active, y.z1, z)
        return lax.stop_gradient(t), z, index + active, out, slots

    t = Time(lane.t0, jnp.zeros_like(t0))
    start = (t, z0, jnp.zeros_like(accepted), out, recorder.blank(z0, lane.t0))
    _, z, _, out, slots = lax.fori_loop(0, history.n, body, start)
    z1 = each(lambda inputs, z: _arrival(each, inputs, z))(z)
    out = save.finish(each, out, z, accepted, ok)
    rows = each(lambda inputs, out: _at_times(each, inputs, inputs.save.rows(out)))(out)
    return z1, rows, slots.z


def _departure(each: Each, inputs: Inputs) -> PyTree:
    """State at the first node, which does not move with `t0`."""
    if inputs.steps.exact_times:
        return inputs.z0
    shift = inputs.t0 - lax.stop_gradient(inputs.t0)
    return tree.combine(inputs.z0, -shift, (1.0,), (lax.stop_gradient(departure_slope(each, inputs)),))


def _arrival(each: Each, inputs: Inputs, z: PyTree) -> PyTree:
    """State at `t1`, from that at the last node."""
    if inputs.steps.exact_times:
        return z
    shift = inputs.t1 - lax.stop_gradient(inputs.t1)
    return tree.combine(z, shift, (1.0,), (lax.stop_gradient(arrival_slope(each, inputs, z)),))


def _at_times(each: Each, inputs: Inputs, rows: PyTree) -> PyTree:
    """States at the output times, from those interpolated between nodes that do not move."""
    if inputs.steps.exact_times or not hasattr(inputs.save, "ts"):
        return rows
    stop = lax.stop_gradient

    def moved(t, z):
        return tree.combine(z, t - stop(t), (1.0,), (stop(each.problem.field(z, t, inputs.theta)),))

    return jax.vmap(moved)(inputs.save.ts, rows)
