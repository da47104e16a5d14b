"""Fixed steps of rk4 against a scan written by hand, and peers that have the method."""

import jax.numpy as jnp
import tinydiffeq as td
from jax import lax

import node_jax as nj
from benchmarks import problems
from benchmarks.measure import Row
from benchmarks.peers import Task, gradient, laid_out, node_jax
from benchmarks.rows import Packages, bounds


def scan_rk4(task: Task, n: int):
    """Return z0, theta -> z1 by a hand-written scan."""
    f = task.field

    def run(z0, theta):
        h = jnp.asarray(task.t1 / n, z0.dtype)

        def step(z, i):
            t = i * h
            k1 = f(z, t, theta)
            k2 = f(z + h / 2 * k1, t + h / 2, theta)
            k3 = f(z + h / 2 * k2, t + h / 2, theta)
            k4 = f(z + h * k3, t + h, theta)
            return z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

        return lax.scan(step, z0, jnp.arange(n).astype(z0.dtype))[0]

    return laid_out(task, run)


def fixed_tinydiffeq(task: Task, n: int):
    """Return z0, theta -> z1 by tinydiffeq's RK4."""

    def run(z0, theta):
        sol = td.solve_ode(
            lambda x, t, args, p: task.field(x, t, p), td.RK4(), 0.0, task.t1, z0, p=theta, dt_0=task.t1 / n,
            controller=td.ConstantStepSize(), save_at=td.SaveAt(t_1=True), max_steps=n + 1,
        )  # fmt: skip
        return sol.xs[-1] if sol.xs.ndim > z0.ndim else sol.xs

    return laid_out(task, run)


def rows(dtype, packages: Packages):
    """Yield the rows of fixed steps."""
    near, far = bounds(dtype)
    species = problems.single(dtype, (1.0, 1.0), problems.RATES)
    tasks = {
        "Fixed(1000) rk4": (Task(problems.lotka_volterra, 10.0, 0.0), 1000, species),
        "Fixed(40) rk4, 256 network lanes": (
            Task(problems.network, 1.0, 0.0, lanes="shared"), 40, problems.network_data(dtype, problems.SMALL)
        ),
    }  # fmt: skip
    for name, (task, n, data) in tasks.items():
        runs = {
            "node_jax": node_jax(task, steps=nj.Fixed(n), method=nj.rk4),
            "scan": scan_rk4(task, n),
            "tinydiffeq": fixed_tinydiffeq(task, n),
        }
        yield Row(name, runs, data, {"scan": 1.15}, near)
        yield Row(f"gradient, {name}", {key: gradient(run) for key, run in runs.items()}, data, {"scan": 1.15}, far)
