"""Save every accepted step: its end, or its dense output."""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp

from node_jax import tree
from node_jax.methods.polynomial import proper
from node_jax.save.defaults import SaveDefaults
from node_jax.types import PyTree, Results, is_count


class _EveryStep(eqx.Module, SaveDefaults):
    """What `SaveSteps` and `Dense` share: one row for each accepted step, up to a capacity."""

    capacity: int = eqx.field(static=True, default=256)

    def __check_init__(self):
        if not is_count(self.capacity):
            name = type(self).__name__
            raise ValueError(f"{name}(capacity): capacity must be a positive integer, got {self.capacity!r}")

    @property
    def size(self):
        return self.capacity


class Ends(NamedTuple):
    """Times and states at the ends of accepted steps."""

    ts: Any
    zs: PyTree


class SaveSteps(_EveryStep):
    """Save the time and state at the end of every accepted step.

    Args:
        capacity: number of rows; a solve that needs more ends with status `CAPACITY`.

    Raises:
        ValueError: if `capacity` is not a positive integer.

    Example:
        >>> SaveSteps(100).capacity
        100
    """

    tells_times = True

    def blank(self, method, inputs, z, still):
        """Return NaN."""
        return tree.full_like(Ends(inputs.t0, z), jnp.nan)

    def row(self, method, inputs, trial, cursor):
        """Return the end of the step."""
        return Ends(trial.end, trial.z1)

    def ends(self, rows):
        """Return the end times of the steps, NaN after the last."""
        return rows.ts

    def results(self, rows, start, written):
        """Return times and states."""
        return Results(rows.ts, rows.zs)


class Interpolant(NamedTuple):
    """The dense output of the accepted steps: `z(t + x h) = sum_j q[j] x**j`."""

    t: Any
    h: Any
    q: tuple[PyTree, ...]


class Dense(_EveryStep):
    """Save a polynomial for every accepted step, so that `sol.evaluate(t)` gives the state at any time.

    Args:
        capacity: number of rows, each of (degree of the method's dense output + 1) states, 5 for `tsit5`; a solve
            that needs more ends with status `CAPACITY`.

    Raises:
        ValueError: if `capacity` is not a positive integer.

    Example:
        >>> Dense(100).capacity
        100
    """

    reads_dense = True

    def blank(self, method, inputs, z, still):
        """Return NaN, or a constant polynomial if there is nothing to integrate."""
        t = inputs.t0
        row = Interpolant(t, jnp.ones_like(t), (z, *[tree.full_like(z, 0.0)] * method.degree))
        return tree.where(still, row, tree.full_like(row, jnp.nan))

    def row(self, method, inputs, trial, cursor):
        """Return the polynomial of the step; only prescribed steps may have size 0."""
        size = proper(trial.h) if inputs.steps.exact_times else trial.h
        return Interpolant(trial.t.high, trial.h, method.polynomial(trial.z, size, trial.dense))

    def count(self, cursor, accepted, ok):
        """Return the number of accepted steps, or 1 if there was nothing to integrate."""
        return jnp.maximum(accepted, ok)

    def constant(self, rows_bar, z0):
        """Return the cotangent of the constant term of the first polynomial, which is `z0`."""
        return tree.entry(rows_bar.q[0], 0)

    def ends(self, rows):
        """Return the end times of the steps, NaN after the last."""
        following = jnp.append(rows.t[1:], jnp.nan)
        return jnp.where(jnp.isnan(following), rows.t + rows.h, following)

    def results(self, rows, start, written):
        """Return the polynomials."""
        return Results(interpolant=rows)
