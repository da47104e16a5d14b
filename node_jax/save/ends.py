"""Save the end of a solve only; and what every save works on."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax import tree
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


def no_bar(inputs, trial: Trial) -> StepBar:
    """Return a cotangent of zero."""
    return jax.tree.map(jnp.zeros_like, StepBar(trial.t.high, trial.h, trial.z, trial.z1, trial.slopes))


def table(row: PyTree, lanes: Sequence[int], n: int) -> PyTree:
    """Return `n` equal rows for each lane, shape `(n, elements, lanes)`: what `write_rows` can fill in place."""
    count = math.prod(lanes)

    def leaf(x):
        size = x.size // max(count, 1)
        return jnp.broadcast_to(x.reshape(size, count), (n, size, count))

    return jax.tree.map(leaf, row)


def read_table(rows: PyTree, like: PyTree, n: int) -> PyTree:
    """Return the first `n` rows of a table as `(n, *shape, *lanes)`, with `like` of shape `(*shape, *lanes)`."""
    return jax.tree.map(lambda table, x: table[:n].reshape(n, *x.shape), rows, like)


def blank_rows(each, row: PyTree, n: int) -> PyTree:
    """Return `n` rows for each lane, with one more that takes what need not be kept."""
    return table(row, each.lanes, n + 1)


def finished_rows(each, rows: PyTree, after: PyTree, n: int, count: jax.Array) -> PyTree:
    """Return the `n` rows of each lane, shape `(n, *shape, *lanes)`, with `after` in the row after the last written.

    A trial may have written it that was rejected, or a lane whose time had not come.
    """
    return read_table(each.write(rows, jax.tree.map(lambda x: x[None], after), count), after, n)


class NoCounts:
    """What saves have in common that count nothing along a solve and hold no times."""

    times = ()  # names of the fields that hold times

    def ends(self, out):
        """Times at which the steps of one lane ended, if these were saved: they were not."""
        return

    def complaint(self, t0, t1):
        """Say what is wrong with concrete values: nothing can be."""
        return

    def parts(self, out):
        """Separate the tables of all solves from what each lane counts: nothing."""
        return out, ()

    def joined(self, tables, counts):
        """Invert `parts`."""
        return tables


class SaveEnd(eqx.Module, NoCounts):
    """Save the state at `t1` only.

    Example:
        >>> SaveEnd().capacity is None
        True
    """

    capacity = None
    wants_slopes = False
    takes_rounds = False

    def valid(self, t0, t1):
        """Nothing to check."""
        return jnp.array(True)

    def blank(self, each, method, z, still):
        """Nothing to write."""
        return ()

    def record(self, each, method, extend, out, trial):
        """Write nothing."""
        return out, jnp.zeros((), jnp.int32)

    def finish(self, each, out, z, accepted, ok):
        """Nothing was written."""
        return out

    def rows(self, out):
        """The saved values: none."""
        return ()

    def with_rows(self, out, rows):
        """Replace the saved values."""
        return out

    def written(self, out, accepted, ok):
        """Which rows of one lane hold a value: there are none."""
        return jnp.zeros(0, bool)

    def constant(self, rows_bar, z0):
        """Cotangent of `z0` where nothing was integrated."""
        return tree.full_like(z0, 0.0)

    def unwind(self, out, rows_bar, ts):
        """Start the way back."""
        return ()

    def pull(self, each, method, bar, trial, rounds):
        """Nothing was written, so nothing comes back."""
        return bar, each(no_bar)(trial)
