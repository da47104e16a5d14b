"""Gradients of many starts, each its own, against the gradient of their sum, and against diffrax.

python -m benchmarks.starts [--rounds N]

writes benchmarks/results/starts.json and the table of docs/benchmarks/ensembles.md between its markers.
"""

import argparse
import functools
import json
import re
import statistics

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import problems, timing
from benchmarks.guide import amount, markdown, where
from benchmarks.peers import Task, node_jax, with_diffrax
from benchmarks.stored import RESULTS, ROOT

STORED = RESULTS / "starts.json"
PAGE = ROOT / "docs" / "benchmarks" / "ensembles.md"
STARTS = 2400
SIZES = (2, 32, 32, 2)
EACH, SUM, DIFFRAX = "vmap(value_and_grad)", "value_and_grad of the sum", "diffrax, vmap(value_and_grad)"


def rows() -> dict:
    """Return for each problem the task, the starts with what belongs to each, and what is differentiated."""
    oscillators = problems.oscillators(STARTS, 0.1, 8.0, jnp.float64)
    starts, weights = problems.network_data(jnp.float64, SIZES, STARTS)
    return {
        "Van der Pol, mu 0.1 to 8": (Task(problems.van_der_pol, 10.0, 1e-6), oscillators, 0, (0, 1)),
        "network 2-32-32-2": (Task(problems.network, 2.0, 1e-6), (starts, weights), None, 0),
    }


def of_each(run, axis, argnums):
    """Return values and gradients of all starts."""
    slope = jax.value_and_grad(lambda z0, theta: jnp.sum(run(z0, theta) ** 2), argnums)
    return jax.vmap(slope, (0, axis))


def of_sum(run, axis, argnums):
    """Return the same by way of the gradient of the sum."""

    def loss(z0, theta):
        values = jax.vmap(lambda z0, theta: jnp.sum(run(z0, theta) ** 2), (0, axis))(z0, theta)
        return jnp.sum(values), values

    def values_and_slopes(z0, theta):
        (_, values), slopes = jax.value_and_grad(loss, argnums, has_aux=True)(z0, theta)
        return values, slopes

    return values_and_slopes


def measured(rounds: int) -> list[dict]:
    """Race the three, and compare what they return."""
    results = []
    for name, (task, args, axis, argnums) in rows().items():
        makers = {EACH: (of_each, node_jax), SUM: (of_sum, node_jax), DIFFRAX: (of_each, with_diffrax)}
        records, runners, answers = {}, {}, {}
        for way, (shape, package) in makers.items():
            compiled, seconds, size = timing.compile_time(shape(package(task), axis, argnums), *args)
            records[way] = {"compile_s": seconds, "temporary_bytes": size}
            runners[way] = functools.partial(compiled, *args)
            answers[way] = jax.tree.leaves(runners[way]())
        times = timing.race(runners, rounds)
        for way, record in records.items():
            pairs = zip(answers[way], answers[EACH], strict=True)
            record["difference"] = max(float(jnp.max(jnp.abs(x - y)) / jnp.max(jnp.abs(y))) for x, y in pairs)
            shared = min(len(times[EACH]), len(times[way]))
            record["ratio"] = float(np.median(np.divide(times[EACH][:shared], times[way][:shared])))
            record["median_ms"] = 1e3 * statistics.median(times[way])
        results.append({"problem": name, "starts": STARTS, "ways": records})
    return results


def table(part: dict) -> str:
    """Return the table of the page."""
    lines = [
        [row["problem"] if way == EACH else "", way, f"{record['median_ms']:.3g}", f"{record['ratio']:.2f}",
         amount(record["temporary_bytes"]), f"{record['compile_s']:.1f}", f"{record['difference']:.0e}"]
        for row in part["results"] for way, record in row["ways"].items()
    ]  # fmt: skip
    head = ["", "", "ms", f"time of `{EACH}` over it", "temporary", "trace and compile, s", "difference"]
    return markdown(head, lines, f"{where(part)} {STARTS:,} starts.")


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description="Gradients of many starts.")
    parser.add_argument("--rounds", type=int, default=11)
    part = {"machine": timing.machine("jax", "jaxlib", "diffrax"), "results": measured(parser.parse_args().rounds)}
    STORED.write_text(json.dumps(part, indent=1) + "\n")
    text = f"<!-- begin starts -->\n{table(part)}\n<!-- end starts -->"
    page, count = re.subn(
        "<!-- begin starts -->.*?<!-- end starts -->", lambda _: text, PAGE.read_text(), flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"{PAGE.name} needs the markers of starts once, found them {count} times")
    PAGE.write_text(page)
