"""Loops and tables in the forms that compile to fast code; no value depends on the form."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from node_jax import tree
from node_jax.backends.cpu import tried
from node_jax.engine.lane import Progress
from node_jax.types import RUNNING, PyTree, Size

FEW = 64  # with fewer lanes, one array for several scalars is faster


class Packing(NamedTuple):
    """How the progress of all lanes is carried through a loop: as it is, or with all scalars of a dtype in one array.

    Each array of a carry costs a kernel, unless the loop is compiled as one function. There packing pays only for a few
    lanes, whose arrays are short (docs/performance.md, Loops).
    """

    like: Progress
    packs: bool

    @classmethod
    def of(cls, lanes: Sequence[Size], p: Progress, emitted: bool) -> "Packing":
        """Choose for these lanes; `emitted`: whether a loop around their field can be compiled as one function."""
        return cls(p, not emitted or 1 < math.prod(lanes) < FEW)

    def closed(self, p: Progress) -> PyTree:
        """Pack the values that are scalars in each lane."""
        return (pack(p._replace(z=(), memory=())), p.z, p.memory) if self.packs else p

    def opened(self, packed: PyTree) -> Progress:
        """Invert `closed`."""
        if not self.packs:
            return packed
        scalars, z, memory = packed
        return unpack(scalars, self.like._replace(z=(), memory=()))._replace(z=z, memory=memory)


def until(counts: Callable, try_step: Callable, packing: Packing, packed: PyTree, last: PyTree) -> tuple:
    """Repeat the trials of a single lane until one counts or the lane ends; return also the last trial.

    A recorder then sees accepted steps only, and its buffers stay out of the inner loop. XLA on a CPU runs a loop body
    without its thread pool only if all arrays in it are small (docs/performance.md, Loops).
    """

    def live(carry):
        packed, _, done = carry
        return ~done & (packing.opened(packed).status == RUNNING)

    def body(carry):
        after, (trial, landed) = try_step(packing.opened(carry[0]))
        return packing.closed(after), (trial, landed), counts(trial) | landed

    packed, last, _ = lax.while_loop(live, body, (packed, last, jnp.array(False)))
    return packed, last


def pack(tree: PyTree) -> list[jax.Array]:
    """Stack the scalar leaves of each dtype, in the order in which the dtypes appear."""
    groups: dict = {}
    for x in jax.tree.leaves(tree):
        groups.setdefault(x.dtype, []).append(x)
    return [jnp.stack(group) for group in groups.values()]


def unpack(packed: list[jax.Array], like: PyTree) -> PyTree:
    """Invert `pack`; `like` has the structure and dtypes of what was packed."""
    streams = {x.dtype: iter(x) for x in packed}
    return jax.tree.map(lambda x: next(streams[x.dtype]), like)


def write_rows(rows: PyTree, values: PyTree, i: jax.Array, columns: jax.Array | None = None) -> PyTree:
    """Write values of shape `(m, *shape, *lanes)` at rows `i` to `i + m - 1`, where each lane has its own `i`.

    `columns` are those of the lanes in the table; None: all, in their order. One scatter with a window updates the
    table in place, where the `vmap` of an update of one lane would transpose it.
    """

    def leaf(table, x):
        _, size, total = table.shape
        count = total if columns is None else columns.size
        window = x.reshape(x.shape[0], size, count)
        if columns is None and count == 1:
            return lax.dynamic_update_slice_in_dim(table, window, i.reshape(()), axis=0)
        at = jnp.stack([i.reshape(-1), jnp.arange(count, dtype=i.dtype) if columns is None else columns], axis=1)
        return lax.platform_dependent(table, window, at, cpu=_write_in_turn if tried() else _scatter, default=_scatter)

    return jax.tree.map(leaf, rows, values)


def _scatter(table: jax.Array, window: jax.Array, at: jax.Array) -> jax.Array:
    """Write the columns of the window at the rows and columns `at`, shape `(columns, 2)`."""
    numbers = lax.ScatterDimensionNumbers((0, 1), (2,), (0, 2))
    return lax.scatter(table, at, window, numbers, unique_indices=True, mode="promise_in_bounds")


def _write_in_turn(table: jax.Array, window: jax.Array, at: jax.Array) -> jax.Array:
    """Do the same column by column: on a CPU such a loop can be part of one function, and a scatter cannot."""

    def write(k, table):
        column = lax.dynamic_slice_in_dim(window, k, 1, axis=2)
        return lax.dynamic_update_slice(table, column, (at[k, 0], jnp.zeros_like(at[k, 0]), at[k, 1]))

    return lax.fori_loop(0, at.shape[0], write, table)


def write_row(rows: PyTree, value: PyTree, i: jax.Array) -> PyTree:
    """Write values of shape `(*shape, *lanes)` at row `i` of `(n, *shape, *lanes)`, where each lane has its own `i`."""
    tables = jax.tree.map(lambda x: x.reshape(x.shape[0], -1, i.size), rows)
    tables = write_rows(tables, jax.tree.map(lambda x: x[None], value), i)
    return jax.tree.map(lambda table, x: table.reshape(x.shape), tables, rows)


def down(n: jax.Array, body: Callable, carry: PyTree) -> PyTree:
    """Run `body(i, carry)` for `i` from `n - 1` down to 0."""
    return lax.while_loop(lambda s: s[0] > 0, lambda s: (s[0] - 1, body(s[0] - 1, s[1])), (n, carry))[1]


def down_rows(n: jax.Array, rows: PyTree, body: Callable, carry: PyTree) -> PyTree:
    """Run `body(i, rows[i], carry)` for `i` from `n - 1` down to 0.

    Small rows are read in blocks, which keeps the buffers out of the inner loop; large ones are read one turn ahead
    (docs/performance.md, Loops and Vectorisation).
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
        return first, down(end - first, lambda j, c: body(first + j, tree.entry(some, j), c), carry)

    return lax.while_loop(lambda state: state[0] > 0, outer, (n, carry))[1]


def _ahead(n: jax.Array, rows: PyTree, body: Callable, carry: PyTree) -> PyTree:
    def read(i):
        return tree.entry(rows, jnp.maximum(i, 0))

    def turn(state):
        i, row, carry = state
        return i - 1, read(i - 2), body(i - 1, row, carry)

    return lax.while_loop(lambda state: state[0] > 0, turn, (n, read(n - 1), carry))[2]
