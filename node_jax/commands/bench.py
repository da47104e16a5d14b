"""`node-jax bench`: how fast a few solves and gradients are on this machine."""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax.commands.options import whole_number
from node_jax.estimate.table import aligned
from node_jax.files import write_json
from node_jax.info import info
from node_jax.nn import MLPField
from node_jax.odesolve import odesolve
from node_jax.testing import lotka_volterra

ABOUT = "time a few solves and gradients on this machine"
DTYPES = ("float64", "float32")
LEAST = 0.02  # seconds of a measurement: shorter calls are repeated


class Problem(NamedTuple):
    """A solve from `z0` over `span`; `theta` are its parameters."""

    name: str
    field: Callable
    z0: jax.Array
    span: float
    theta: Any


def add(commands: Any) -> None:
    """Describe the command to argparse."""
    bench = commands.add_parser("bench", help=ABOUT, description=f"{ABOUT[0].upper()}{ABOUT[1:]}.")
    bench.add_argument("--out", type=Path, metavar="FILE.json", help="file to store the times in (default: none)")
    bench.add_argument(
        "--lanes", type=whole_number(1, 1_000_000), default=1000, metavar="N", help="solves in a batch (1000)"
    )
    bench.add_argument("--dtype", nargs="+", choices=DTYPES, default=DTYPES, help="floats to compute with (both)")
    bench.add_argument("--repeats", type=whole_number(1), default=5, metavar="N", help="the median is of so many (5)")
    bench.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Time all rows, print them as a table, and store them."""
    jax.config.update("jax_enable_x64", True)
    print("Most of the time, half a minute or so, goes into compiling ...")
    rows = [
        row
        for dtype in options.dtype
        for problem in _problems(dtype)
        for lanes in dict.fromkeys((1, options.lanes))
        for row in _rows(problem, lanes, options.repeats)
    ]
    content = {"cpu": _cpu(), "cores": os.cpu_count(), "environment": info()._asdict(), "rows": rows}
    if options.out is not None:
        write_json(options.out, content)
    head = ("problem", "dtype", "lanes", "what", "first call, s", "median, ms", "solves per s")
    cells = [
        (row["problem"], row["dtype"], f"{row['lanes']:,}", row["what"], f"{row['first_call_s']:.2f}",
         f"{1e3 * row['median_s']:.4g}", f"{row['lanes'] / row['median_s']:,.0f}")
        for row in rows
    ]  # fmt: skip
    print("\n".join([*aligned([head, *cells]), "", f"{content['cpu']}, {content['cores']} cores", str(info())]))
    return 0


def _problems(dtype: Any) -> list[Problem]:
    rates = jnp.array([1.5, 1.0, 3.0, 1.0], dtype)
    weights, rest = eqx.partition(MLPField(2, 32, 2, key=jax.random.key(0)), eqx.is_array)
    weights = jax.tree.map(lambda x: x.astype(dtype), weights)

    def network(z, t, weights):
        return eqx.combine(weights, rest)(z, t)

    return [
        Problem("Lotka-Volterra", lotka_volterra, jnp.array([1.0, 1.0], dtype), 10.0, rates),
        Problem("network 2-32-32-2", network, jnp.array([1.0, 0.5], dtype), 5.0, weights),
    ]


def _rows(problem: Problem, lanes: int, repeats: int) -> list[dict[str, Any]]:
    """Time a solve and its gradient by the parameters, of one state or of a batch of states."""
    z0s = problem.z0[None] * jnp.linspace(0.8, 1.2, lanes, dtype=problem.z0.dtype)[:, None]

    def ends(theta, z0s):
        def solve(z0):
            return odesolve(problem.field, z0, 0.0, problem.span, theta, throw=False).z1

        return solve(z0s[0])[None] if lanes == 1 else jax.vmap(solve)(z0s)

    def total(theta, z0s):
        return jnp.sum(ends(theta, z0s) ** 2)

    functions = {"solve": ends, "gradient": jax.grad(total)}
    about = {"problem": problem.name, "dtype": problem.z0.dtype.name, "lanes": lanes}
    return [about | {"what": what} | _times(jax.jit(fn), problem.theta, z0s, repeats) for what, fn in functions.items()]


def _times(function: Callable, theta: Any, z0s: jax.Array, repeats: int) -> dict[str, Any]:
    first = _seconds(function, theta, z0s, 1)
    calls = max(1, int(LEAST / max(_seconds(function, theta, z0s, 1), 1e-6)))
    seconds = [_seconds(function, theta, z0s, calls) for _ in range(repeats)]
    return {"first_call_s": first, "median_s": statistics.median(seconds), "seconds": seconds}


def _seconds(function: Callable, theta: Any, z0s: jax.Array, calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(function(theta, z0s))
    return (time.perf_counter() - begin) / calls


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
