"""Work-precision: error at the end against time and evaluations, methods of order 2 to 8 on standard problems."""

import jax.numpy as jnp

from benchmarks import problems
from benchmarks.counted import of_jax
from benchmarks.measure import Row
from benchmarks.nfe import problems as standard
from benchmarks.peers import Task, contest
from benchmarks.rows import Packages

FLOWS = {  # the name there, field, parameters
    "Lotka-Volterra": (problems.lotka_volterra, problems.RATES),
    "Lorenz": (problems.lorenz, 28.0),
    "D3": (problems.kepler, 0.0),
    "Arenstorf": (problems.arenstorf, standard.MOON),
}
TITLES = {"D3": "two bodies, eccentricity 0.5", "Arenstorf": "Arenstorf orbit"}
ORDERS = {"heun": 2, "bosh3": 3, "tsit5": 5, "dopri5": 5, "dopri8": 8}
COARSE = (1e-2, 1e-3, 1e-4, 1e-5)  # in float32, and of low order
FINE = (1e-3, 1e-5, 1e-7, 1e-10)
EAGER = {"torchdiffeq", "torchode", "scipy"}
TIGHTEST = {2: 1e-4, 3: 1e-5, 5: 1e-7, 8: 1e-9}  # tolerance of those that run eagerly, by order: it takes seconds


def rows(dtype, packages: Packages):
    """Yield a row for each problem, method and tolerance."""
    for problem in standard.PROBLEMS:
        if problem.name in FLOWS:
            for method, makers in packages.counted.items():
                yield from points(dtype, problem, method, makers)


def points(dtype, problem, method: str, makers: dict):
    """Yield the points of a curve."""
    field, theta = FLOWS[problem.name]
    task = Task(field, problem.t1, None)
    z0, theta = problems.single(dtype, problem.z0, theta)
    exact = standard.solution(problem)[-1]
    runs = contest(makers, task)
    order = ORDERS[method]
    for tolerance in FINE if dtype == jnp.float64 and order > 3 else COARSE:
        slow = EAGER if tolerance < TIGHTEST[order] else set()
        chosen = {key: run for key, run in runs.items() if key not in slow}
        if method == "dopri5":
            chosen["jax odeint"] = of_jax(task, tolerance)
        name = TITLES.get(problem.name, problem.name)
        at = {"method": method, "order": order, "tolerance": tolerance}
        yield Row(name, chosen, (z0, (theta, jnp.asarray(tolerance, dtype))), at=at, exact=exact)
