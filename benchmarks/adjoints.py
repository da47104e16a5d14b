"""Gradient strategies: error, memory, time and number of replays, beside diffrax and jax.experimental.ode, in one run.

    python -m benchmarks.adjoints [--parts error,steps,lanes,single,width,law] [--rounds N] [--out FILE]

Results of parts that are not run stay in the file, of which `benchmarks.guide` makes the tables and figures of
docs/benchmarks/gradients.md. float64 where a part does not say otherwise.
"""

import argparse
import json
import math
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp
from jax.experimental.ode import odeint

import node_jax as nj
from benchmarks import problems, stored, timing
from benchmarks.peers import gradient, over_lanes
from node_jax.adjoints.parts.history import buffers

TOLERANCES = [10.0**-k for k in range(3, 11)]
LENGTHS = (100, 1_000, 10_000, 100_000)
WIDTHS = (8, 32, 128, 256)
COMPILES = 3  # of each function, whose median counts
SLOW = 6.0  # seconds: a gradient that is expected to take longer is compiled, but not run
OURS = {
    "Checkpointed()": nj.Checkpointed(),
    "Checkpointed(checkpoints=16)": nj.Checkpointed(checkpoints=16),
    "Backsolve()": nj.Backsolve(),
    "Interpolated()": nj.Interpolated(),
    "Reversible()": nj.Reversible(),
    "Reversible(restart=None)": nj.Reversible(restart=None),
    "Direct()": nj.Direct(),
}
DIFFRAX = {
    "diffrax default": diffrax.RecursiveCheckpointAdjoint(),
    "diffrax checkpoints=16": diffrax.RecursiveCheckpointAdjoint(checkpoints=16),
    "diffrax BacksolveAdjoint": diffrax.BacksolveAdjoint(),
}
SAME = "Checkpointed, slots of diffrax"
COUNTERPART = {"Backsolve()": "diffrax BacksolveAdjoint", "Checkpointed(checkpoints=16)": "diffrax checkpoints=16"}


class Flow(NamedTuple):
    """A problem whose gradient in `z0` and `theta` is taken, of the sum of squares of `z(t1)`."""

    field: Callable
    z0: tuple
    theta: object
    t1: float


FLOWS = {
    "Lotka-Volterra": Flow(problems.lotka_volterra, (1.0, 1.0), (1.5, 1.0, 3.0, 1.0), 20.0),
    "pendulum": Flow(problems.pendulum, (2.0, 0.0), 1.0, 20.0),
    "cubic spiral": Flow(problems.spiral, (2.0, 0.0), ((-0.1, 2.0), (-2.0, -0.1)), 5.0),
    "Van der Pol": Flow(problems.van_der_pol, (2.0, 0.0), 1.0, 20.0),
}


def ours(f, adjoint, max_steps=4096, steps=None, method=nj.tsit5):
    """Return (z0, theta, t1, tolerance) -> z1 with node_jax."""

    def run(z0, theta, t1, tolerance):
        options = {"method": method, "steps": steps or nj.Adaptive(tolerance, tolerance), "adjoint": adjoint}
        return nj.odesolve(f, z0, 0.0, t1, theta, max_steps=max_steps, throw=False, **options).z1

    return run


def theirs(f, adjoint, max_steps=4096, fixed=None):
    """Return (z0, theta, t1, tolerance) -> z1 with diffrax; `fixed` steps of equal size."""
    term = diffrax.ODETerm(lambda t, z, theta: f(z, t, theta))

    def run(z0, theta, t1, tolerance):
        chosen = diffrax.PIDController(rtol=tolerance, atol=tolerance)
        steps, first = (diffrax.ConstantStepSize(), t1 / fixed) if fixed else (chosen, None)
        return diffrax.diffeqsolve(
            term, diffrax.Tsit5(), 0.0, t1, first, z0, theta,
            stepsize_controller=steps, adjoint=adjoint, max_steps=max_steps, throw=False,
        ).ys[-1]  # fmt: skip

    return run


def jax_ode(f):
    """Return (z0, theta, t1, tolerance) -> z1 with jax.experimental.ode, whose tolerances are Python numbers."""

    def run(z0, theta, t1, tolerance):
        return odeint(f, z0, jnp.stack([jnp.zeros_like(t1), t1]), theta, rtol=1e-5, atol=1e-5)[-1]

    return run


def at(run, *rest, dtype=float):
    """Return z0, theta -> z1 with the other arguments passed on as arrays."""
    rest = [jnp.asarray(x, dtype) for x in rest]
    return lambda z0, theta: run(z0, theta, *rest)


