"""Ensembles whose solves differ in length: the work queue against lockstep and peers, its growth, two devices.

python -m benchmarks.ensembles [--rows WORD] [--rounds N] [--out FILE]
"""

import argparse
import functools
import json
import math
import os
import pathlib
import subprocess
import sys

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.ode import odeint

import node_jax as nj
from benchmarks import timing
from benchmarks.first import Row, measure, solve_tinydiffeq

STORED = pathlib.Path(__file__).parent / "results" / "ensembles.json"


def van_der_pol(z, t, mu):
    """Oscillate, stiffly for large `mu`."""
    return jnp.stack([z[1], mu * (1 - z[0] ** 2) * z[1] - z[0]])


def lotka_volterra(z, t, rates):
    """Predator and prey."""
    return jnp.stack([z[0] * (rates[0] - rates[1] * z[1]), z[1] * (rates[2] * z[0] - rates[3])])


def ours(f, t1, rtol, **options):
    """Return z0, theta -> Solution of a batch."""
    steps = nj.Adaptive(rtol=rtol, atol=rtol)
    return jax.vmap(lambda z, theta: nj.odesolve(f, z, 0.0, t1, theta, steps=steps, **options))


def diffrax_one(f, t1, rtol):
    """Return z0, theta -> z1 with diffrax at its defaults."""
    term = diffrax.ODETerm(lambda t, z, theta: f(z, t, theta))
    controller = diffrax.PIDController(rtol=rtol, atol=rtol)

    def run(z, theta):
        sol = diffrax.diffeqsolve(
            term, diffrax.Tsit5(), 0.0, t1, None, z, theta,
            stepsize_controller=controller, max_steps=4096, throw=False,
        )  # fmt: skip
        return sol.ys[-1]

    return run


def odeint_one(f, t1, rtol):
    """Return z0, theta -> z1 with jax.experimental.ode (its only method, dopri5)."""

    def run(z, theta):
        times = jnp.array([0.0, t1], z.dtype)
        return odeint(lambda z, t, theta: f(z, t, theta), z, times, theta, rtol=rtol, atol=rtol)[-1]

    return run


def z1(solve):
    """Keep the last states only."""
    return lambda z, theta: solve(z, theta).z1


def gradient(run):
    """Return the gradient of the sum of squares of the last states."""
    return jax.grad(lambda z, theta: jnp.sum(run(z, theta) ** 2), (0, 1))


def oscillators(count, low, high, dtype):
    """Return states and damping of Van der Pol oscillators, in no order."""
    mu = np.exp(np.random.default_rng(0).uniform(np.log(low), np.log(high), count))
    return jnp.tile(jnp.array([2.0, 0.0], dtype), (count, 1)), jnp.asarray(mu, dtype)


def rows(dtype):
    """Yield the rows of a dtype; tolerances are looser in float32."""
    f64 = dtype == jnp.float64
    rtol, tight = (1e-6, 1e-7) if f64 else (1e-4, 1e-5)
    made = functools.partial(ours, van_der_pol, 20.0, rtol)
    one = diffrax_one(van_der_pol, 20.0, rtol)
    wide = oscillators(4096, 0.1, 100.0, dtype)
    peers = {
        "lockstep": z1(made(lane_width=math.inf)),
        "diffrax vmap": jax.vmap(one),
        "diffrax lax.map": lambda z, mu: jax.lax.map(lambda pair: one(*pair), (z, mu)),
        "tinydiffeq vmap": jax.vmap(solve_tinydiffeq(van_der_pol, rtol, 20.0)),
        "jax odeint vmap": jax.vmap(odeint_one(van_der_pol, 20.0, rtol)),
    }
    target = {"diffrax vmap": 1 / 45, "diffrax lax.map": 1 / 8, "tinydiffeq vmap": 1 / 8, "jax odeint vmap": 1 / 8}
    yield Row("4,096 Van der Pol, mu 0.1 to 100", z1(made()), peers, wide, target, 1e-2)
    made = functools.partial(ours, van_der_pol, 10.0, tight)
    yield Row("gradient, 2,048 Van der Pol, mu 0.1 to 8", gradient(z1(made())),
              {"lockstep": gradient(z1(made(lane_width=math.inf))),
               "diffrax vmap": gradient(jax.vmap(diffrax_one(van_der_pol, 10.0, tight)))},
              oscillators(2048, 0.1, 8.0, dtype), {"diffrax vmap": 1 / 12}, 1e-2)  # fmt: skip
    made = functools.partial(ours, lotka_volterra, 10.0, rtol)
    alike = jnp.asarray(1 + 0.01 * np.random.default_rng(1).uniform(size=(4096, 4)), dtype)
    same = (jnp.ones((4096, 2), dtype), alike * jnp.array([1.5, 1.0, 1.0, 3.0], dtype))
    yield Row("4,096 Lotka-Volterra, all alike", z1(made()),
              {"lockstep": z1(made(lane_width=math.inf)),
               "diffrax vmap": jax.vmap(diffrax_one(lotka_volterra, 10.0, rtol))},
              same, {"lockstep": 1.1}, 1e-2)  # fmt: skip


