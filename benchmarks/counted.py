"""Solves by JAX packages that take the tolerance as an argument and count their evaluations: work-precision."""

import diffrax

import node_jax as nj
from benchmarks.peers import Task, diffrax_solution, of, solution, with_jax, with_tinydiffeq

UNKNOWN = -1  # what does not count
MOST = 100_000  # steps


def ours(task: Task, method):
    """Return z0, (theta, tolerance) -> end and evaluations."""

    def run(z0, given):
        theta, tolerance = given
        options = {"method": method, "max_steps": MOST, "throw": False}
        sol = solution(task._replace(rtol=tolerance), **options)(z0, theta)
        return sol.z1, sol.stats.nfe

    return run


def with_diffrax(task: Task, method):
    """The same with diffrax, which counts steps: all stages but the first slope, which is that of the step before."""
    stages = len(method.tableau.c)
    stages += not method.tableau.fsal

    def run(z0, given):
        theta, tolerance = given
        sol = diffrax_solution(task._replace(rtol=tolerance, max_steps=MOST), method=method)(z0, theta)
        return sol.ys[-1], 1 + stages * sol.stats["num_steps"]

    return run


def of_tinydiffeq(task: Task):
    """The same with tinydiffeq, which counts nothing."""

    def run(z0, given):
        theta, tolerance = given
        solve = with_tinydiffeq(task._replace(rtol=tolerance, max_steps=MOST), loop="forward")
        return solve(z0, theta), UNKNOWN

    return run


def of_jax(task: Task, tolerance: float):
    """The same with jax.experimental.ode, whose tolerance is no argument."""
    solve = with_jax(task._replace(rtol=tolerance))
    return lambda z0, given: (solve(z0, given[0]), UNKNOWN)


COUNTED = {
    "heun": {"node_jax": of(ours, method=nj.heun), "diffrax": of(with_diffrax, method=diffrax.Heun())},
    "bosh3": {"node_jax": of(ours, method=nj.bosh3), "diffrax": of(with_diffrax, method=diffrax.Bosh3())},
    "tsit5": {
        "node_jax": of(ours, method=nj.tsit5),
        "diffrax": of(with_diffrax, method=diffrax.Tsit5()),
        "tinydiffeq forward": of_tinydiffeq,
    },
    "dopri5": {"node_jax": of(ours, method=nj.dopri5), "diffrax": of(with_diffrax, method=diffrax.Dopri5())},
    "dopri8": {"node_jax": of(ours, method=nj.dopri8), "diffrax": of(with_diffrax, method=diffrax.Dopri8())},
}
