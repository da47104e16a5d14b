"""Write the tables of stored results into README.md and docs/ensembles.md, between their markers.

python -m benchmarks.table
"""

import json
import pathlib
import re
from collections.abc import Callable

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = "benchmarks/results"


def about(stored: dict) -> str:
    """Say what a result was measured on."""
    machine = stored["machine"]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("jax", "diffrax", "tinydiffeq"))
    return (
        f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, {versions}. Time of node_jax divided"
        " by that of the peer, median over interleaved runs; below 1 node_jax is faster."
    )


def rows(stored: dict) -> list[str]:
    """Return a line for each row."""
    lines = []
    for row in stored["results"]:
        ours = row["packages"]["node_jax"]
        ratios = ", ".join(f"{ratio:.2g} of {name}" for name, ratio in row["ratios"].items())
        compiles = ", ".join(
            f"{ours['compile_s'] / row['packages'][name]['compile_s']:.2f} of {name}" for name in row["ratios"]
        )
        lines.append(f"| {row['row']} | {row['dtype']} | {ours['median_ms']:.3g} | {ratios} | {compiles} |")
    return lines


def first(stored: dict) -> str:
    """Return the table of `benchmarks.first`."""
    head = ["| | dtype | node_jax, ms | ratio | trace and compile, ratio |", "| --- | --- | ---: | --- | --- |"]
    return "\n".join([about(stored), "", *head, *rows(stored)])


def ensembles(stored: dict) -> str:
    """Return the table of `benchmarks.ensembles`, its memory, and the figures beside it."""
    lines = [first(stored), "", "| temporary memory, MB | dtype | node_jax | others |", "| --- | --- | ---: | --- |"]
    for row in stored["results"]:
        sizes = {name: package["temporary_bytes"] / 1e6 for name, package in row["packages"].items()}
        own = sizes.pop("node_jax")
        others = ", ".join(f"{size:.3g} {name}" for name, size in sizes.items())
        lines.append(f"| {row['row']} | {row['dtype']} | {own:.3g} | {others} |")
    idle, devices = stored["idle"], stored["two devices"]
    lines += ["", "| solves | us for each | temporary bytes for each |", "| ---: | ---: | ---: |"]
    lines += [f"| {int(n):,} | {x['us']:.2f} | {x['temporary_bytes']:.0f} |" for n, x in stored["growth"].items()]
    lines += [
        "",
        f"Of the 4,096 oscillators (trials of one solve, deciles: {', '.join(map(str, idle['trials, deciles']))})"
        f" {100 * idle['no hint']:.1f} % of all trials passed in idle lanes, with `order=mu`"
        f" {100 * idle['order=mu']:.1f} %. Two devices of one core each solved"
        f" 8,192 of them {devices['speedup']:.2f} times as fast as one.",
    ]
    return "\n".join(lines)


class Page:
    """A file with the table of a stored result between two markers."""

    def __init__(self, path: str, result: str, table: Callable[[dict], str]):
        """Take the names of file and result, and what makes the table."""
        self.path, self.table = ROOT / path, table
        self.begin, self.end = f"<!-- {RESULTS}/{result} -->", "<!-- end -->"
        self.stored = ROOT / RESULTS / result

    def filled(self) -> str:
        """Return the text of the file with the table as it is stored."""
        table = self.table(json.loads(self.stored.read_text()))
        pattern = re.escape(self.begin) + r".*?" + re.escape(self.end)
        return re.sub(pattern, lambda _: f"{self.begin}\n{table}\n{self.end}", self.path.read_text(), flags=re.DOTALL)


PAGES = [Page("README.md", "first.json", first), Page("docs/ensembles.md", "ensembles.json", ensembles)]

if __name__ == "__main__":
    for page in PAGES:
        page.path.write_text(page.filled())
