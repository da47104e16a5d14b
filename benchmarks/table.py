"""Write what is stored into README.md and docs/, between their markers, and draw it.

A page shows the results of one version of JAX: the README and most of docs/ the newest, docs/benchmarks/jax-0.10 an
older one.

python -m benchmarks.table
"""

import json
import pathlib
import re
from collections.abc import Callable
from typing import NamedTuple

from benchmarks import cards, curves, report, stored
from benchmarks.stored import RESULTS, ROOT

GROUPS = (
    "singles", "lanes", "ensembles", "networks", "models", "fixed", "compilation", "dimensions", "batches", "precision",
)  # fmt: skip
END = "<!-- end -->"
SHOWN = (  # rows of the README
    "single Lotka-Volterra, 800 steps",
    "gradient, single Lotka-Volterra, 800 steps",
    "256 Lotka-Volterra lanes, own rates",
    "gradient, 256 Lotka-Volterra lanes, own rates",
    "256 network lanes, shared weights",
    "gradient, 256 network lanes, shared weights",
    "4,096 Van der Pol, mu 0.1 to 100",
    "gradient, 2,048 Van der Pol, mu 0.1 to 8",
    "16,384 damped Lorenz",
    "Fixed(1000) rk4",
)
COLUMNS = ("diffrax", "tinydiffeq", "jax odeint", "torchdiffeq", "torchode")  # there


def results_in(folder: pathlib.Path) -> dict:
    """Return the results of one version of JAX, group by group."""
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in GROUPS}


def readme(groups: dict) -> str:
    """Return a selection of rows in float32."""
    shown = [x for group in groups.values() for x in group["results"] if x["row"] in SHOWN and x["dtype"] == "float32"]
    rows = [[report.label(x), *(report.ratio_cell(x, peer) for peer in COLUMNS)] for x in shown]
    lost, every = len(report.losses(groups)), report.comparisons(groups)
    return "\n".join([
        *report.markdown(["", *COLUMNS], rows, 1), "",
        f"In {lost} of {every} comparisons a peer is ahead by more than 10 %. {report.machine(groups['singles'])}",
    ])  # fmt: skip


def ensembles(group: dict) -> list[str]:
    """Return the lines of what is measured of the queue: how it grows, idle lanes and two devices."""
    idle, devices = group["extra"]["idle"], group["extra"]["two devices"]
    lines = ["| solves | us for each | temporary bytes for each |", "| ---: | ---: | ---: |"]
    growth = group["extra"]["growth"].items()
    lines += [f"| {int(n):,} | {x['us']:.2f} | {x['temporary_bytes']:.0f} |" for n, x in growth]
    lost = {name: f"{100 * idle[name]:.1f} %" for name in ("no hint", "expected_cost=mu")}
    return [
        *lines,
        "",
        f"Deciles of the number of trials of the 4,096 oscillators: {', '.join(map(str, idle['trials, deciles']))}."
        f" Of all trials, {lost['no hint']} passed in idle lanes, with `expected_cost=mu` {lost['expected_cost=mu']}."
        f" Two devices of one core each solved 8,192 oscillators {devices['speedup']:.2f} times as fast as one device."
        f" The slower half alone on one device is solved {devices['at_most']:.2f} times as fast as the whole, which is"
        " the most that two devices can gain.",
        "",
    ]


def losses(groups: dict) -> str:
    """Return the rows on which a peer is ahead."""
    return "\n".join([report.about(groups["singles"]), "", *report.loss_table(groups)])


def targets(groups: dict) -> str:
    """Return the targets that were missed, and the answers that differ."""
    lines = ["## Targets that were missed", "", *report.missed_table(groups), ""]
    return "\n".join([*lines, "## Answers that differ by more than the stated bound", "", *report.differing(groups)])


def older(groups: dict) -> str:
    """Return losses, targets and differing answers of an older version."""
    title = "## Rows on which a peer is ahead by more than 10 %"
    return "\n".join([report.about(groups["singles"]), "", title, "", *report.loss_table(groups), "", targets(groups)])


def of_group(name: str, figures: dict) -> Callable[[dict], str]:
    """Return what makes the tables of one group, with its figures."""

    def table(groups: dict) -> str:
        group = groups[name]
        lines = [report.about(group), ""]
        if name == "precision":
            lines += [*report.precision_table(group["results"]), ""]
        else:
            lines += [*report.ratio_table(group["results"]), "", *report.floor_table(group["results"])]
            lines += [*report.detail_table(group["results"]), *report.failures(group["results"]), ""]
        if "growth" in group.get("extra", {}):
            lines += ensembles(group)
        lines += [line for figure, text in figures.get(name, {}).items() for line in (text_of(figure, text), "")]
        return "\n".join(lines).rstrip()

    return table


def text_of(figure: str, text: str) -> str:
    """Return a figure in Markdown."""
    return f"![{text}](../figures/{figure}.png)"


class Page(NamedTuple):
    """A file with a table of stored results between two markers."""

    path: pathlib.Path
    name: str
    table: Callable[[dict], str]
    folder: pathlib.Path = stored.newest()

    def filled(self) -> str:
        """Return the text of the file with the table as it is stored."""
        begin = f"<!-- {self.name}, from benchmarks/results -->"
        pattern = re.escape(begin) + ".*?" + re.escape(END)
        text = f"{begin}\n{self.table(results_in(self.folder))}\n{END}"
        filled, count = re.subn(pattern, lambda _: text, self.path.read_text(), flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"{self.path.name} needs {begin} ... {END} once, found it {count} times")
        return filled


DOCS = ROOT / "docs"
OLDER = {"folder": RESULTS / "jax-0.10"}
PAGES = [
    Page(ROOT / "README.md", "readme", readme),
    Page(DOCS / "benchmarks.md", "losses", losses),
    Page(DOCS / "benchmarks" / "targets.md", "targets", targets),
    *(Page(DOCS / "benchmarks" / f"{name}.md", name, of_group(name, curves.FIGURES)) for name in GROUPS),
    Page(DOCS / "benchmarks" / "accelerators.md", "accelerators", cards.accelerators),
    Page(DOCS / "benchmarks" / "jax-0.10" / "index.md", "losses", older, **OLDER),
    *(Page(DOCS / "benchmarks" / "jax-0.10" / f"{name}.md", name, of_group(name, {}), **OLDER) for name in GROUPS),
]

if __name__ == "__main__":
    for page in PAGES:
        page.path.write_text(page.filled())
    curves.draw(results_in(stored.newest()), ROOT / "docs" / "figures")