def flat(tree) -> jax.Array:
    """Return all numbers of a pytree."""
    return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(tree)])


def number(x) -> float | None:
    """Return a number for JSON, which has no NaN and no infinity."""
    return float(x) if math.isfinite(float(x)) else None


# Error against tolerance.


def error_part(rounds: int) -> list[dict]:
    """Error of the gradient against tolerance."""
    return [row for name, flow in FLOWS.items() for row in errors(name, flow)]


def errors(name: str, flow: Flow):
    """Return one row for each strategy: the norm of the error over the norm, tolerance by tolerance."""
    z0, theta = (jax.tree.map(jnp.asarray, x) for x in (jnp.array(flow.z0), jnp.array(flow.theta)))

    def norms(run):
        found = jax.jit(lambda z0, theta, tolerance: gradient(at(run, flow.t1, tolerance))(z0, theta))
        return lambda tolerance: flat(found(z0, theta, tolerance))

    exact = norms(ours(flow.field, nj.Checkpointed(), 100_000, method=nj.dopri8))(1e-13)
    runs = {
        key: ours(flow.field, OURS[key], 20_000)
        for key in ("Checkpointed()", "Backsolve()", "Interpolated()", "Reversible()")
    }
    runs |= {key: theirs(flow.field, DIFFRAX[key], 20_000) for key in ("diffrax default", "diffrax BacksolveAdjoint")}
    for key, run in runs.items():
        found = norms(run)
        gaps = [number(jnp.linalg.norm(found(x) - exact) / jnp.linalg.norm(exact)) for x in TOLERANCES]
        yield {"problem": name, "strategy": key, "tolerances": TOLERANCES, "errors": gaps}


# Memory and time against the number of steps.


def steps_part(rounds: int) -> list[dict]:
    """Temporary bytes and time of a gradient along a pendulum against the number of steps."""
    flow, rows, last = FLOWS["pendulum"], [], {}
    rate = nj.odesolve(flow.field, jnp.array(flow.z0), 0.0, 100.0, flow.theta, steps=nj.Adaptive(1e-8, 1e-8))
    for n in LENGTHS:
        # adaptive steps fill half of the buffers
        ends = {"Fixed": 10.0, "Adaptive": 0.5 * n * 100.0 / int(rate.stats.accepted)}
        for mode, t1 in ends.items():
            runs = lengths(flow.field, n, mode == "Fixed")
            args = (jnp.array(flow.z0), jnp.array(flow.theta))
            records = curve({key: at(run, t1, 1e-8) for key, run in runs.items()}, args, rounds, last, (mode, n))
            rows += [{"steps": mode, "n": n, "t1": t1} | record for record in records]
    return rows


def lengths(f, n: int, fixed: bool) -> dict:
    """Return the solves of `n` equal steps, or of at most `n`."""
    runs = {key: ours(f, adjoint, n, nj.Fixed(n) if fixed else None) for key, adjoint in OURS.items()}
    if fixed:  # as many slots as diffrax chooses
        adjoint = nj.Checkpointed(checkpoints=int((2 * n + 0.25) ** 0.5 - 0.5))
        runs[SAME] = ours(f, adjoint, n, nj.Fixed(n))
    # times are summed up there, which may need one step more
    return runs | {key: theirs(f, adjoint, n + fixed, n if fixed else None) for key, adjoint in DIFFRAX.items()}


