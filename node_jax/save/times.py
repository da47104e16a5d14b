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
from node_jax.methods.polynomial import at_fraction, whole
from node_jax.save.ends import StepBar, Trial, blank_rows, finished_rows, no_bar
from node_jax.times import between, misplaced, rounding, within_ends
from node_jax.types import PyTree


class AtTimes(NamedTuple):
    """States at the times asked for, how many are written, the time that is next, and how many steps wrote any.

    The next time is carried: on a CPU nothing is vectorised that is fused with reading it from `ts`.
    """

    zs: PyTree
    cursor: jax.Array
    target: jax.Array
    dense_steps: jax.Array  # counted only for methods whose dense output costs evaluations


class AtTimesBar(NamedTuple):
    """Cotangents of the states, how many are not yet sent back, and the cotangents of the times."""

    zs: PyTree
    cursor: jax.Array
    ts: Any


class SaveAt(eqx.Module):
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
    capacity = None
    wants_slopes = True
    takes_rounds = True

    def __check_init__(self):
        """Refuse times of the wrong shape."""
        if jnp.ndim(self.ts) != 1:
            raise ValueError(f"SaveAt(ts): ts must have shape (n,), got shape {jnp.shape(self.ts)}")

    def ends(self, out):
        """Times at which the steps of one lane ended, if these were saved: they were not."""
        return

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

    def blank(self, each, method, z, still):
        """Rows of NaN; of `z0` in lanes that are still, with nothing to integrate."""
        zero = jnp.zeros_like(still, jnp.int32)
        row = jax.tree.map(lambda x: jnp.where(still, x, jnp.nan), z)
        return AtTimes(blank_rows(each, row, self.ts.shape[0]), zero, each(_target)(zero), zero)

    def due(self, each, out, trial):
        """Which lanes passed an output time in this trial that is not yet written."""
        return each(_due)((out.cursor, out.target, trial))

    def record(self, each, method, extend, out, trial):
        """Interpolate every time that the accepted steps passed; return also how many rounds the way back takes."""
        due = self.due(each, out, trial)
        out = out._replace(dense_steps=out.dense_steps + due) if method.c_dense else out
        trial = extend(trial, jnp.any(due))

        def body(carry):
            # rows that are not due yet are written all the same, and overwritten when their turn comes
            rounds, due, out = carry
            row = each(lambda inputs, rest: _at(inputs, method, *rest))((out.target, trial))
            zs = each.write(out.zs, jax.tree.map(lambda x: x[None], row), out.cursor)
            cursor = out.cursor + due
            out = AtTimes(zs, cursor, each(_target)(cursor), out.dense_steps)
            return rounds + 1, self.due(each, out, trial), out

        start = (jnp.zeros((), jnp.int32), due, out)
        rounds, _, out = lax.while_loop(lambda carry: jnp.any(carry[1]), body, start)
        return out, rounds

    def parts(self, out):
        """Separate the table of all solves from what each lane counts."""
        return out.zs, (out.cursor, out.target, out.dense_steps)

    def joined(self, table, counts):
        """Invert `parts`."""
        return AtTimes(table, *counts)

    def finish(self, each, out, z, accepted, ok):
        """Return the rows in the layout of the lanes."""
        n = self.ts.shape[0]
        lost = tree.full_like(z, jnp.nan)
        return out._replace(zs=finished_rows(each, out.zs, lost, n, jnp.where(ok, n, out.cursor)))

    def rows(self, out):
        """The saved states."""
        return out.zs

    def with_rows(self, out, rows):
        """Replace the saved states."""
        return out._replace(zs=rows)

    def written(self, out, accepted, ok):
        """Which rows of one lane hold a value."""
        return (jnp.arange(self.ts.shape[0], dtype=jnp.int32) < out.cursor) | ok

    def constant(self, rows_bar, z0):
        """Cotangent of `z0` where nothing was integrated: every row is `z0`."""
        return jax.tree.map(lambda g: jnp.sum(g, axis=0), rows_bar)

    def unwind(self, out, rows_bar, ts):
        """Start the way back at the last time written; `ts` if cotangents of the times are wanted."""
        return AtTimesBar(rows_bar, out.cursor, jax.tree.map(jnp.zeros_like, ts))

    def pull(self, each, method, bar, trial, rounds):
        """Send the cotangents of the states that this step wrote into its slopes, its start and its times."""
        start = each(no_bar)(trial)
        if self.ts.shape[0] == 0:
            return bar, start

        def undo(inputs, rest):
            bar, trial, into = rest
            i = jnp.maximum(bar.cursor - 1, 0)
            now = _written_here(inputs, bar.cursor, trial)
            g = tree.row(bar.zs, i)
            g = tree.where(now, g, tree.full_like(g, 0.0))

            def value(time, t, h, z, slopes):
                return _at(inputs, method, time, trial._replace(t=trial.t._replace(high=t), h=h, z=z, slopes=slopes))

            _, vjp = jax.vjp(value, inputs.save.ts[i], trial.t.high, trial.h, trial.z, trial.slopes)
            time, t, h, z, slopes = vjp(g)
            into = tree.add(into, StepBar(t, h, z, tree.full_like(trial.z1, 0.0), slopes))
            ts = bar.ts if bar.ts is None else bar.ts.at[i].add(time)
            return AtTimesBar(bar.zs, bar.cursor - now, ts), into

        return lax.fori_loop(0, rounds, lambda _, carry: each(undo)((carry[0], trial, carry[1])), (bar, start))


def _at(inputs, method, time, trial: Trial):
    left, h = (time - trial.t.high) - trial.t.low, whole(trial.h)
    size = h if inputs.steps.exact_times else trial.h  # others are not 0 where they count
    return at_fraction(method, trial.z, size, trial.slopes, left / h)


def _target(inputs, cursor):
    """Return the output time after so many, the last one after all."""
    ts = inputs.save.ts
    return between(ts[jnp.minimum(cursor, ts.shape[0] - 1)], inputs.t0, inputs.t1) if ts.shape[0] else inputs.t1


def _due(inputs, rest):
    cursor, target, trial = rest
    behind = jnp.where(inputs.t1 < inputs.t0, target >= trial.end, target <= trial.end)
    return trial.accepted & (cursor < inputs.save.ts.shape[0]) & behind


def _written_here(inputs, cursor, trial: Trial):
    """Whether the last time that was not yet sent back belongs to this step."""
    target = inputs.save.ts[jnp.maximum(cursor - 1, 0)]
    after = jnp.where(inputs.t1 < inputs.t0, target < trial.t.high, target > trial.t.high)
    return trial.accepted & (cursor > 0) & (after | (trial.index == 0))
