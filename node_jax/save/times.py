"""Save the state at given times."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from node_jax import tree
from node_jax.arraylike import times_of
from node_jax.methods.polynomial import proper
from node_jax.save.defaults import SaveDefaults
from node_jax.times import between, misplaced, rounding, within_ends
from node_jax.types import PyTree, Results


class Cursor(NamedTuple):
    """How many rows are written, and the time of the next.

    The time is carried along: nothing is vectorised that is fused with reading it from `ts` (docs/performance.md).
    """

    count: jax.Array
    target: jax.Array


class SaveAt(eqx.Module, SaveDefaults):
    """Save the state, or a function of it, at given times.

    Args:
        ts: array or list of real numbers `(n,)`, in units of `t`, from `t0` towards `t1`; may repeat, include both
            ends, and be padded with its last time. Another number of times compiles anew, another value does not: pad
            rows of different lengths to one length.
        fn: `fn(z, t, theta)` to save instead of `z`; a module-level function (a new one recompiles).

    Raises:
        ValueError: if `ts` is not one-dimensional. Times that turn back or leave `[t0, t1]` end with `BAD_INPUT`.

    Example:
        >>> import jax.numpy as jnp
        >>> SaveAt(jnp.linspace(0.0, 1.0, 5)).ts.shape
        (5,)
    """

    ts: Any = eqx.field(converter=functools.partial(times_of, "SaveAt(ts): ts"))
    fn: Callable | None = eqx.field(static=True, default=None)

    times = ("ts",)
    reads_dense = True
    repeats = True

    def __check_init__(self):
        """Refuse times of the wrong shape."""
        if jnp.ndim(self.ts) != 1:
            raise ValueError(f"SaveAt(ts): ts must have shape (n,), got shape {jnp.shape(self.ts)}")

    @property
    def size(self):
        """Number of times."""
        return self.ts.shape[0]

    def complaint(self, t0, t1):
        """Say what is wrong with concrete times; None if nothing is."""
        return misplaced("SaveAt(ts): ts", self.ts, t0, t1)

    def aligned(self, t0, t1, blur):
        """Return the times with the ends of the solve in the place of those beyond one by rounding."""
        return SaveAt(within_ends(self.ts, t0, t1, blur), self.fn)

    def valid(self, t0, t1):
        """Whether the times of one lane go from `t0` towards `t1` without turning back."""
        n = self.ts.shape[0]
        if n == 0:
            return jnp.array(True)
        # one comparison a time: on a CPU, many operations here would send a small solve to another thread
        backward = (t1 < t0).astype(jnp.int32)
        low, high = (lax.dynamic_slice_in_dim(self.ts, i, max(n - 1, 1)) for i in (backward, 1 - backward))
        a, b, blur = self.ts[0], self.ts[-1], rounding(t0, t1)
        inside = jnp.minimum(t0, t1) - blur <= jnp.minimum(a, b)
        inside &= jnp.maximum(a, b) <= jnp.maximum(t0, t1) + blur
        return jnp.all(low <= high) & inside

    def start(self, inputs):
        """Begin at the first time."""
        return _cursor(inputs, jnp.zeros((), jnp.int32))

    def blank(self, method, inputs, z, still):
        """Return NaN; `z0` in lanes that are still, with nothing to integrate."""
        return jax.tree.map(lambda x: jnp.where(still, x, jnp.nan), z)

    def due(self, inputs, trial, cursor):
        """Whether an accepted step passed the next time."""
        behind = jnp.where(inputs.t1 < inputs.t0, cursor.target >= trial.end, cursor.target <= trial.end)
        return trial.accepted & (cursor.count < self.size) & behind

    def place(self, trial, cursor):
        """Return the number of rows before."""
        return cursor.count

    def row(self, method, inputs, trial, cursor):
        """Interpolate the state at the next time."""
        left, h = (cursor.target - trial.t.high) - trial.t.low, proper(trial.h)
        size = h if inputs.steps.exact_times else trial.h  # others are not 0 where they count
        return method.at(trial.z, size, trial.dense, left / h)

    def passed(self, inputs, trial, cursor, due):
        """Go on to the following time."""
        return _cursor(inputs, cursor.count + due)

    def undone(self, inputs, trial, cursor):
        """Whether the last time before the cursor lies in this step."""
        i = jnp.maximum(cursor.count - 1, 0)
        target = self.ts[i] if self.size else inputs.t1
        after = jnp.where(inputs.t1 < inputs.t0, target < trial.t.high, target > trial.t.high)
        return trial.accepted & (cursor.count > 0) & (after | (trial.index == 0)), Cursor(i, target)

    def count(self, cursor, accepted, ok):
        """Return how many times were reached."""
        return jnp.where(ok, self.size, cursor.count)

    def constant(self, rows_bar, z0):
        """Return the sum: every row is `z0`."""
        return jax.tree.map(lambda g: jnp.sum(g, axis=0), rows_bar)

    def results(self, rows, start, written):
        """Return the states at the times, or `fn` of them."""
        return Results(self.ts, rows if self.fn is None else _observed(self.fn, self.ts, start, rows, written))


def _cursor(inputs, count):
    """Return the cursor before the row of this number; after the last time its target is that time."""
    ts = inputs.save.ts
    some = ts.shape[0]
    return Cursor(count, between(ts[jnp.minimum(count, some - 1)], inputs.t0, inputs.t1) if some else inputs.t1)


def _observed(fn: Callable, ts: jax.Array, start: tuple, zs: PyTree, written: jax.Array) -> PyTree:
    """Return `fn` of all rows, NaN in those that were not reached.

    There it is given the start of the solve, and ones in the place of what is not finite: what it would make of NaN
    would spoil the gradient of all that it depends on.
    """
    reached = jnp.any(written)

    def finite(x):
        return jnp.where(reached | jnp.isfinite(x), x, jnp.ones_like(x)) if eqx.is_inexact_array(x) else x

    z0, t0, theta = jax.tree.map(finite, start)
    z0 = jax.tree.map(lambda x: jnp.where(jnp.isfinite(x), x, jnp.ones_like(x)), z0)
    zs = tree.where_rows(written, zs, jax.tree.map(lambda x, rows: jnp.broadcast_to(x, rows.shape), z0, zs))
    rows = jax.vmap(lambda z, t: fn(z, t, theta))(zs, jnp.where(written, ts, t0))
    return tree.where_rows(written, rows, tree.full_like(rows, jnp.nan))
