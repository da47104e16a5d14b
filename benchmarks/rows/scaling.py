"""Curves: time against the size of the state, from 2 to 100,000, and against the size of a batch, from 1 to 100,000."""

import jax.numpy as jnp

from benchmarks import problems
from benchmarks.measure import Row
from benchmarks.peers import Task, contest
from benchmarks.rows import Packages, bounds

SIZES = (2, 100, 10_000, 100_000)
COUNTS = (1, 10, 1_000, 100_000)
SLOPES = ("node_jax", "node_jax Backsolve dopri5", "diffrax", "jax odeint")
MOST_SLOPES = 1_000  # lanes of the largest gradient


def dimensions(dtype, packages: Packages):
    """Yield a solve and its gradient for each size of the state."""
    near, far = bounds(dtype)
    task = Task(problems.ring, 5.0, 1e-6 if dtype == jnp.float64 else 1e-4, stored=64)
    for size in SIZES:
        data = jnp.sin(jnp.arange(1, size + 1, dtype=dtype)), jnp.asarray(1.5, dtype)
        yield Row("ring", contest(packages.forward, task), data, {}, near, {"size": size})
        yield Row("gradient, ring", contest(packages.gradient, task, SLOPES), data, {}, far, {"size": size})


def batches(dtype, packages: Packages):
    """Yield a batch of Lotka-Volterra solves and its gradient for each size of the batch."""
    near, far = bounds(dtype)
    task = Task(problems.lotka_volterra, 10.0, 1e-6 if dtype == jnp.float64 else 1e-4, lanes="own")
    for count in COUNTS:
        data = problems.species(count, dtype)
        yield Row("Lotka-Volterra batch", contest(packages.forward, task), data, {}, near, {"count": count})
        if count <= MOST_SLOPES:
            runs = contest(packages.gradient, task, ("node_jax", "diffrax"))
            yield Row("gradient, Lotka-Volterra batch", runs, data, {}, far, {"count": count})
