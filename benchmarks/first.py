"""Single systems, vmapped lanes and their gradients against diffrax and tinydiffeq, in one run.

python -m benchmarks.first [--rows WORD] [--dtype float32|float64] [--rounds N] [--out FILE]
"""

import argparse
import json
import pathlib
import statistics
from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import tinydiffeq as td
from jax import lax

import node_jax as nj
from benchmarks import problems, timing


class Row(NamedTuple):
    """One comparison: what each package solves, and the ratio to reach for each peer."""

    name: str
    ours: object
    peers: dict
    args: tuple
    target: dict
    tolerance: float = 1e-3


def solve_ours(f, rtol, t1, **options):
    """Return z0, theta -> z1 with node_jax."""

    def run(z0, theta):
        steps = options.get("steps", nj.Adaptive(rtol=rtol, atol=rtol))
        save = options.get("save", nj.SaveEnd())
        sol = nj.odesolve(f, z0, 0.0, t1, theta, method=options.get("method", nj.tsit5), steps=steps, save=save)
        return sol.z1 if sol.zs is None else sol.zs

    return run


def solve_diffrax(f, rtol, t1, ts=None):
    """Return z0, theta -> z1 with diffrax at its defaults."""
    term = diffrax.ODETerm(lambda t, z, theta: f(z, t, theta))
    controller = diffrax.PIDController(rtol=rtol, atol=rtol)
    saveat = diffrax.SaveAt(t1=True) if ts is None else diffrax.SaveAt(ts=ts)

    def run(z0, theta):
        sol = diffrax.diffeqsolve(
            term, diffrax.Tsit5(), 0.0, t1, None, z0, theta,
            stepsize_controller=controller, saveat=saveat, max_steps=4096,
        )  # fmt: skip
        return sol.ys[-1] if ts is None else sol.ys

    return run


def solve_tinydiffeq(f, rtol, t1):
    """Return z0, theta -> z1 with tinydiffeq."""

    def run(z0, theta):
        sol = td.solve_ode(
            lambda x, t, args, p: f(x, t, p), td.Tsit5(), 0.0, t1, z0, p=theta, dt_0=0.01,
            controller=td.PIController(rtol=rtol, atol=rtol), max_steps=4096,
        )  # fmt: skip
        return sol.xs[-1] if sol.xs.ndim > z0.ndim else sol.xs

    return run


def gradient(run, argnums=(0, 1)):
    """Return the gradient of the sum of squares of the result."""
    return jax.grad(lambda z0, theta: (run(z0, theta) ** 2).sum(), argnums)


def over_lanes(run, theta_axis):
    """Return the sum over lanes as one differentiable function."""
    return jax.vmap(run, (0, theta_axis))


def scan_rk4(f, n, t1):
    """Return z0, theta -> z1 by a hand-written scan."""

    def run(z0, theta):
        h = jnp.asarray(t1 / n, z0.dtype)

        def step(z, i):
            t = i * h
            k1 = f(z, t, theta)
            k2 = f(z + h / 2 * k1, t + h / 2, theta)
            k3 = f(z + h / 2 * k2, t + h / 2, theta)
            k4 = f(z + h * k3, t + h, theta)
            return z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

        return lax.scan(step, z0, jnp.arange(n).astype(z0.dtype))[0]

    return run


