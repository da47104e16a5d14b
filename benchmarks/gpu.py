"""Check and time node_jax on the accelerator that JAX finds, with the peers that can be imported.

python -m benchmarks.gpu [--part checks|rows|all] [--row WORD] [--small] [--rounds N] [--out FILE] [--budget SECONDS]

Checks hold every adjoint, save and failure status in float64 and float32 against float64 on the host's CPU. Rows time
ensembles, gradients and networks. Both go into benchmarks/results/<name of the card>.json one by one, so that what is
interrupted keeps what it has; `python -m benchmarks.table` shows them in docs/benchmarks/accelerators.md. What would
begin when the budget is spent, or might take longer than is left of it, is named as not run. --small runs a few lanes,
on a CPU too.
"""

import argparse
import json
import pathlib
import re
import time

import jax

import node_jax as nj
from benchmarks import gpu_checks, gpu_rows, measure, timing
from benchmarks.stored import RESULTS

LANES, FEW = 64, 8  # of a check, and of a small one
BUDGET = 0.5  # seconds of calls of each package in a row
PRECISION = "float32"  # of products of matrices: what PyTorch takes by default, and JAX on a GPU does not


def options_of(arguments=None):
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("checks", "rows", "all"), default="all")
    parser.add_argument("--row", default="", help="only rows and checks whose name contains this; printed, not stored")
    parser.add_argument("--small", action="store_true", help="few lanes, on a CPU too; printed, not stored")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=pathlib.Path, help="file that everything is stored in")
    parser.add_argument("--budget", type=float, default=480.0, help="seconds after which nothing more begins")
    return parser.parse_args(arguments)


class File:
    """The stored results of one card: each part with its machine, rewritten after each record."""

    def __init__(self, path: pathlib.Path | None, card: str):
        self.path, self.content = path, {"card": card}
        stored = json.loads(path.read_text()) if path is not None and path.exists() else {}
        if stored.get("card") == card:
            self.content = stored

    def write(self, part: str, content: dict):
        """Replace one part."""
        platform = jax.devices()[0].client.platform_version
        machine = timing.machine() | {"node-jax": nj.__version__, "platform": platform, "matmul": PRECISION}
        self.content[part] = {"machine": machine, **content}
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.content, indent=1) + "\n")


def slug(card: str) -> str:
    """Return the name of a card as that of a file."""
    return re.sub(r"\W+", "_", card.lower()).strip("_")


def in_time(tasks: list, deadline: float, write):
    """Run (name, function -> records) one after another while the longest so far would still fit; store each.

    What is not yet run is stored as such.
    """
    results, longest = [], 0.0
    waiting = [name for name, _ in tasks]
    for name, run in tasks:
        begin = time.perf_counter()
        if begin + longest <= deadline:
            results += run()
            waiting.remove(name)
            longest = max(longest, time.perf_counter() - begin)
            write({"results": results, "not_run": waiting})
    if waiting:
        print(f"Not run, the budget is spent: {'; '.join(waiting)}", flush=True)
    write({"results": results, "not_run": waiting})


def check(one, lanes: int, device, host) -> list[dict]:
    """Run and print one check, in both dtypes."""
    records = []
    for record in gpu_checks.of_check(one, lanes, device, host):
        print(gpu_checks.report(record), flush=True)
        records.append(record)
    return records


def timed(row, rounds: int) -> list[dict]:
    """Measure and print one row."""
    begin, dtype = time.perf_counter(), str(row.args[0].dtype)
    try:
        record = {"dtype": dtype} | measure.measure(row, rounds, BUDGET)
    except Exception as error:  # the other rows go on
        failed = {"node_jax": {"error": f"{type(error).__name__}: {error}"[:300]}}
        record = {"dtype": dtype, "row": row.name, "at": row.at, "packages": failed, "targets": {}, "ratios": {}}
    record["took_s"] = time.perf_counter() - begin
    measure.compiled_before.clear()
    print(f"{measure.report(record)}\n   {record['took_s']:.0f} s", flush=True)
    return [record]


def run_checks(options, deadline: float, file: File):
    """Run the checks that were asked for."""
    try:
        host = jax.devices("cpu")[0]
    except RuntimeError as error:
        raise SystemExit("The checks need the host's CPU too: leave JAX_PLATFORMS unset, or add cpu to it.") from error
    lanes = FEW if options.small else LANES
    tasks = [
        (one.name, lambda one=one: check(one, lanes, jax.devices()[0], host))
        for one in gpu_checks.checks(lanes)
        if options.row in one.name
    ]
    in_time(tasks, deadline, lambda content: file.write("checks", content))
    wrong = [x for x in file.content["checks"]["results"] if not x["ok"]]
    print(f"checks: {len(file.content['checks']['results'])}, of them wrong: {len(wrong)}", flush=True)


def run_rows(options, deadline: float, file: File):
    """Run the rows that were asked for."""
    missing = gpu_rows.left_out()
    lanes = f"at most {gpu_rows.FEW} lanes" if options.small else ""
    for name, why in missing.items():
        print(f"Left out: {name}: {why}", flush=True)
    tasks = [
        (f"{row.name} ({row.args[0].dtype})", lambda row=row: timed(row, options.rounds))
        for row in gpu_rows.rows(options.small)
        if options.row in row.name
    ]
    in_time(tasks, deadline, lambda content: file.write("rows", content | {"left_out": missing, "small": lanes}))


def main(arguments=None):
    """Run what the command line asks for."""
    options, begin = options_of(arguments), time.perf_counter()
    jax.config.update("jax_enable_x64", True)
    card = jax.devices()[0].device_kind
    if jax.default_backend() == "cpu" and not options.small:
        raise SystemExit("JAX finds no accelerator: install jax[cuda13] or jax[tpu], or try --small on the CPU.")
    whole = not (options.row or options.small)
    file = File(options.out or (RESULTS / f"{slug(card)}.json" if whole else None), card)
    with jax.default_matmul_precision(PRECISION):
        for part, run in (("checks", run_checks), ("rows", run_rows)):
            if options.part in (part, "all"):
                run(options, begin + options.budget, file)


if __name__ == "__main__":
    main()
