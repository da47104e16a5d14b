"""Single small systems: forward, gradient by every adjoint, output at 100 times."""

import jax.numpy as jnp

from benchmarks import problems
from benchmarks.measure import Row
from benchmarks.peers import Task, contest
from benchmarks.problems import single
from benchmarks.rows import Packages, bounds

WITH_OUTPUT = (
    "node_jax",
    "node_jax dopri5",
    "node_jax Backsolve dopri5",
    "diffrax",
    "jax odeint",
    "torchdiffeq",
    "torchode",
)


def rows(dtype, packages: Packages):
    """Yield the rows of single systems."""
    near, far = bounds(dtype)
    f64 = dtype == jnp.float64
    tight, long = (1e-8, 40.0) if f64 else (1e-5, 100.0)
    species = single(dtype, (1.0, 1.0), problems.RATES)
    short = Task(problems.lotka_volterra, 10.0, 1e-6)
    steps800 = Task(problems.lotka_volterra, long, tight)
    forward = {
        "single Lotka-Volterra, t=10": (short, species, {"diffrax": 0.6}),
        "single Lotka-Volterra, 800 steps": (steps800, species, {"diffrax": 0.6}),
        "single Lorenz, rho=28, t=2": (Task(problems.lorenz, 2.0, 1e-6), single(dtype, (1.0, 1.0, 1.0), 28.0), {}),
        "single Van der Pol, mu=5, t=20": (Task(problems.van_der_pol, 20.0, 1e-6), single(dtype, (2.0, 0.0), 5.0), {}),
    }
    for name, (task, args, target) in forward.items():
        yield Row(name, contest(packages.forward, task), args, target, near)
    yield Row("gradient, single Lotka-Volterra, 800 steps", contest(packages.gradient, steps800), species,
              {"diffrax": 0.2}, far)  # fmt: skip
    ts = jnp.linspace(0.0, 10.0, 100, dtype=dtype)
    at_times = short._replace(ts=ts)
    without = contest(packages.forward, short, only=("node_jax",))["node_jax"]
    yield Row("100 output times", contest(packages.forward, at_times) | {"without": without}, species,
              {"without": 1.3}, near)  # fmt: skip
    yield Row("gradient, 100 output times", contest(packages.gradient, at_times, only=WITH_OUTPUT), species,
              {"diffrax": 0.2}, far)  # fmt: skip