def rows(dtype):
    """Return all rows in one dtype."""
    f64 = dtype == jnp.float64
    tight = 1e-8 if f64 else 1e-5
    rates = jnp.array([1.5, 1.0, 3.0, 1.0], dtype)
    z = jnp.ones(2, dtype)
    lv = problems.lotka_volterra

    def packages(f, rtol, t1, wrap=lambda run: run):
        made = {"node_jax": solve_ours, "diffrax": solve_diffrax, "tinydiffeq": solve_tinydiffeq}
        return {name: wrap(make(f, rtol, t1)) for name, make in made.items()}

    def row(name, f, rtol, t1, args, target, wrap=lambda run: run, without=()):
        ours, *peers = [item for item in packages(f, rtol, t1, wrap).items() if item[0] not in without]
        return Row(name, ours[1], dict(peers), args, target, 0.1 if dtype == jnp.float32 else 1e-2)

    key = jax.random.key(1)
    many = jnp.exp(0.3 * jax.random.normal(key, (256, 4), dtype)) * rates
    starts = jnp.ones((256, 2), dtype)
    weights = problems.network_weights(dtype)
    points = jax.random.normal(key, (256, 2), dtype)
    own = lambda run: over_lanes(run, 0)  # noqa: E731
    shared = lambda run: over_lanes(run, None)  # noqa: E731
    net = problems.network
    yield row("single Lotka-Volterra, t=10", lv, 1e-6, 10.0, (z, rates), {"diffrax": 0.6})
    long = 40.0 if f64 else 100.0
    yield row("single Lotka-Volterra, 800 steps", lv, tight, long, (z, rates), {"diffrax": 0.6})
    yield row("gradient, single Lotka-Volterra, 800 steps", lv, tight, long, (z, rates), {"diffrax": 0.2}, gradient)
    yield row("256 Lotka-Volterra lanes, own rates", lv, 1e-6, 10.0, (starts, many),
              {"diffrax": 0.2, "tinydiffeq": 0.8}, own)  # fmt: skip
    yield row("gradient, 256 Lotka-Volterra lanes, own rates", lv, 1e-6, 10.0, (starts, many), {"diffrax": 0.2},
              lambda run: gradient(own(run)))  # fmt: skip
    yield row("256 network lanes, shared weights", net, 1e-5, 1.0, (points, weights), {"diffrax": 1.0}, shared)
    # tinydiffeq asks for 54 GB here: it stores every trial of max_steps
    yield row("gradient, 256 network lanes, shared weights", net, 1e-5, 1.0, (points, weights), {"diffrax": 0.4},
              lambda run: gradient(shared(run)), ("tinydiffeq",))  # fmt: skip

    clean = jnp.ones((1024, 2), dtype)
    ours = shared(solve_ours(lv, 1e-6, 10.0))
    yield Row("one NaN lane among 1,024", lambda z, theta: ours(z.at[7].set(jnp.nan), theta),
              {"clean batch": ours},
              (clean, rates), {"clean batch": 2.0})  # fmt: skip
    ts = jnp.linspace(0.0, 10.0, 100, dtype=dtype)
    yield Row("100 output times", solve_ours(lv, 1e-6, 10.0, save=nj.SaveAt(ts)),
              {"without": solve_ours(lv, 1e-6, 10.0), "diffrax": solve_diffrax(lv, 1e-6, 10.0, ts)},
              (z, rates), {"without": 1.3})  # fmt: skip
    at_times = own(solve_ours(lv, 1e-6, 10.0, save=nj.SaveAt(ts)))
    yield Row("100 output times, 256 lanes", at_times,
              {"without": own(solve_ours(lv, 1e-6, 10.0)), "diffrax": own(solve_diffrax(lv, 1e-6, 10.0, ts))},
              (starts, many), {"without": 1.3})  # fmt: skip
    fixed = solve_ours(lv, 0, 10.0, steps=nj.Fixed(1000), method=nj.rk4)
    by_hand = scan_rk4(lv, 1000, 10.0)
    yield Row("Fixed(1000) rk4", fixed, {"scan": by_hand}, (z, rates), {"scan": 1.15})
    yield Row("gradient, Fixed(1000) rk4", gradient(fixed), {"scan": gradient(by_hand)}, (z, rates), {"scan": 1.15})
    fixed, by_hand = (shared(run) for run in (solve_ours(net, 0, 1.0, steps=nj.Fixed(40), method=nj.rk4),
                                              scan_rk4(net, 40, 1.0)))  # fmt: skip
    yield Row("Fixed(40) rk4, 256 network lanes", fixed, {"scan": by_hand}, (points, weights), {"scan": 1.15})
    yield Row("gradient, Fixed(40) rk4, 256 network lanes", gradient(fixed), {"scan": gradient(by_hand)},
              (points, weights), {"scan": 1.15})  # fmt: skip


def measure(row: Row, rounds: int) -> dict:
    """Compile and time one row; return its record."""
    runners, record = {}, {"row": row.name, "packages": {}}
    for name, function in {"node_jax": row.ours, **row.peers}.items():
        compiled, seconds, memory = timing.compile_time(function, *row.args)
        runners[name] = lambda compiled=compiled: compiled(*row.args)
        record["packages"][name] = {"compile_s": seconds, "temporary_bytes": memory}
    times = timing.race(runners, rounds)
    for name, seconds in times.items():
        record["packages"][name] |= timing.spread(seconds)
    record["ratios"] = {
        name: statistics.median(a / b for a, b in zip(times["node_jax"], times[name], strict=True))
        for name in row.peers
    }
    record["targets"] = row.target
    record["differences"] = differences(row, runners)
    return record


def differences(row: Row, runners: dict) -> dict:
    """How far each peer's answer is from ours, relative to the largest entry; lanes that failed are left out."""
    ours = jnp.concatenate([x.ravel() for x in jax.tree.leaves(runners["node_jax"]())])
    result = {}
    for name in row.peers:
        theirs = jnp.concatenate([x.ravel() for x in jax.tree.leaves(runners[name]())])
        if theirs.shape == ours.shape:
            result[name] = float(jnp.nanmax(jnp.abs(ours - theirs)) / jnp.nanmax(jnp.abs(ours)))
    return result


def main():
    """Run the rows that were asked for, print them and store them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="", help="only rows whose name contains this")
    parser.add_argument("--dtype", default="", help="only this dtype")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    results = []
    for dtype in (jnp.float64, jnp.float32):
        if options.dtype not in dtype.__name__:
            continue
        for row in rows(dtype):
            if options.rows not in row.name:
                continue
            record = {"dtype": dtype.__name__} | measure(row, options.rounds)
            results.append(record)
            ms = {k: round(v["median_ms"], 3) for k, v in record["packages"].items()}
            compiles = {k: round(v["compile_s"], 2) for k, v in record["packages"].items()}
            print(f"{dtype.__name__} {row.name}\n   ms {ms}\n   ratio {record['ratios']} target {row.target}"
                  f"\n   compile {compiles} differs {record['differences']}", flush=True)  # fmt: skip
    if options.out:
        about = timing.machine("jax", "jaxlib", "equinox", "diffrax", "tinydiffeq")
        options.out.write_text(json.dumps({"machine": about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
