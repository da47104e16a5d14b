"""Write what is stored into README.md and docs/, between their markers, and draw it.

A page shows the results of one version of JAX: the README and most of docs/ the newest, one page an older one.

python -m benchmarks.table
"""

import json
import pathlib
import re
from collections.abc import Callable
from typing import NamedTuple

from benchmarks import cards, curves, report, stored
from benchmarks.stored import RESULTS, ROOT

GROUPS = ("singles", "lanes", "ensembles", "networks", "fixed", "compilation", "dimensions", "batches", "precision")
END = "<!-- end -->"
SHOWN = (  # rows of the README
    "single Lotka-Volterra, 800 steps",
    "gradient, single Lotka-Volterra, 800 steps",
    "100 output times",
    "256 Lotka-Volterra lanes, own rates",
    "gradient, 256 Lotka-Volterra lanes, own rates",
    "256 network lanes, shared weights",
    "gradient, 256 network lanes, shared weights",
    "4,096 Van der Pol, mu 0.1 to 100",
    "gradient, 2,048 Van der Pol, mu 0.1 to 8",
    "16,384 damped Lorenz",
    "Fixed(1000) rk4",
)
NOT_SHOWN = (
    "diffrax Backsolve",
    "diffrax lax.map",
    "diffrax common steps",
    "torchdiffeq adjoint",
    *report.OWN,
)  # there


def results_in(folder: pathlib.Path) -> dict:
    """Return the results of one version of JAX, group by group."""
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in GROUPS}


def readme(groups: dict) -> str:
    """Return a selection of rows."""
    results = [x for group in groups.values() for x in group["results"] if x["row"] in SHOWN]
    losses = report.losses(groups)
    return "\n".join([
        report.about(groups["singles"]), "", *report.ratio_table(results, NOT_SHOWN), "",
        f"In {len(losses)} of {report.comparisons(groups)} comparisons a peer is ahead by more than 10 %.",
    ])  # fmt: skip


def ensembles(groups: dict) -> str:
    """Return the rows of ensembles, and what is measured of the queue."""
    group = groups["ensembles"]
    idle, devices = group["extra"]["idle"], group["extra"]["two devices"]
    lines = [report.about(group), "", *report.ratio_table(group["results"]), ""]
    lines += [*report.detail_table(group["results"]), ""]
    lines += ["| solves | us for each | temporary bytes for each |", "| ---: | ---: | ---: |"]
    growth = group["extra"]["growth"].items()
    lines += [f"| {int(n):,} | {x['us']:.2f} | {x['temporary_bytes']:.0f} |" for n, x in growth]
    lost = {name: f"{100 * idle[name]:.1f} %" for name in ("no hint", "expected_cost=mu")}
    lines += [
        "",
        f"Of the 4,096 oscillators (trials of one solve, deciles: {', '.join(map(str, idle['trials, deciles']))})"
        f" {lost['no hint']} of all trials passed in idle lanes, with `expected_cost=mu`"
        f" {lost['expected_cost=mu']}. Two devices of one"
        f" core each solved 8,192 of them {devices['speedup']:.2f} times as fast as one; the half that takes longer is"
        f" solved {devices['at_most']:.2f} times as fast as all of them, alone on one.",
    ]
    return "\n".join(lines)


def benchmarks(groups: dict) -> str:
    """Return the whole report with its figures."""
    return whole(groups, curves.FIGURES)


def older(groups: dict) -> str:
    """Return the whole report of an older version, without figures."""
    return whole(groups, {})


def whole(groups: dict, figures: dict) -> str:
    """Return the whole report: losses first, then every group."""
    lines = [report.about(groups["singles"]), ""]
    lines += ["## Rows on which a peer is ahead by more than 10 %", "", *report.loss_table(groups), ""]
    lines += ["## Targets that were missed", "", *report.missed_table(groups), ""]
    lines += ["## Answers that differ by more than the stated bound", "", *report.differing(groups), ""]
    for name, group in groups.items():
        lines += [f"## {report.TITLES[name]}", ""]
        if name == "precision":
            lines += [*report.precision_table(group["results"]), ""]
        else:
            lines += [*report.ratio_table(group["results"]), "", *report.floor_table(group["results"])]
            lines += [*report.detail_table(group["results"]), *report.failures(group["results"]), ""]
        lines += [line for figure, text in figures.get(name, {}).items() for line in (text_of(figure, text), "")]
    return "\n".join(lines).rstrip()


def text_of(figure: str, text: str) -> str:
    """Return a figure in Markdown."""
    return f"![{text}](figures/{figure}.png)"


class Page(NamedTuple):
    """A file with a table of stored results between two markers."""

    path: pathlib.Path
    table: Callable[[dict], str]
    folder: pathlib.Path = stored.newest()

    def filled(self) -> str:
        """Return the text of the file with the table as it is stored."""
        begin = f"<!-- {self.table.__name__}, from benchmarks/results -->"
        pattern = re.escape(begin) + ".*?" + re.escape(END)
        text = f"{begin}\n{self.table(results_in(self.folder))}\n{END}"
        filled, count = re.subn(pattern, lambda _: text, self.path.read_text(), flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"{self.path.name} needs {begin} ... {END} once, found it {count} times")
        return filled


PAGES = [
    Page(ROOT / "README.md", readme),
    Page(ROOT / "docs" / "ensembles.md", ensembles),
    Page(ROOT / "docs" / "benchmarks.md", benchmarks),
    Page(ROOT / "docs" / "benchmarks-jax-0.10.md", older, RESULTS / "jax-0.10"),
    Page(ROOT / "docs" / "benchmarks.md", cards.accelerators),
]

if __name__ == "__main__":
    for page in PAGES:
        page.path.write_text(page.filled())
    curves.draw(results_in(stored.newest()), ROOT / "docs" / "figures")
