"""Going back over recorded steps, segment by segment where not every state was kept."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from node_jax import tree
from node_jax.adjoints.replay import Lane, Row, retake
from node_jax.adjoints.slots import History, Slots, buffers
from node_jax.integrate import Each
from node_jax.types import PyTree


def go_back(each: Each, history: History, lane: Lane, recorder: Slots, undo: Callable, carry: PyTree) -> PyTree:
    """Run `undo(i, row, carry)` for every recorded step, from the last to the first."""
    recorder = recorder.of(history)
    if not recorder.thinned(lane.z0):
        return down_rows(history.n, Row(history.h, history.t, history.z), undo, carry)
    slots = recorder.count(lane.z0)
    sizes = buffers(recorder.limit, slots)

    def march(state, row_at, first, count):
        """Take `count` steps from recorded step `first`."""

        def advance(j, state):
            return retake(each, lane, first + j, row_at(first + j, state), lane.accepted)[2:]

        return lax.fori_loop(0, count, advance, state)

    def segment(state, first, count, levels, carry):
        """Undo `count` steps from `first` on, with a buffer for each level; the last one keeps every state."""
        size, *finer = levels
        step = (count + size - 1) // size
        parts = (count + step - 1) // step
        # the step sizes of a last level are few: all of them would make its loops slow, as said in `integrate`
        begin, h = (0, history.h) if finer else _window(history.h, first, size)

        def row_at(i, state):
            return Row(tree.row(h, i - begin), *state)

        def keep(j, rows):
            return tree.put(rows, march(tree.row(rows, j - 1), row_at, first + (j - 1) * step, step), j)

        def part(j, carry):
            state, start = tree.row(rows, j), j * step
            if finer:
                return segment(state, first + start, jnp.minimum(step, count - start), finer, carry)
            return undo(first + j, row_at(first + j, state), carry)

        rows = lax.fori_loop(1, parts, keep, tree.put(tree.buffer(state, size), state, jnp.zeros((), jnp.int32)))
        return down(parts, part, carry)

    def from_slot(s, carry):
        first = s * history.stride
        count = jnp.minimum(history.stride, history.n - first)
        return segment(tree.row((history.t, history.z), s), first, count, sizes, carry)

    return down((history.n + history.stride - 1) // history.stride, from_slot, carry)


def _window(rows: PyTree, first: jax.Array, size: int) -> tuple[jax.Array, PyTree]:
    """Return `size` rows that hold those from `first` on, and where they begin."""
    limit = max((x.shape[0] for x in jax.tree.leaves(rows)), default=size)
    begin = jnp.minimum(first, limit - size)
    return begin, jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, begin, size, axis=0), rows)


def down(n: jax.Array, body: Callable, carry: PyTree) -> PyTree:
    """Run `body(i, carry)` for `i` from `n - 1` down to 0."""
    return lax.while_loop(lambda s: s[0] > 0, lambda s: (s[0] - 1, body(s[0] - 1, s[1])), (n, carry))[1]


def down_rows(n: jax.Array, rows: PyTree, body: Callable, carry: PyTree) -> PyTree:
    """Run `body(i, rows[i], carry)` for `i` from `n - 1` down to 0, a small block of rows at a time.

    The buffers then stay out of the inner loop, for the reason given in `integrate`. Where a row is too large for that
    it is read one turn ahead: on a CPU nothing is vectorised that is fused with the reading of a buffer.
    """
    limit = max((x.shape[0] for x in jax.tree.leaves(rows)), default=0)
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(rows)) // max(limit, 1)
    block = min(512 // max(size, 1), limit)
    if block < 4:
        return _ahead(n, rows, body, carry)

    def outer(state):
        end, carry = state
        first = jnp.maximum(end - block, 0)
        some = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, first, block, axis=0), rows)
        return first, down(end - first, lambda j, c: body(first + j, tree.row(some, j), c), carry)

    return lax.while_loop(lambda state: state[0] > 0, outer, (n, carry))[1]


def _ahead(n: jax.Array, rows: PyTree, body: Callable, carry: PyTree) -> PyTree:
    def read(i):
        return tree.row(rows, jnp.maximum(i, 0))

    def turn(state):
        i, row, carry = state
        return i - 1, read(i - 2), body(i - 1, row, carry)

    return lax.while_loop(lambda state: state[0] > 0, turn, (n, read(n - 1), carry))[2]
