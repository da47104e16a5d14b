"""What the first eager call of a new field costs, in shares, and where its Python time goes.

python -m benchmarks.first_call [--calls N] [--lines N]
"""

import argparse
import cProfile
import pstats
import statistics
import time
import types

import jax
import jax.numpy as jnp

import node_jax as nj
from benchmarks import problems, timing
from benchmarks.peers import Task, with_diffrax

TASK = Task(problems.lotka_volterra, 10.0, 1e-6)
Z0, RATES = problems.single(jnp.float32, (1.0, 1.0), problems.RATES)


def fresh(field):
    """Return a field that no cache knows."""
    return types.FunctionType(field.__code__, field.__globals__, field.__name__)


def first_call():
    """Solve with a field that is new."""
    return nj.odesolve(fresh(TASK.field), Z0, 0.0, TASK.t1, RATES, steps=nj.Adaptive(**TASK.tolerances))


def shares() -> dict:
    """Return the seconds of tracing, lowering and compiling, and of a call beside diffrax's, each with a new field."""
    run = jax.jit(lambda z0, rates: nj.odesolve(fresh(TASK.field), z0, 0.0, TASK.t1, rates).z1)
    begin = time.perf_counter()
    traced = run.trace(Z0, RATES)
    after_trace = time.perf_counter()
    lowered = traced.lower()
    after_lowering = time.perf_counter()
    lowered.compile()
    end = time.perf_counter()
    return {
        "trace": after_trace - begin, "lower": after_lowering - after_trace, "compile": end - after_lowering,
        "eager call": timing.call(first_call),
        "diffrax's": timing.call(lambda: with_diffrax(TASK._replace(field=fresh(TASK.field)))(Z0, RATES)),
    }  # fmt: skip


def main() -> None:
    """Print medians, and the functions that take most of the Python time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=7)
    parser.add_argument("--lines", type=int, default=30)
    options = parser.parse_args()
    shares()  # what a process does once
    found = [shares() for _ in range(options.calls)]
    for name in found[0]:
        print(f"{name:12} {1e3 * statistics.median(x[name] for x in found):6.0f} ms")
    profile = cProfile.Profile()
    profile.runcall(first_call)
    pstats.Stats(profile).sort_stats("cumulative").print_stats(options.lines)


if __name__ == "__main__":
    main()
