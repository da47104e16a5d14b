"""What a solve saves: the end, given times, every step, or dense output. Rows that are never reached are NaN."""

from node_jax.save.defaults import SaveDefaults
from node_jax.save.end import SaveEnd
from node_jax.save.steps import Dense, Interpolant, SaveSteps
from node_jax.save.times import SaveAt

__all__ = ["Dense", "Interpolant", "SaveAt", "SaveDefaults", "SaveEnd", "SaveSteps"]
