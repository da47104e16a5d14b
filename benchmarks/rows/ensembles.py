"""Ensembles, alike and of solves that differ in length: the work queue against lockstep and peers."""

import math

import jax.numpy as jnp

from benchmarks import problems
from benchmarks.measure import Row
from benchmarks.peers import Task, contest, gradient, node_jax, one_by_one
from benchmarks.rows import Packages, bounds

# of damped Lorenz, whose volumes shrink by e^68: what solves back in time explodes, what keeps all trials runs full
STABLE = ("node_jax", "node_jax Interpolated", "diffrax")


def lockstep(task: Task):
    """Return the solve of all lanes together."""
    return node_jax(task, lane_width=math.inf)


def rows(dtype, packages: Packages):
    """Yield the rows of ensembles; tolerances are looser in float32."""
    _, bound = bounds(dtype)
    rtol, tight = (1e-6, 1e-7) if dtype == jnp.float64 else (1e-4, 1e-5)
    task = Task(problems.van_der_pol, 20.0, rtol, lanes="own")
    runs = contest(packages.forward, task) | {"lockstep": lockstep(task), "diffrax lax.map": one_by_one(task)}
    target = {"diffrax": 1 / 45, "diffrax lax.map": 1 / 8, "tinydiffeq": 1 / 8, "jax odeint": 1 / 8}
    wide = problems.oscillators(4096, 0.1, 100.0, dtype)
    yield Row("4,096 Van der Pol, mu 0.1 to 100", runs, wide, target, bound)
    task = Task(problems.van_der_pol, 10.0, tight, lanes="own")
    yield Row("gradient, 2,048 Van der Pol, mu 0.1 to 8",
              contest(packages.gradient, task) | {"lockstep": gradient(lockstep(task))},
              problems.oscillators(2048, 0.1, 8.0, dtype), {"diffrax": 1 / 12}, bound)  # fmt: skip
    task = Task(problems.lotka_volterra, 10.0, rtol, lanes="own")
    yield Row("4,096 Lotka-Volterra, all alike", contest(packages.forward, task) | {"lockstep": lockstep(task)},
              problems.alike(4096, dtype), {"lockstep": 1.1}, bound)  # fmt: skip
    task = Task(problems.lorenz, 5.0, rtol, rtol * 1e-2, lanes="own")
    for name, heavy in (("16,384 damped Lorenz", False), ("16,384 damped Lorenz, heavy tail", True)):
        data = problems.convection(16_384, dtype, heavy)
        yield Row(name, contest(packages.forward, task) | {"lockstep": lockstep(task)}, data, {}, bound)
        yield Row(f"gradient, {name}", contest(packages.gradient, task, STABLE), data, {}, bound)
