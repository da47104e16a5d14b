"""How long an ensemble takes by the number of lanes that step together, for states of 2 to 1,000 components.

python -m benchmarks.widths [--rounds N]
"""

import argparse
import functools
import json
import statistics

import jax
import jax.numpy as jnp

from benchmarks import problems, timing
from benchmarks.peers import Task, node_jax
from benchmarks.stored import RESULTS

STORED = RESULTS / "widths.json"
RINGS = {16: 512, 32: 512, 64: 512, 256: 117, 1000: 64}  # components -> solves
WIDTHS = (1, 4, 16, 32, 64, 128, 256)


def rows():
    """Yield the name of an ensemble, its task, its data and the widths."""
    task = Task(problems.lotka_volterra, 40.0, 1e-8, lanes="own")
    yield "Lotka-Volterra, 256 solves", task, problems.species(256, jnp.float64), WIDTHS[2:]
    for size, count in RINGS.items():
        z0 = jnp.sin(jnp.arange(count * size, dtype=jnp.float64)).reshape(count, size)
        task = Task(problems.ring, 5.0, 1e-6, lanes="own")
        yield f"ring of {size}, {count} solves", task, (z0, jnp.linspace(1.0, 2.0, count)), WIDTHS


def measured(rounds: int) -> list[dict]:
    """Return the milliseconds of each ensemble by width, and its default."""
    results = []
    for name, task, data, widths in rows():
        choices = {"default": None} | {str(width): width for width in widths}
        compiled = {key: timing.compile_time(node_jax(task, lane_width=w), *data)[0] for key, w in choices.items()}
        times = timing.race({key: functools.partial(run, *data) for key, run in compiled.items()}, rounds)
        results.append({"row": name, "ms": {key: 1e3 * statistics.median(x) for key, x in times.items()}})
        print(results[-1], flush=True)
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    part = {"machine": timing.machine("jax", "jaxlib"), "results": measured(options.rounds)}
    STORED.write_text(json.dumps(part, indent=1) + "\n")
