"""Interleaved timing of compiled functions, and what a stored result says about its machine."""

import importlib.metadata
import os
import platform
import statistics
import time

import jax


def compile_time(function, *args):
    """Trace and compile; return the compiled function, the seconds that took and the bytes of temporary memory."""
    begin = time.perf_counter()
    compiled = jax.jit(function).lower(*args).compile()
    seconds = time.perf_counter() - begin
    return compiled, seconds, compiled.memory_analysis().temp_size_in_bytes


def race(runners: dict, rounds: int, budget: float = 1.0) -> dict:
    """Time functions of no arguments in turns; return for each the seconds of one call, best of each round."""
    repeats = {}
    for name, run in runners.items():
        jax.block_until_ready(run())
        begin = time.perf_counter()
        jax.block_until_ready(run())
        once = max(time.perf_counter() - begin, 1e-6)
        repeats[name] = max(1, min(200, int(budget / rounds / once)))
    seconds = {name: [] for name in runners}
    for _ in range(rounds):
        for name, run in runners.items():
            begin = time.perf_counter()
            for _ in range(repeats[name]):
                out = run()
            jax.block_until_ready(out)
            seconds[name].append((time.perf_counter() - begin) / repeats[name])
    return seconds


def spread(seconds: list[float]) -> dict:
    """Summarise timings in milliseconds."""
    low, *_, high = statistics.quantiles(seconds, n=4)
    return {"median_ms": 1e3 * statistics.median(seconds), "quartiles_ms": [1e3 * low, 1e3 * high]}


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
        "devices": [str(d) for d in jax.devices()],
        **{name: importlib.metadata.version(name) for name in packages},
    }
