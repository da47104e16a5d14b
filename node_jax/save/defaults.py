"""Defaults for the members of a save."""

from typing import Any

import jax

from node_jax import tree
from node_jax.times import TimesDefaults
from node_jax.types import Inputs, PyTree, Results, Trial


class SaveDefaults(TimesDefaults):
    """All members of `node_jax.protocols.Save` except `size`, `blank` and `row`.

    By default a save writes one row for each accepted step, reads no dense output, and holds no times.
    """

    ts: Any = None
    capacity: Any = None
    reads_dense: Any = False
    repeats: Any = False
    tells_times: Any = False

    def start(self, inputs: Inputs) -> PyTree:
        """Return an empty cursor: the number of accepted steps determines the next row."""
        return ()

    def due(self, inputs: Inputs, trial: Trial, cursor: PyTree) -> jax.Array:
        """Return true for every accepted step."""
        return trial.accepted

    def place(self, trial: Trial, cursor: PyTree) -> jax.Array:
        """Return the number of steps accepted before this one."""
        return trial.index

    def passed(self, inputs: Inputs, trial: Trial, cursor: PyTree, due: jax.Array) -> PyTree:
        """Return the cursor unchanged."""
        return cursor

    def undone(self, inputs: Inputs, trial: Trial, cursor: PyTree) -> tuple[jax.Array, PyTree]:
        """Return true for every accepted step, and the cursor unchanged."""
        return trial.accepted, cursor

    def count(self, cursor: PyTree, accepted: jax.Array, ok: jax.Array) -> jax.Array:
        """Return the number of accepted steps."""
        return accepted

    def constant(self, rows_bar: PyTree, z0: PyTree) -> PyTree:
        """Return zero: no row is written where nothing was integrated."""
        return tree.full_like(z0, 0.0)

    def ends(self, rows: PyTree) -> Any:
        """Return None: rows do not hold the end times of steps."""
        return

    def results(self, rows: PyTree, start: tuple[Any, ...], written: jax.Array) -> Results:
        """Return the rows as saved states."""
        return Results(zs=rows)
