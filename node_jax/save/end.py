"""Save the final state only."""

import equinox as eqx

from node_jax.save.defaults import SaveDefaults
from node_jax.types import Results


class SaveEnd(eqx.Module, SaveDefaults):
    """Save the state at `t1` only.

    Example:
        >>> SaveEnd().size
        0
    """

    size = 0

    def blank(self, method, inputs, z, still):
        """Return no row."""
        return ()

    def row(self, method, inputs, trial, cursor):
        """Return no row."""
        return ()

    def results(self, rows, start, written):
        """Return empty results."""
        return Results()
