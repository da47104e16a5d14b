"""The rows of the benchmark, one module for each theme.

Each has `rows(dtype, packages)`, which yields the rows of one dtype for the packages that take part.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from benchmarks import measure


class Packages(NamedTuple):
    """Who takes part: name -> (task -> function), for each kind of row."""

    forward: dict
    gradient: dict
    counted: dict  # method -> package -> function of (z0, (theta, tolerance)) that counts evaluations


class Group(NamedTuple):
    """Rows that are stored in one file, the seconds of each package and row, and measurements that are no rows."""

    rows: Callable
    budget: float = 0.5
    extra: Callable | None = None
    measured: Callable = measure.measure  # row, rounds, budget -> record


def bounds(dtype) -> tuple[float, float]:
    """Return how far answers and gradients may differ, where a row does not say."""
    return (5e-3, 1e-2) if dtype == jnp.float64 else (2e-2, 0.1)
