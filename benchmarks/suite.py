"""The runner: all rows of all groups, one JSON for each group, in one format."""

import argparse
import json
import pathlib
import time

import jax
import jax.numpy as jnp

import node_jax as nj
from benchmarks import measure, queue, timing
from benchmarks.rows import (
    Group,
    Packages,
    compilation,
    ensembles,
    fixed,
    lanes,
    models,
    networks,
    precision,
    scaling,
    singles,
)

GROUPS = {
    "singles": Group(singles.rows),
    "lanes": Group(lanes.rows),
    "ensembles": Group(ensembles.rows, extra=queue.measurements),
    "networks": Group(networks.rows),
    "fixed": Group(fixed.rows),
    "models": Group(models.rows),
    "compilation": Group(compilation.rows, measured=measure.compilation),
    "dimensions": Group(scaling.dimensions, 0.2),
    "batches": Group(scaling.batches, 0.2),
    "precision": Group(precision.rows, 0.1),
}


def options_of(description: str) -> argparse.ArgumentParser:
    """Return the parser of the options that every runner has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--row", default="", help="only rows whose name contains this; printed, not stored")
    parser.add_argument("--group", default="", help=f"only this one of {', '.join(GROUPS)}")
    parser.add_argument("--dtype", default="", help="only this dtype; printed, not stored")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=pathlib.Path, help="folder of results")
    return parser


def run(options, packages: Packages, folder: pathlib.Path):
    """Run the rows that were asked for; store whole groups, row by row, so that what was interrupted keeps its rows."""
    jax.config.update("jax_enable_x64", True)
    whole = not (options.row or options.dtype)
    for name, group in GROUPS.items():
        if options.group in ("", name):
            path = (options.out or folder) / f"{name}.json" if whole or options.out else None
            run_group(name, group, packages, options, path)


def run_group(name: str, group: Group, packages: Packages, options, path: pathlib.Path | None):
    """Run, print and store the rows of one group."""
    begin, results, extra = time.perf_counter(), [], {}
    for record in records(group, packages, options):
        results.append(record)
        print(f"{measure.report(record)}\n   {record['took_s']:.0f} s", flush=True)
        store(path, results, extra)
    if results and group.extra and not options.row:
        extra = group.extra(options.rounds)
        store(path, results, extra)
    if results:
        print(f"{name}: {len(results)} rows in {time.perf_counter() - begin:.0f} s {extra or ''}", flush=True)


def records(group: Group, packages: Packages, options):
    """Measure the rows of a group."""
    for dtype in (jnp.float64, jnp.float32):
        for row in group.rows(dtype, packages) if options.dtype in dtype.__name__ else ():
            if options.row in row.name:
                begin = time.perf_counter()
                record = {"dtype": dtype.__name__} | group.measured(row, options.rounds, group.budget)
                yield record | {"took_s": time.perf_counter() - begin}
        measure.compiled_before.clear()
        jax.clear_caches()


def store(path: pathlib.Path | None, results: list[dict], extra: dict):
    """Write one group."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        machine = timing.machine() | {"node-jax": nj.__version__}
        path.write_text(json.dumps({"machine": machine, "results": results, "extra": extra}, indent=1) + "\n")
