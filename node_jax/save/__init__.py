"""What a solve writes down: the end, given times, every step, or dense output.

A save is a record. `record` runs after each trial of all lanes and `pull` transposes it; both take `each`, which maps
`fn(inputs, rest)` of one lane over the lanes. Rows that are never reached end as NaN.
"""

from node_jax.save.ends import SaveEnd, StepBar, Trial
from node_jax.save.steps import Dense, Interpolant, SaveSteps
from node_jax.save.times import SaveAt

__all__ = ["Dense", "Interpolant", "SaveAt", "SaveEnd", "SaveSteps", "StepBar", "Trial"]
