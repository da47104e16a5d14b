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
SINGLE = [1e-2, 1e-3, 1e-4, 1e-5, 1e-6]
DOUBLE = [1e-3, 1e-5, 1e-7, 1e-9, 1e-11]
LOOSE = 1e-7  # the tightest tolerance of orders 2 and 3
EAGER = ("torchdiffeq", "torchode", "scipy")  # not below LOOSE


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
    for tolerance in DOUBLE if dtype == jnp.float64 else SINGLE:
        if ORDERS[method] <= 3 and tolerance < LOOSE:
            continue
        chosen = {name: run for name, run in runs.items() if tolerance >= LOOSE or name not in EAGER}
        if method == "dopri5":
            chosen["jax odeint"] = of_jax(task, tolerance)
        name = TITLES.get(problem.name, problem.name)
        at = {"method": method, "order": ORDERS[method], "tolerance": tolerance}
        yield Row(name, chosen, (z0, (theta, jnp.asarray(tolerance, dtype))), at=at, exact=exact)
