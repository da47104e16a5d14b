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
    """The number of rows that are written, and the time of the next (docs/performance.md, Vectorisation)."""

    count: jax.Array
    target: jax.Array


class SaveAt(eqx.Module, SaveDefaults):
    """Save the state, or a function of it, at given times.

    Args:
        ts: array or list of real numbers `(n,)`, in units of `t`, from `t0` towards `t1`; may repeat, include both
            ends, and be padded with its last time. Another number of times compiles anew, other values do not: pad
            sequences of different lengths to one length.
        fn: `fn(z, t, theta)` to save instead of `z`; a module-level function (a new one compiles anew).

    Raises:
        ValueError: if `ts` is not one-dimensional. With times that turn back or leave `[t0, t1]`, the solve ends with
            status `BAD_INPUT`.

    Example:
        >>> import jax.numpy as jnp
        >>> SaveAt(jnp.linspace(0.0, 1.0, 5)).ts.shape
        (5,)
    """

    ts: Any = eqx.field(converter=functools.partial(times_of, "SaveAt(ts): ts"))
    fn: Callable[..., Any] | None = eqx.field(static=True, default=None)

    times = ("ts",)
    reads_dense = True
    repeats = True

    def __check_init__(self):
        """Refuse times of a wrong shape."""
        if jnp.ndim(self.ts) != 1:
            raise ValueError(f"SaveAt(ts): ts must have shape (n,), got shape {jnp.shape(self.ts)}")

    @property
    def size(self):
        """The number of times."""
        return self.ts.shape[0]

    def complaint(self, t0, t1):
        """Return a message about concrete times that are wrong; None if none is."""
        return misplaced("SaveAt(ts): ts", self.ts, t0, t1)

    def aligned(self, t0, t1, blur=0.0):
        """Return the save with `t0` or `t1` for each time that lies beyond it by rounding."""
        return SaveAt(within_ends(self.ts, t0, t1, blur), self.fn)

    def valid(self, t0, t1):
        """Whether the times of one lane go from `t0` towards `t1` without turning back."""
        n = self.ts.shape[0]
        if n == 0:
            return jnp.array(True)
        # one comparison for each time (docs/performance.md, Calls)
        backward = (t1 < t0).astype(jnp.int32)
        low, high = (lax.dynamic_slice_in_dim(self.ts, i, max(n - 1, 1)) for i in (backward, 1 - backward))
        a, b, blur = self.ts[0], self.ts[-1], rounding(t0, t1)
        inside = jnp.minimum(t0, t1) - blur <= jnp.minimum(a, b)
        inside &= jnp.maximum(a, b) <= jnp.maximum(t0, t1) + blur
        return jnp.all(low <= high) & inside

    def start(self, inputs):
        """Return the cursor at the first time."""
        return _cursor(inputs, jnp.zeros((), jnp.int32))

    def blank(self, method, inputs, z, still):
        """Return NaN, or `z0` if there is nothing to integrate."""
        return jax.tree.map(lambda x: jnp.where(still, x, jnp.nan), z)

    def due(self, inputs, trial, cursor):
        """Whether an accepted step passed the next time."""
        behind = jnp.where(inputs.t1 < inputs.t0, cursor.target >= trial.end, cursor.target <= trial.end)
        return trial.accepted & (cursor.count < self.size) & behind

    def place(self, trial, cursor):
        """Return the number of rows that are written."""
        return cursor.count

    def row(self, method, inputs, trial, cursor):
        """Interpolate the state at the next time."""
        left, h = (cursor.target - trial.t.high) - trial.t.low, proper(trial.h)
        size = h if inputs.steps.exact_times else trial.h  # accepted adaptive steps are not of size 0
        return method.at(trial.z, size, trial.dense, left / h)

    def passed(self, inputs, trial, cursor, due):
        """Return the cursor at the following time."""
        return _cursor(inputs, cursor.count + due)

    def undone(self, inputs, trial, cursor):
        """Whether the last time before the cursor lies in this step, and the cursor at that time."""
        i = jnp.maximum(cursor.count - 1, 0)
        target = self.ts[i] if self.size else inputs.t1
        after = jnp.where(inputs.t1 < inputs.t0, target < trial.t.high, target > trial.t.high)
        return trial.accepted & (cursor.count > 0) & (after | (trial.index == 0)), Cursor(i, target)

    def count(self, cursor, accepted, ok):
        """Return how many times were reached."""
        return jnp.where(ok, self.size, cursor.count)

    def constant(self, rows_bar, z0):
        """Return the sum of the cotangents of the rows: each row is `z0`."""
        return jax.tree.map(lambda g: jnp.sum(g, axis=0), rows_bar)

    def results(self, rows, start, written):
        """Return the states at the times, or `fn` of them."""
        return Results(self.ts, rows if self.fn is None else _observed(self.fn, self.ts, start, rows, written))


def _cursor(inputs, count):
    """Return the cursor before row `count`; after the last time, its target is that time."""
    ts = inputs.save.ts
    some = ts.shape[0]
    return Cursor(count, between(ts[jnp.minimum(count, some - 1)], inputs.t0, inputs.t1) if some else inputs.t1)


def _observed(fn: Callable[..., Any], ts: jax.Array, start: tuple[Any, ...], zs: PyTree, written: jax.Array) -> PyTree:
    """Return `fn` of all rows; in rows that were not reached it is NaN, and evaluated where its gradient is finite."""
    reached = jnp.any(written)

    def finite(x):
        return jnp.where(reached | jnp.isfinite(x), x, jnp.ones_like(x)) if eqx.is_inexact_array(x) else x

    z0, t0, theta = jax.tree.map(finite, start)
    z0 = jax.tree.map(lambda x: jnp.where(jnp.isfinite(x), x, jnp.ones_like(x)), z0)
    zs = tree.where_rows(written, zs, jax.tree.map(lambda x, rows: jnp.broadcast_to(x, rows.shape), z0, zs))
    rows = jax.vmap(lambda z, t: fn(z, t, theta))(zs, jnp.where(written, ts, t0))
    return tree.where_rows(written, rows, tree.full_like(rows, jnp.nan))
