"""Interleaved timing of functions, and what a stored result says about its machine."""

import gc
import importlib.metadata
import os
import platform
import statistics
import time

import jax

SLOW = 0.5  # seconds: what takes longer takes part in two rounds
VERY_SLOW = 3.0  # in none: its first call is what counts
PACKAGES = (
    "jax", "jaxlib", "equinox", "diffrax", "tinydiffeq",
    "torch", "torchdiffeq", "torchode", "scipy", "numpy",
)  # fmt: skip


def compile_time(function, *args):
    """Trace and compile; return the compiled function, the seconds that took and the bytes of temporary memory."""
    begin = time.perf_counter()
    compiled = jax.jit(function).lower(*args).compile()
    seconds = time.perf_counter() - begin
    return compiled, seconds, compiled.memory_analysis().temp_size_in_bytes


def compile_anew(function, *args):
    """Do the same from nothing."""
    jax.clear_caches()
    return compile_time(function, *args)


def call(run) -> float:
    """Return the seconds of one call."""
    begin = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - begin


def plan(run, once: float, rounds: int, budget: float) -> tuple[int, int]:
    """Return how many rounds a function takes part in, and its calls in each; the first call took `once`."""
    if once > SLOW:
        return (0 if once > VERY_SLOW else 2), 1
    return rounds, max(1, min(200, int(budget / rounds / max(call(run), 1e-6))))


def race(runners: dict, rounds: int, budget: float = 1.0, first: dict | None = None) -> dict:
    """Time functions of no arguments in turns; return for each the seconds of one call, the mean of each round.

    `first` holds the seconds of first calls where they are known.
    """
    first = {name: (first or {}).get(name) or call(run) for name, run in runners.items()}
    plans = {name: plan(run, first[name], rounds, budget) for name, run in runners.items()}
    seconds = {name: [] for name in runners}
    for turn in range(rounds):
        for name, run in runners.items():
            turns, calls = plans[name]
            if turn < turns:
                if calls > 1:  # what ran before leaves threads and caches of its own behind
                    jax.block_until_ready(run())
                gc.disable()  # what others left behind is not cleared away while this one is timed
                begin = time.perf_counter()
                for _ in range(calls):
                    out = run()
                jax.block_until_ready(out)
                seconds[name].append((time.perf_counter() - begin) / calls)
                gc.enable()
    return {name: values or [first[name]] for name, values in seconds.items()}


def quartiles(values: list[float]) -> list[float]:
    """Return the first and the third quartile; of one value, itself."""
    if len(values) < 2:
        return values * 2
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return [low, high]


def spread(seconds: list[float]) -> dict:
    """Summarise timings in milliseconds."""
    low, high = quartiles(seconds)
    return {
        "median_ms": 1e3 * statistics.median(seconds), "quartiles_ms": [1e3 * low, 1e3 * high], "rounds": len(seconds)
    }  # fmt: skip


def version(package: str) -> str | None:
    """Return the version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine(*packages: str) -> dict:
    """Versions and hardware."""
    cpu = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            cpu = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "python": platform.python_version(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "devices": [f"{d} ({d.device_kind})" for d in jax.devices()],
        **{name: version(name) for name in packages or PACKAGES},
    }
