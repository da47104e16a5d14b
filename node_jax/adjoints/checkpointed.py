"""The exact gradient of the discrete solve, from stored step sizes and checkpoints.

The forward pass records every accepted step size and the states at checkpoints. The way back replays accepted steps
only, without error estimates or controller, and transposes each.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from node_jax import tree
from node_jax.adjoints.boundary import Cotangents, moving_times, pull_solve
from node_jax.adjoints.pullback import Retraced, differentiable, pullback_of_steps
from node_jax.adjoints.replay import Lane, Row, at_nodes, recorder_of, replay, retake, start_of
from node_jax.adjoints.slots import History, Slots, count_slots
from node_jax.integrate import Each, Outcome
from node_jax.save import Trial
from node_jax.types import PyTree, is_count


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

    records = True  # the solve writes a history
    plain = False  # its derivative is not plain JAX code
    remedy = "use adjoint=Direct()"  # for what it does not support

    def __check_init__(self):
        """Refuse a budget that holds nothing."""
        for name in ("memory", "checkpoints"):
            value = getattr(self, name)
            if value is not None and not is_count(value):
                raise ValueError(f"Checkpointed({name}=...) must be a positive integer, got {value!r}")

    def recorder(self, each: Each) -> Slots:
        """Return what writes the history of a solve."""
        return recorder_of(self, each, self.memory, self.checkpoints, states=True)

    def stored(self, limit: int, state: int, sizes: int) -> int:
        """Return the bytes kept along `limit` steps, of states of `state` bytes and step sizes of `sizes` in all."""
        slots = count_slots(self.memory, self.checkpoints, limit, state)
        return sizes + (slots if slots == limit else slots + 2 * limit // slots) * state

    def backward(self, each: Each, outcome: Outcome, history: History, bar: Cotangents, moving, shifted) -> list:
        """Return cotangents of the leaves that are `moving` (one bool for each leaf), None for the others.

        `shifted` says which times move in this or in an outer derivative.
        """

        def between(each, bar, lane_ok):
            return _backward(each, outcome, history, bar, lane_ok, self.recorder(each), moving)

        return pull_solve(each, outcome, bar, moving, moving_times(each, shifted), between)

    def replay(self, each: Each, outcome: Outcome, history: History, shifted) -> tuple[PyTree, PyTree, PyTree]:
        """Return the state at `t1`, the saved rows and the checkpoints, differentiable in the inputs."""
        return replay(each, outcome, history, self.recorder(each), shifted)


class Backward(NamedTuple):
    """The carry of the way back; `left` counts the steps of each lane that are not yet undone."""

    z: PyTree
    leaves: list
    save: PyTree
    left: jax.Array


def _backward(each: Each, outcome, history: History, bar: Cotangents, lane_ok, recorder: Slots, moving) -> tuple:
    """Return the cotangent of the first node and, leaf by leaf, that of the steps."""
    problem, inputs = each.problem, each.problem.unflatten(each.leaves)
    exact, inside = inputs.steps.exact_times, at_nodes(each)
    z0, t0, ts = each(lambda inputs, _: (inputs.z0, inputs.t0, getattr(inputs.save, "ts", None)))()
    lane = Lane(z0, t0, jnp.where(lane_ok, outcome.stats.accepted, 0))
    chosen = [a and b for a, b in zip(differentiable(inputs), moving, strict=True)]
    pullback = pullback_of_steps(each, chosen)

    def undo(i, row: Row, carry: Backward) -> Backward:
        active, start = start_of(lane, i, row)
        y, pull = pullback(start)
        time = start.t._replace(high=y.t)
        trial = Trial(active, jnp.maximum(carry.left - 1, 0), time, y.h, time.high, start.z, y.z1, y.slopes)
        save, into = inputs.save.pull(inside, problem.method, carry.save, trial, tree.row(history.rounds, i))
        z1_bar = tree.add(tree.where(active, carry.z, tree.full_like(carry.z, 0.0)), into.z1)
        leaves_bar, z_bar = pull(Retraced(z1_bar, into.slopes, into.t, into.h))
        z_bar = tree.where(active, tree.add(z_bar, into.z), carry.z)
        return Backward(z_bar, tree.add(carry.leaves, leaves_bar), save, carry.left - active)

    save = each(lambda inputs, rest: inputs.save.unwind(*rest))((outcome.out, bar.rows, ts if exact else None))
    carry = Backward(bar.z1, tree.full_like(tree.picked(each.leaves, chosen), 0.0), save, lane.accepted)
    if recorder.thinned(z0):
        carry = _by_segments(each, history, lane, undo, carry, recorder)
    else:
        carry = _down_rows(history.n, Row(history.h, history.t, history.z), undo, carry)

    summed = tree.where(jnp.any(lane_ok), carry.leaves, tree.full_like(carry.leaves, 0.0))
    looped = tree.replaced([None] * len(chosen), chosen, summed)
    if exact and inputs.save.takes_rounds:
        where_ts = problem.unflatten(range(len(moving))).save.ts
        looped[where_ts] = tree.sum_missing(carry.save.ts, each.masks[where_ts])
    return carry.z, looped


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

    def segment(s, carry):
        first = s * history.stride
        count = jnp.minimum(history.stride, history.n - first)

        def forward(j, state):
            rows, (t, z) = state
            *_, t1, z1 = retake(each, lane, first + j, row_at(first + j, t, z), lane.accepted)
            return tree.put(rows, (t, z), j), (t1, z1)

        rows = (tree.buffer(one, length), tree.row((history.t, history.z), s))
        rows, _ = lax.fori_loop(0, count, forward, rows)
        return _down(count, lambda j, c: undo(first + j, row_at(first + j, *tree.row(rows, j)), c), carry)

    return _down((history.n + history.stride - 1) // history.stride, segment, carry)