def curve(runs: dict, args: tuple, rounds: int, last: dict, key: tuple) -> list[dict]:
    """Compile all gradients, run those that are not too slow, and return their records."""
    mode, n = key
    records, runners, found = {}, {}, {}
    for name, run in runs.items():
        compiled, seconds, memory = timing.compile_time(gradient(run), *args)
        size, before = last.get((mode, name), (n, 0.0))
        expected = before * n / size
        records[name] = {"strategy": name, "compile_s": seconds, "temporary_bytes": memory}
        if expected > SLOW:
            records[name]["capped"] = f"not run: about {expected:.0f} s expected"
            continue
        found[name] = flat(compiled(*args))
        exact = found["Checkpointed()"]  # the first
        records[name]["difference"] = number(jnp.linalg.norm(found[name] - exact) / jnp.linalg.norm(exact))
        runners[name] = lambda compiled=compiled: compiled(*args)
    for name, seconds in timing.race(runners, max(2, rounds // 3), 0.2).items():
        records[name] |= timing.spread(seconds)
        last[mode, name] = n, statistics.median(seconds)
    return list(records.values())


# Time and memory of a batch, and of one long solve.


def lanes_part(rounds: int) -> list[dict]:
    """256 lanes of a 2-64-64-2 network with shared weights, float32, rtol 1e-5."""
    f, dtype = problems.network, jnp.float32
    runs = {key: ours(f, adjoint) for key, adjoint in OURS.items() if "=" not in key}
    runs |= {key: theirs(f, adjoint) for key, adjoint in DIFFRAX.items() if "=" not in key}
    runs["jax.experimental.ode"] = jax_ode(f)
    args = (jax.random.normal(jax.random.key(1), (256, 2), dtype), problems.network_weights(dtype))
    made = {key: gradient(over_lanes(at(run, 1.0, 1e-5, dtype=dtype), None)) for key, run in runs.items()}
    return raced(made, args, rounds, "diffrax default")


def single_part(rounds: int) -> list[dict]:
    """One Lotka-Volterra solve of about 800 steps."""
    f = problems.lotka_volterra
    runs = {key: ours(f, adjoint) for key, adjoint in OURS.items()}
    runs |= {key: theirs(f, adjoint) for key, adjoint in DIFFRAX.items()}
    args = (jnp.ones(2), jnp.array([1.5, 1.0, 3.0, 1.0]))
    return raced({key: gradient(at(run, 40.0, 1e-8)) for key, run in runs.items()}, args, rounds, "diffrax default")


def raced(made: dict, args: tuple, rounds: int, default: str) -> list[dict]:
    """Compile every function several times in turns, race all, and hold each of ours against its counterpart."""
    compiled = [{key: timing.compile_anew(f, *args) for key, f in made.items()} for _ in range(COMPILES)]
    runners = {key: lambda c=c: c(*args) for key, (c, _, _) in compiled[-1].items()}
    exact = flat(runners["Checkpointed()"]())
    times = timing.race(runners, rounds, 0.6)
    rows = []
    for key, seconds in times.items():
        tries = [turn[key][1] for turn in compiled]
        row = {
            "strategy": key,
            "compile_s": statistics.median(tries),
            "compiles_s": tries,
            "temporary_bytes": compiled[-1][key][2],
        }
        row["difference"] = number(jnp.linalg.norm(flat(runners[key]()) - exact) / jnp.linalg.norm(exact))
        row |= timing.spread(seconds)
        row["ratios"] = {peer: ratio(seconds, times[peer]) for peer in times if peer not in OURS and key in OURS}
        rows.append(row | ({"counterpart": COUNTERPART.get(key, default)} if key in OURS else {}))
    return rows


def ratio(ours, theirs) -> float:
    """Median of the ratios of the interleaved rounds that both took part in."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=False))


# Time against the number of parameters.


def width_part(rounds: int) -> list[dict]:
    """64 lanes, float32, rtol 1e-5: a network of two hidden layers from narrow to wide."""
    rows, dtype = [], jnp.float32
    points = jax.random.normal(jax.random.key(1), (64, 2), dtype)
    for width in WIDTHS:
        weights = problems.network_weights(dtype, (2, width, width, 2))
        made = {
            key: over_lanes(at(ours(problems.network, OURS[key]), 1.0, 1e-5, dtype=dtype), None)
            for key in ("Checkpointed()", "Backsolve()", "Interpolated()")
        }
        size = sum(x.size for x in jax.tree.leaves(weights))
        records = curve(made, (points, weights), rounds, {}, ("", 1))
        rows += [{"width": width, "parameters": size} | record for record in records]
    return rows


# Replays against the least possible.


def law_part(rounds: int) -> list[dict]:
    """States and replays of `Checkpointed` beside the least replays that as many states allow."""
    return [law(n, slots) for n in LENGTHS[1:] for slots in (4, 16, 64, 256)]


def law(n: int, slots: int) -> dict:
    """Count what `n` steps cost with `slots` slots, when `max_steps` is `n`."""
    sizes = buffers(n, slots)
    stride = 1
    while n > slots * stride:
        stride *= 2
    states = nj.Checkpointed(checkpoints=slots).stored(n, 1, 0)
    starts = range(0, n, stride)
    replays = sum(replayed(min(stride, n - first), sizes) for first in starts)
    least, repetitions = griewank_walther(n, states)
    return {
        "n": n, "slots": slots, "states": states, "buffers": len(sizes), "replays_per_step": replays / n,
        "least_replays_per_step": least / n, "repetitions": repetitions,
    }  # fmt: skip


def replayed(count: int, sizes: list[int]) -> int:
    """Steps that are taken again to undo a segment of `count` steps (`segments.go_back`)."""
    size, *finer = sizes
    step = -(-count // size)
    parts = -(-count // step)
    inner = sum(replayed(min(step, count - j * step), finer) for j in range(parts)) if finer else 0
    return (parts - 1) * step + inner


def griewank_walther(n: int, states: int) -> tuple[int, int]:
    """Return the least replays of `n` steps, known beforehand, and the repetitions `r`.

    `r` is the least with `C(states + r, states) >= n`; `r n - C(states + r, states + 1)` steps are taken in all
    (Griewank and Walther, ACM TOMS 26, 2000, algorithm 799), of which the first `n - 1` are the solve itself.
    """
    r = next(r for r in range(n) if math.comb(states + r, states) >= n)
    return max(0, r * n - math.comb(states + r, states + 1) - (n - 1)), r


# Targets.


def targets(parts: dict) -> list[dict]:
    """Hold what is stored against what was asked for; `met` where the value is at most the target."""
    rows = []

    def claim(name, value, target):
        rows.append({"claim": name, "value": value, "target": target, "met": value <= target})

    results = {name: part["results"] for name, part in parts.items()}
    if "steps" in results:
        for row in growth(results["steps"]):
            claim(*row)
    for name in {"lanes", "single"} & set(results):
        rows_of = {row["strategy"]: row for row in results[name]}
        for key, row in rows_of.items():
            if peer := row.get("counterpart"):
                claim(f"{name}: trace and compile, {key} over {peer}", row["compile_s"] / rows_of[peer]["compile_s"],
                      0.5)  # fmt: skip
        if name == "lanes":
            for peer in ("diffrax BacksolveAdjoint", "jax.experimental.ode"):
                mine, other = rows_of["Backsolve()"], rows_of[peer]
                claim(f"lanes: time, Backsolve() over {peer}", mine["ratios"][peer], 1 / 20)
                claim(f"lanes: temporary bytes, Backsolve() over {peer}",
                      mine["temporary_bytes"] / other["temporary_bytes"], 1 / 20)  # fmt: skip
        else:
            for key, peer, target in (
                ("Checkpointed()", "diffrax default", 0.2),
                ("Checkpointed(checkpoints=16)", "diffrax checkpoints=16", 0.5),
            ):
                claim(f"single: time, {key} over {peer}", rows_of[key]["ratios"][peer], target)
    return sorted(rows, key=lambda row: row["claim"])


def growth(rows: list[dict]):
    """Yield claims on how temporary memory grows with the number of steps."""
    found = {(row["steps"], row["n"], row["strategy"]): row["temporary_bytes"] for row in rows}
    first, last = LENGTHS[0], LENGTHS[-1]
    for key in ("Backsolve()", "Reversible(restart=None)"):
        grown = found["Fixed", last, key] / found["Fixed", first, key]
        yield f"steps: temporary bytes, Fixed({last:,}) over Fixed({first}), {key}", grown, 1.05
    for key in (*OURS, SAME):
        peer = COUNTERPART.get(key, "diffrax default")
        worst = max(found["Fixed", n, key] / found["Fixed", n, peer] for n in LENGTHS)
        yield f"steps: temporary bytes under Fixed, {key} over {peer}, the largest", worst, 1.0


PARTS = {
    "error": error_part,
    "steps": steps_part,
    "lanes": lanes_part,
    "single": single_part,
    "width": width_part,
    "law": law_part,
}


def main():
    """Run the parts that were asked for, and store them beside the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help="which parts to run, separated by commas")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=pathlib.Path, default=stored.here() / "adjoints.json")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    content = json.loads(options.out.read_text()) if options.out.exists() else {"parts": {}}
    about = timing.machine("jax", "jaxlib", "diffrax") | {"node-jax": nj.__version__}
    for name in options.parts.split(","):
        begin = time.perf_counter()
        results = PARTS[name](options.rounds)
        print(f"{name}: {len(results)} rows in {time.perf_counter() - begin:.0f} s", flush=True)
        content["parts"][name] = {"about": PARTS[name].__doc__, "machine": about, "results": results}
        content["targets"] = targets(content["parts"])
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(content, indent=1) + "\n")
    for row in content["targets"]:
        print(f"{'met   ' if row['met'] else 'MISSED'} {row['value']:8.3g} of {row['target']:5.3g}  {row['claim']}")


if __name__ == "__main__":
    main()
