"""What a solve writes down: the end, given times, every step, or dense output.

A save is a record. `record` runs after each trial of all lanes and `pull` transposes it; both take `each`, which maps
`fn(inputs, rest)` of one lane over the lanes. Rows that are never reached stay NaN.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from node_jax import tree
from node_jax.interpolate import at_fraction, coefficients
from node_jax.types import PyTree, Time


class Trial(NamedTuple):
    """An attempted step of one lane; `index` counts its accepted steps before this one."""

    accepted: jax.Array
    index: jax.Array
    t: Time
    h: jax.Array
    end: jax.Array
    z: PyTree
    z1: PyTree
    slopes: tuple[PyTree, ...]


class StepBar(NamedTuple):
    """Cotangents that saved outputs send into one step of one lane."""

    t: jax.Array
    h: jax.Array
    z: PyTree
    z1: PyTree
    slopes: tuple[PyTree, ...]


def no_bar(trial: Trial) -> StepBar:
    """Return a cotangent of zero."""
    return jax.tree.map(jnp.zeros_like, StepBar(trial.t.high, trial.h, trial.z, trial.z1, trial.slopes))


def _capacity(name: str, capacity: Any) -> None:
    if not isinstance(capacity, int) or capacity < 1:
        raise ValueError(f"{name}(capacity): capacity must be a positive integer, got {capacity!r}")


class SaveEnd(eqx.Module):
    """Save the state at `t1` only.

    Example:
        >>> SaveEnd().capacity is None
        True
    """

    capacity = None
    wants_slopes = False

    def valid(self, t0, t1):
        """Nothing to check."""
        return jnp.array(True)

    def blank(self, method, z0, t0, t1):
        """Nothing to write."""
        return ()

    def record(self, each, method, extend, out, trial):
        """Write nothing."""
        return out, jnp.zeros((), jnp.int32)

    def rows(self, out):
        """The saved values: none."""
        return ()

    def with_rows(self, out, rows):
        """Replace the saved values."""
        return out

    def written(self, out, accepted, ok):
        """Which rows hold a value: there are none."""
        return jnp.zeros(0, bool)

    def constant(self, rows_bar, z0):
        """Cotangent of `z0` where nothing was integrated."""
        return tree.full_like(z0, 0.0)

    def unwind(self, out, rows_bar, ts):
        """Start the way back."""
        return ()

    def pull(self, each, method, bar, trial, rounds):
        """Nothing was written, so nothing comes back."""
        return bar, each(lambda inputs, trial: no_bar(trial))(trial)


class AtTimes(NamedTuple):
    """States at the times asked for, how many are written, and in how many steps."""

    zs: PyTree
    cursor: jax.Array
    dense_steps: jax.Array  # counted only for methods whose dense output costs evaluations


class AtTimesBar(NamedTuple):
    """Cotangents of the states, how many are not yet sent back, and the cotangents of the times."""

    zs: PyTree
    cursor: jax.Array
    ts: jax.Array


class SaveAt(eqx.Module):
    """Save the state, or a function of it, at given times.

    Args:
        ts: array `(n,)`, in units of `t`, from `t0` towards `t1`; may repeat, include both ends, and be padded with
            its last time.
        fn: `fn(z, t, theta)` to save instead of `z`; a module-level function (a new one recompiles).

    Raises:
        ValueError: if `ts` is not one-dimensional. Times that turn back or leave `[t0, t1]` end with `BAD_INPUT`.

    Example:
        >>> import jax.numpy as jnp
        >>> SaveAt(jnp.linspace(0.0, 1.0, 5)).ts.shape
        (5,)
    """

    ts: Any
    fn: Callable | None = eqx.field(static=True, default=None)

    capacity = None
    wants_slopes = True

    def __check_init__(self):
        """Refuse times of the wrong shape."""
        if jnp.ndim(self.ts) != 1:
            raise ValueError(f"SaveAt(ts): ts must have shape (n,), got shape {jnp.shape(self.ts)}")

    def valid(self, t0, t1):
        """Whether the times go from `t0` towards `t1` without turning back."""
        direction = jnp.where(t1 < t0, -1.0, 1.0).astype(t0.dtype)
        ts = self.ts * direction
        return jnp.all((ts >= t0 * direction) & (ts <= t1 * direction)) & jnp.all(ts[1:] >= ts[:-1])

    def blank(self, method, z0, t0, t1):
        """NaN rows; rows of `z0` where there is nothing to integrate."""
        n = self.ts.shape[0]
        rows = jax.tree.map(lambda x: jnp.broadcast_to(x, (n, *x.shape)), z0)
        empty = t0 == t1
        zs = tree.where(empty, rows, tree.full_like(rows, jnp.nan))
        return AtTimes(zs, jnp.where(empty, n, 0).astype(jnp.int32), jnp.zeros((), jnp.int32))

    def record(self, each, method, extend, out, trial):
        """Interpolate every time that the accepted steps passed; return also how many rounds that took."""
        if self.ts.shape[-1] == 0:
            return out, jnp.zeros((), jnp.int32)
        now = each(_passed)((out.cursor, trial))
        out = out._replace(dense_steps=out.dense_steps + now) if method.c_dense else out
        trial = extend(trial, jnp.any(now))

        def fill(inputs, rest):
            out, trial, now = rest
            z = _read(method, inputs.save.ts, out.cursor, trial)
            zs = tree.put(out.zs, tree.where(now, z, tree.row(out.zs, out.cursor)), out.cursor)
            return out._replace(zs=zs, cursor=out.cursor + now)

        def body(carry):
            rounds, now, out = carry
            out = each(fill)((out, trial, now))
            return rounds + 1, each(_passed)((out.cursor, trial)), out

        rounds, _, out = lax.while_loop(lambda carry: jnp.any(carry[1]), body, (jnp.zeros((), jnp.int32), now, out))
        return out, rounds

    def rows(self, out):
        """The saved states."""
        return out.zs

    def with_rows(self, out, rows):
        """Replace the saved states."""
        return out._replace(zs=rows)

    def written(self, out, accepted, ok):
        """Which rows hold a value: those before the cursor."""
        return jnp.arange(self.ts.shape[0]) < out.cursor

    def constant(self, rows_bar, z0):
        """Cotangent of `z0` where nothing was integrated: every row is `z0`."""
        return jax.tree.map(lambda g: jnp.sum(g, axis=0), rows_bar)

    def unwind(self, out, rows_bar, ts):
        """Start the way back at the last time written."""
        return AtTimesBar(rows_bar, out.cursor, jnp.zeros_like(ts))

    def pull(self, each, method, bar, trial, rounds):
        """Send the cotangents of the states that this step wrote into its slopes, its start and its times."""
        if self.ts.shape[-1] == 0:
            return bar, each(lambda inputs, trial: no_bar(trial))(trial)

        def undo(inputs, rest):
            bar, trial, into = rest
            i = bar.cursor - 1
            now = _written_here(inputs.save.ts, bar.cursor, trial)
            g = tree.row(bar.zs, jnp.maximum(i, 0))
            g = tree.where(now, g, tree.full_like(g, 0.0))

            def value(ts, t, h, z, slopes):
                return _read(method, ts, i, trial._replace(t=trial.t._replace(high=t), h=h, z=z, slopes=slopes))

            _, vjp = jax.vjp(value, inputs.save.ts, trial.t.high, trial.h, trial.z, trial.slopes)
            ts, t, h, z, slopes = vjp(g)
            into = tree.add(into, StepBar(t, h, z, tree.full_like(trial.z1, 0.0), slopes))
            return AtTimesBar(bar.zs, bar.cursor - now, bar.ts + ts), into

        def body(_, carry):
            return each(undo)((carry[0], trial, carry[1]))

        start = each(lambda inputs, trial: no_bar(trial))(trial)
        return lax.fori_loop(0, rounds, body, (bar, start))


def _read(method, ts, i, trial):
    left = (ts[jnp.clip(i, 0, ts.shape[0] - 1)] - trial.t.high) - trial.t.low
    x = left / jnp.where(trial.h == 0, 1.0, trial.h)
    return at_fraction(method, trial.z, trial.h, trial.slopes, x)


def _passed(inputs, rest):
    cursor, trial = rest
    ts = inputs.save.ts
    target = ts[jnp.minimum(cursor, ts.shape[0] - 1)]
    behind = jnp.where(trial.h >= 0, target <= trial.end, target >= trial.end)
    return trial.accepted & (cursor < ts.shape[0]) & behind


def _written_here(ts, cursor, trial):
    target = ts[jnp.maximum(cursor - 1, 0)]
    after = jnp.where(trial.h >= 0, target > trial.t.high, target < trial.t.high)
    return trial.accepted & (cursor > 0) & (after | (trial.index == 0))


class Steps(NamedTuple):
    """Ends of the accepted steps."""

    ts: jax.Array
    zs: PyTree


class SaveSteps(eqx.Module):
    """Save the time and state at the end of every accepted step.

    Args:
        capacity: rows set apart; a solve that needs more ends with status `CAPACITY`.

    Raises:
        ValueError: if `capacity` is not a positive integer.

    Example:
        >>> SaveSteps(100).capacity
        100
    """

    capacity: int = eqx.field(static=True, default=256)

    wants_slopes = False

    def __check_init__(self):
        """Refuse a capacity that is not a positive integer."""
        _capacity("SaveSteps", self.capacity)

    def valid(self, t0, t1):
        """Nothing to check."""
        return jnp.array(True)

    def blank(self, method, z0, t0, t1):
        """NaN rows."""
        return Steps(jnp.full(self.capacity, jnp.nan, t0.dtype), tree.buffer(z0, self.capacity, jnp.nan))

    def record(self, each, method, extend, out, trial):
        """Write the ends of the accepted steps."""
        return each(lambda inputs, rest: _put(rest[0], Steps(rest[1].end, rest[1].z1), rest[1]))(
            (out, trial)
        ), jnp.zeros((), jnp.int32)

    def rows(self, out):
        """The saved times and states."""
        return out

    def with_rows(self, out, rows):
        """Replace the saved times and states."""
        return rows

    def written(self, out, accepted, ok):
        """Which rows hold a value: one for each accepted step."""
        return jnp.arange(self.capacity) < accepted

    def constant(self, rows_bar, z0):
        """Cotangent of `z0` where nothing was integrated."""
        return tree.full_like(z0, 0.0)

    def unwind(self, out, rows_bar, ts):
        """Start the way back."""
        return rows_bar

    def pull(self, each, method, bar, trial, rounds):
        """Send back the cotangent of the row that this step wrote."""

        def undo(inputs, rest):
            bar, trial = rest
            g = _get(bar, trial)
            return no_bar(trial)._replace(t=g.ts, h=g.ts, z1=g.zs)

        return bar, each(undo)((bar, trial))


class Interpolant(NamedTuple):
    """Polynomials of the accepted steps: `z(t + x h) = sum_j q[j] x**j`."""

    t: jax.Array
    h: jax.Array
    q: tuple[PyTree, ...]


class Dense(eqx.Module):
    """Save a polynomial for every accepted step, so that `sol.evaluate(t)` gives the state at any time.

    Args:
        capacity: steps set apart, each of (degree of the method's dense output + 1) states; a solve that needs more
            ends with status `CAPACITY`.

    Raises:
        ValueError: if `capacity` is not a positive integer.

    Example:
        >>> Dense(100).capacity
        100
    """

    capacity: int = eqx.field(static=True, default=256)

    wants_slopes = True

    def __check_init__(self):
        """Refuse a capacity that is not a positive integer."""
        _capacity("Dense", self.capacity)

    def valid(self, t0, t1):
        """Nothing to check."""
        return jnp.array(True)

    def blank(self, method, z0, t0, t1):
        """NaN rows; a constant where there is nothing to integrate."""
        degree = max(map(len, method.dense))
        empty = t0 == t1
        first = jnp.full(self.capacity, jnp.nan, t0.dtype).at[0].set(jnp.where(empty, t0, jnp.nan))
        constant = jax.tree.map(
            lambda x: jnp.full((self.capacity, *x.shape), jnp.nan, x.dtype).at[0].set(jnp.where(empty, x, jnp.nan)), z0
        )
        slope = jax.tree.map(lambda x: jnp.where(empty, jnp.zeros_like(x), x), tree.full_like(constant, jnp.nan))
        return Interpolant(first, jnp.ones_like(first), (constant,) + (slope,) * degree)

    def record(self, each, method, extend, out, trial):
        """Write the polynomials of the accepted steps."""
        trial = extend(trial, jnp.any(trial.accepted))

        def write(inputs, rest):
            out, trial = rest
            q = coefficients(method, trial.z, trial.h, trial.slopes)
            return _put(out, Interpolant(trial.t.high, trial.h, q), trial)

        return each(write)((out, trial)), jnp.zeros((), jnp.int32)

    def rows(self, out):
        """The saved polynomials."""
        return out

    def with_rows(self, out, rows):
        """Replace the saved polynomials."""
        return rows

    def written(self, out, accepted, ok):
        """Which rows hold a value: one for each accepted step."""
        return jnp.arange(self.capacity) < jnp.maximum(accepted, ok)

    def constant(self, rows_bar, z0):
        """Cotangent of `z0` where nothing was integrated: the first polynomial is `z0`."""
        return tree.row(rows_bar.q[0], 0)

    def unwind(self, out, rows_bar, ts):
        """Start the way back."""
        return rows_bar

    def pull(self, each, method, bar, trial, rounds):
        """Send back the cotangent of the polynomial that this step wrote."""

        def undo(inputs, rest):
            bar, trial = rest
            g = _get(bar, trial)
            _, vjp = jax.vjp(lambda z, h, slopes: coefficients(method, z, h, slopes), trial.z, trial.h, trial.slopes)
            z, h, slopes = vjp(g.q)
            return StepBar(g.t, g.h + h, z, tree.full_like(trial.z1, 0.0), slopes)

        return bar, each(undo)((bar, trial))


def _put(out, row, trial):
    """Write `row` at the trial's own row, if it was accepted."""
    old = tree.row(out, trial.index)
    return tree.put(out, tree.where(trial.accepted, row, old), trial.index)


def _get(bar, trial):
    """Read the trial's own row, zero if it was not accepted."""
    g = tree.row(bar, trial.index)
    return tree.where(trial.accepted, g, tree.full_like(g, 0.0))
