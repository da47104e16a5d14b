"""What the work queue wastes, how it grows with the ensemble, and what a second device brings.

python -m benchmarks.queue measures two devices alone, and needs XLA to show that many.
"""

import functools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

import node_jax as nj
from benchmarks import problems, timing
from benchmarks.peers import Task, node_jax

HINTS = {"no hint": 0.0, "expected_cost=mu": 1.0}
TWO = "--xla_force_host_platform_device_count=2 --xla_cpu_multi_thread_eigen=false"  # one core each


def measurements(rounds: int) -> dict:
    """Return all of them; two devices only where they are cores of a CPU."""
    found = {"idle": schedule(), "growth": growth(rounds)}
    return found | ({"two devices": in_process_with_two_devices()} if jax.default_backend() == "cpu" else {})


def schedule() -> dict:
    """Return the part of trials that no solve needed, with and without a hint, and quantiles of trials.

    None is idle while solves wait: a lane takes the next as soon as it is done.
    """
    z, mu = problems.oscillators(4096, 0.1, 100.0, jnp.float64)

    def solve(hint):
        steps = nj.Adaptive(rtol=1e-6, atol=1e-6)

        def one(z, mu):
            return nj.odesolve(problems.van_der_pol, z, 0.0, 20.0, mu, steps=steps, expected_cost=hint * mu)

        return jax.jit(jax.vmap(one))(z, mu).stats

    record = {}
    for name, hint in HINTS.items():
        stats = solve(hint)
        trials = np.asarray(stats.accepted + stats.rejected)
        record[name] = float(np.sum(stats.idle) / (np.sum(stats.idle) + np.sum(trials)))
    record["trials, deciles"] = np.quantile(trials, np.linspace(0, 1, 11)).astype(int).tolist()
    return record


def growth(rounds: int) -> dict:
    """Return microseconds and temporary bytes for each solve of ensembles of 10^3 to 10^6."""
    runners, memory = {}, {}
    solve = node_jax(Task(problems.van_der_pol, 2.0, 1e-4, lanes="own"))
    for count in (1_000, 10_000, 100_000, 1_000_000):
        args = problems.oscillators(count, 0.1, 8.0, jnp.float64)
        compiled, _, memory[count] = timing.compile_time(solve, *args)
        runners[count] = functools.partial(compiled, *args)
    times = timing.race(runners, max(11, rounds))
    return {
        count: {"us": 1e6 * float(np.median(seconds)) / count, "temporary_bytes": memory[count] / count}
        for count, seconds in times.items()
    }


def two_devices(rounds: int = 31) -> dict:
    """Return how much faster two devices solve an ensemble than one of them, and how much its longer half at most."""
    args = problems.oscillators(8192, 0.1, 100.0, jnp.float64)
    steps = nj.Adaptive(rtol=1e-6, atol=1e-6)

    def end(own):
        return nj.odesolve(problems.van_der_pol, own[0], 0.0, 20.0, own[1], steps=steps).z1

    first, second = (jax.tree.map(lambda x, part=part: x[part], args) for part in (slice(4096), slice(4096, None)))
    runners = {}
    for name, some, count in (("one", args, 1), ("two", args, 2), ("first", first, 1), ("second", second, 1)):
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:count]), ("solves",))
        spread = jax.device_put(some, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("solves")))
        compiled, *_ = timing.compile_time(nj.shard(end, mesh, "solves"), spread)
        runners[name] = functools.partial(compiled, spread)
    times = timing.race(runners, rounds)
    ratios = {name: float(np.median(np.divide(times["one"], times[name]))) for name in runners}
    one = 1e3 * float(np.median(times["one"]))
    return {"one_ms": one, "speedup": ratios["two"], "at_most": min(ratios["first"], ratios["second"])}


def in_process_with_two_devices() -> dict:
    """Run `two_devices` in a process of its own, on the CPU."""
    command = [sys.executable, "-m", "benchmarks.queue"]
    flags = {"XLA_FLAGS": TWO, "JAX_PLATFORMS": "cpu"}
    out = subprocess.run(command, env=os.environ | flags, capture_output=True, text=True, check=True)
    return json.loads(out.stdout.splitlines()[-1])


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    print(json.dumps(two_devices()))