def schedule():
    """Return the part of trials that no solve needed, with and without a hint, and quantiles of trials."""
    z, mu = oscillators(4096, 0.1, 100.0, jnp.float64)

    def solve(hint):
        steps = nj.Adaptive(rtol=1e-6, atol=1e-6)
        one = lambda z, mu: nj.odesolve(van_der_pol, z, 0.0, 20.0, mu, steps=steps, order=hint * mu)  # noqa: E731
        return jax.jit(jax.vmap(one))(z, mu).stats

    record = {}
    for name, hint in (("no hint", 0.0), ("order=mu", 1.0)):
        stats = solve(hint)
        trials = np.asarray(stats.accepted + stats.rejected)
        record[name] = float(np.sum(stats.idle) / (np.sum(stats.idle) + np.sum(trials)))
    record["trials, deciles"] = np.quantile(trials, np.linspace(0, 1, 11)).astype(int).tolist()
    return record


def growth(rounds):
    """Return microseconds and temporary bytes for each solve of ensembles of 10^3 to 10^6."""
    record = {}
    for count in (1_000, 10_000, 100_000, 1_000_000):
        args = oscillators(count, 0.1, 8.0, jnp.float64)
        compiled, _, memory = timing.compile_time(z1(ours(van_der_pol, 2.0, 1e-4)), *args)
        seconds = timing.race({"": lambda run=compiled, args=args: run(*args)}, max(3, rounds // 2))[""]
        record[count] = {"us": 1e6 * float(np.median(seconds)) / count, "temporary_bytes": memory / count}
    return record


def two_devices(rounds):
    """Return how much faster two devices solve an ensemble than one of them."""
    args = oscillators(8192, 0.1, 100.0, jnp.float64)
    steps = nj.Adaptive(rtol=1e-6, atol=1e-6)

    def end(own):
        return nj.odesolve(van_der_pol, own[0], 0.0, 20.0, own[1], steps=steps).z1

    runners = {}
    for count in (1, 2):
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:count]), ("solves",))
        spread = jax.device_put(args, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("solves")))
        runners[count] = functools.partial(jax.jit(nj.shard(end, mesh, "solves")), spread)
    times = timing.race(runners, rounds)
    return {"one_ms": 1e3 * float(np.median(times[1])), "speedup": float(np.median(np.divide(times[1], times[2])))}


def in_process_with_two_devices(rounds):
    """Run `two_devices` in a process of its own; one device uses one core there."""
    flags = "--xla_force_host_platform_device_count=2 --xla_cpu_multi_thread_eigen=false"
    command = [sys.executable, "-m", "benchmarks.ensembles", "--devices", "--rounds", str(rounds)]
    out = subprocess.run(command, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True, check=True)
    return json.loads(out.stdout.splitlines()[-1])


def main():
    """Run the rows that were asked for, print them and store them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="", help="only rows whose name contains this")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--devices", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    if options.devices:
        print(json.dumps(two_devices(options.rounds)))
        return
    results = []
    for dtype in (jnp.float64, jnp.float32):
        for row in rows(dtype):
            if options.rows in row.name:
                results.append({"dtype": dtype.__name__} | measure(row, options.rounds))
                record = results[-1]
                print(f"{record['dtype']} {row.name}\n   ratios {record['ratios']}\n   {record['packages']}"
                      f"\n   differs {record['differences']}", flush=True)  # fmt: skip
    whole = {"results": results}
    if not options.rows:
        whole |= {"idle": schedule(), "growth": growth(options.rounds)}
        whole |= {"two devices": in_process_with_two_devices(options.rounds)}
        print({name: value for name, value in whole.items() if name != "results"})
    if options.out:
        about = timing.machine("jax", "jaxlib", "equinox", "diffrax", "tinydiffeq")
        options.out.write_text(json.dumps({"machine": about} | whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
