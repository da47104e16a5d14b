"""Batches of 256 and 1,024 lanes: rates of their own, a lane of NaN, output at 100 times."""

import jax.numpy as jnp

from benchmarks import problems
from benchmarks.measure import Row
from benchmarks.peers import Task, contest, node_jax
from benchmarks.rows import Packages, bounds


def rows(dtype, packages: Packages):
    """Yield the rows of batches."""
    near, far = bounds(dtype)
    task = Task(problems.lotka_volterra, 10.0, 1e-6, lanes="own", stored=256)
    data = problems.species(256, dtype)
    yield Row("256 Lotka-Volterra lanes, own rates", contest(packages.forward, task), data,
              {"diffrax": 0.2, "tinydiffeq": 0.8}, near)  # fmt: skip
    yield Row("gradient, 256 Lotka-Volterra lanes, own rates", contest(packages.gradient, task), data,
              {"diffrax": 0.2}, far)  # fmt: skip
    ts = jnp.linspace(0.0, 10.0, 100, dtype=dtype)
    at_times = contest(packages.forward, task._replace(ts=ts))
    yield Row("100 output times, 256 lanes", at_times | {"without": node_jax(task)}, data, {"without": 1.3}, near)
    clean = node_jax(Task(problems.lotka_volterra, 10.0, 1e-6, lanes="shared"))
    many = jnp.ones((1024, 2), dtype), jnp.array(problems.RATES, dtype)
    yield Row("one NaN lane among 1,024",
              {"node_jax": lambda z, theta: clean(z.at[7].set(jnp.nan), theta), "clean batch": clean},
              many, {"clean batch": 2.0}, near)  # fmt: skip
