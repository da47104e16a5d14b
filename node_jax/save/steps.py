"""Save every accepted step: its end, or its polynomial."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax import tree
from node_jax.methods.polynomial import coefficients, whole
from node_jax.save.ends import NoCounts, StepBar, Trial, blank_rows, finished_rows, no_bar
from node_jax.types import PyTree, is_count


class _EveryStep(eqx.Module, NoCounts):
    """What `SaveSteps` and `Dense` share: one row for each accepted step, up to a capacity."""

    capacity: int = eqx.field(static=True, default=256)

    takes_rounds = False

    def __check_init__(self):
        if not is_count(self.capacity):
            name = type(self).__name__
            raise ValueError(f"{name}(capacity): capacity must be a positive integer, got {self.capacity!r}")

    def valid(self, t0, t1):
        return jnp.array(True)

    def due(self, each, out, trial):
        return trial.accepted

    def rows(self, out):
        return out

    def with_rows(self, out, rows):
        return rows

    def unwind(self, out, rows_bar, ts):
        return rows_bar


def _write(each, out, row, index):
    """Write one row of every lane; that of a rejected trial is overwritten by the next."""
    return each.write(out, jax.tree.map(lambda x: x[None], row), index)


def _bar_of(bar, trial: Trial):
    """Read the trial's own row, zero if it was not accepted."""
    g = tree.row(bar, trial.index)
    return tree.where(trial.accepted, g, tree.full_like(g, 0.0))


class Steps(NamedTuple):
    """Ends of the accepted steps."""

    ts: Any
    zs: PyTree


def _row(each, z) -> Steps:
    return Steps(each(lambda inputs, _: inputs.t0)(), z)


class SaveSteps(_EveryStep):
    """Save the time and state at the end of every accepted step.

    Args:
        capacity: rows set apart; a solve that needs more ends with status `CAPACITY`.

    Raises:
        ValueError: if `capacity` is not a positive integer.

    Example:
        >>> SaveSteps(100).capacity
        100
    """

    wants_slopes = False

    def blank(self, each, method, z, still):
        """Rows of NaN."""
        return blank_rows(each, tree.full_like(_row(each, z), jnp.nan), self.capacity)

    def record(self, each, method, extend, out, trial):
        """Write the ends of the steps."""
        return _write(each, out, Steps(trial.end, trial.z1), trial.index), jnp.zeros((), jnp.int32)

    def finish(self, each, out, z, accepted, ok):
        """Return the rows in the layout of the lanes."""
        return finished_rows(each, out, tree.full_like(_row(each, z), jnp.nan), self.capacity, accepted)

    def ends(self, out):
        """Times at which the steps of one lane ended, NaN behind the last."""
        return out.ts

    def written(self, out, accepted, ok):
        """Which rows of one lane hold a value: one for each accepted step."""
        return jnp.arange(self.capacity) < accepted

    def constant(self, rows_bar, z0):
        """Cotangent of `z0` where nothing was integrated."""
        return tree.full_like(z0, 0.0)

    def pull(self, each, method, bar, trial, rounds):
        """Send back the cotangent of the row that this step wrote."""

        def undo(inputs, rest):
            bar, trial = rest
            g = _bar_of(bar, trial)
            return no_bar(inputs, trial)._replace(t=g.ts, h=g.ts, z1=g.zs)

        return bar, each(undo)((bar, trial))


class Interpolant(NamedTuple):
    """Polynomials of the accepted steps: `z(t + x h) = sum_j q[j] x**j`."""

    t: Any
    h: Any
    q: tuple[PyTree, ...]


class Dense(_EveryStep):
    """Save a polynomial for every accepted step, so that `sol.evaluate(t)` gives the state at any time.

    Args:
        capacity: steps set apart, each of (degree of the method's dense output + 1) states: 5 for `tsit5`; a solve
            that needs more ends with status `CAPACITY`.

    Raises:
        ValueError: if `capacity` is not a positive integer.

    Example:
        >>> Dense(100).capacity
        100
    """

    wants_slopes = True

    def blank(self, each, method, z, still):
        """Rows of NaN."""
        row = each(lambda inputs, z: _constant(max(map(len, method.dense)), inputs.t0, z))(z)
        return blank_rows(each, tree.full_like(row, jnp.nan), self.capacity)

    def record(self, each, method, extend, out, trial):
        """Write the polynomials of the steps."""
        trial = extend(trial, jnp.any(trial.accepted))

        def row(inputs, trial):
            return Interpolant(trial.t.high, trial.h, polynomial(inputs, method, trial.z, trial.h, trial.slopes))

        return _write(each, out, each(row)(trial), trial.index), jnp.zeros((), jnp.int32)

    def finish(self, each, out, z, accepted, ok):
        """Return the rows in the layout of the lanes; where there was nothing to integrate the first is constant."""

        def after(inputs, rest):
            z, still = rest
            row = _constant(len(out.q) - 1, inputs.t0, z)
            return tree.where(still, row, tree.full_like(row, jnp.nan))

        return finished_rows(each, out, each(after)((z, ok & (accepted == 0))), self.capacity, accepted)

    def ends(self, out):
        """Times at which the steps of one lane ended, NaN behind the last."""
        following = jnp.append(out.t[1:], jnp.nan)
        return jnp.where(jnp.isnan(following), out.t + out.h, following)

    def written(self, out, accepted, ok):
        """Which rows of one lane hold a value: one for each accepted step, and the first."""
        return jnp.arange(self.capacity) < jnp.maximum(accepted, ok)

    def constant(self, rows_bar, z0):
        """Cotangent of `z0` where nothing was integrated: the first polynomial is `z0`."""
        return tree.row(rows_bar.q[0], 0)

    def pull(self, each, method, bar, trial, rounds):
        """Send back the cotangent of the polynomial that this step wrote."""

        def undo(inputs, rest):
            bar, trial = rest
            g = _bar_of(bar, trial)
            _, vjp = jax.vjp(lambda *step: polynomial(inputs, method, *step), trial.z, trial.h, trial.slopes)
            z, h, slopes = vjp(g.q)
            return StepBar(g.t, g.h + h, z, tree.full_like(trial.z1, 0.0), slopes)

        return bar, each(undo)((bar, trial))


def polynomial(inputs, method, z: PyTree, h: jax.Array, slopes: tuple) -> tuple[PyTree, ...]:
    """Return the coefficients for one step of one lane; only a prescribed one may have size 0."""
    return coefficients(method, z, whole(h) if inputs.steps.exact_times else h, slopes)


def _constant(degree: int, t, z) -> Interpolant:
    return Interpolant(t, jnp.ones_like(t), (z, *[tree.full_like(z, 0.0)] * degree))
