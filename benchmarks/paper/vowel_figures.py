"""Tables and the figure of the speakers of Japanese vowels."""

import math
from typing import Any, NamedTuple

import numpy as np

from benchmarks.figures import plt
from benchmarks.paper import drawing
from benchmarks.paper.tables import spread, table
from benchmarks.paper.vowels import DROPPED, KINDS, TARGETS, TRIED, chosen

COLOURS = {"ODE-RNN": "#0072B2", "GRU": "#D55E00"}
MARKERS = {"ODE-RNN": "o", "GRU": "s"}


class Difference(NamedTuple):
    """Accuracy of the ODE-RNN minus that of the GRU, and its interval."""

    mean: float
    low: float
    high: float


def tests_of(results: dict[str, dict], kind: str, part: float) -> list[dict]:
    """Return the results of one model with one part of the points dropped, by seed."""
    found = [x for name, x in results.items() if not name.startswith("tuning")]
    return sorted((x for x in found if (x["kind"], x["dropped"]) == (kind, part)), key=lambda x: x["seed"])


def tunings_of(results: dict[str, dict]) -> list[dict]:
    """Return the results of the cross-validation."""
    return [x for name, x in results.items() if name.startswith("tuning")]


def right(tests: list[dict]) -> np.ndarray:
    """Return for each utterance the part of the seeds that know its speaker."""
    wrong = [np.isin(np.arange(x["utterances"]), x["wrong"]) for x in tests]
    return 1.0 - np.mean(wrong, axis=0)


def difference(results: dict[str, dict], part: float) -> Difference:
    """Return the difference of the accuracies with its interval of 95 %, from the differences of all utterances.

    The seeds of one utterance are averaged first: they are not independent of one another.
    """
    ours, other = (right(tests_of(results, kind, part)) for kind in KINDS)
    each = ours - other
    half = 1.96 * float(np.std(each, ddof=1)) / math.sqrt(len(each))
    mean = float(np.mean(each))
    return Difference(mean, mean - half, mean + half)


def percent(x: float, sign: bool = False) -> str:
    """Return a part in per cent."""
    text = f"{100 * x:+.1f}" if sign else f"{100 * x:.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def dropped(part: float) -> str:
    """Return how much is dropped, as the tables say it."""
    return f"{100 * part:.0f} %"


def mean_of(tests: list[dict], name: str = "accuracy") -> str:
    """Return mean and range of an accuracy in per cent."""
    return spread(tests, lambda x: 100 * x[name], ".1f")


def tables(results: dict[str, dict]) -> dict[str, str]:
    """Return the tables of the page."""
    made = {"accuracy": accuracy, "targets": targets, "field": field, "cost": cost, "tuning": tuning}
    return {name: make(results) for name, make in made.items()}


def accuracy(results: dict[str, dict]) -> str:
    """Return the accuracies and their differences."""
    rows = []
    for part in DROPPED:
        each = [mean_of(tests_of(results, kind, part)) for kind in KINDS]
        found = difference(results, part)
        interval = f"{percent(found.low, True)} to {percent(found.high, True)}"
        rows.append([dropped(part), *each, percent(found.mean, True), interval])
    return table(["dropped", *KINDS, "difference", "interval of 95 %"], rows)


def targets(results: dict[str, dict]) -> str:
    """Return what was asked for and found."""
    rows = []
    for part, least in TARGETS.items():
        found = difference(results, part)
        reached = found.mean >= least if least < 0 else found.mean > least
        asked = f"at least {percent(least, True)}" if least < 0 else "above 0"
        beyond = "yes" if found.low > least else "no"
        rows.append([dropped(part), asked, percent(found.mean, True), "yes" if reached else "no", beyond])
    return table(["dropped", "asked for", "found", "reached", "by the whole interval"], rows)


def field(results: dict[str, dict]) -> str:
    """Return what becomes of trained ODE-RNNs that take more steps, and of those whose state stays."""
    rows = []
    for part in DROPPED:
        tests = tests_of(results, "ODE-RNN", part)
        changed, count = (sum(x[name] for x in tests) for name in ("changed_by_finer_steps", "utterances"))
        values = (mean_of(tests, name) for name in ("accuracy", "accuracy_without_field"))
        rows.append([dropped(part), f"{changed} of {count:,}", *values])
    return table(["dropped", "changed by finer steps", "accuracy", "accuracy without the field"], rows)


def cost(results: dict[str, dict]) -> str:
    """Return what was chosen, and what it costs."""
    rows = []
    for kind in KINDS:
        one = tests_of(results, kind, DROPPED[0])[0]
        seconds = [[x["seconds"] for x in tests_of(results, kind, part)] for part in (DROPPED[0], DROPPED[-1])]
        times = [f"{pick(x):.1f}" for x in seconds for pick in (np.median, max)]
        rows.append([kind, f"{one['width']}", f"{one['rate']:g}", f"{one['updates']:,}", f"{one['parameters']:,}",
                     *times])  # fmt: skip
    heads = [
        f"{what}, {dropped(part)} dropped" for part in (DROPPED[0], DROPPED[-1]) for what in ("seconds", "slowest")
    ]
    return table(["", "width", "rate", "updates", "parameters", *heads], rows)


def tuning(results: dict[str, dict]) -> str:
    """Return the accuracies of the cross-validation; what was chosen is bold."""
    tried, rows = tunings_of(results), []
    choices = chosen(tried)
    order = [(x["width"], x["rate"], x["updates"]) for x in tried if x["kind"] == KINDS[0]]
    for key in sorted(order):
        cells = [cell for kind in KINDS for cell in tuning_cells(tried, kind, key, key == tuple(choices[kind]))]
        rows.append([f"{key[0]}", f"{key[1]:g}", f"{key[2]:,}", *cells])
    heads = [f"{kind}, {dropped(part)} dropped" for kind in KINDS for part in TRIED]
    return table(["width", "rate", "updates", *heads], rows, 0)


def tuning_cells(tried: list[dict], kind: str, key: tuple, bold: bool) -> list[str]:
    """Return the accuracy of one choice for each part dropped."""
    found = next(x for x in tried if (x["kind"], x["width"], x["rate"], x["updates"]) == (kind, *key))
    pairs = list(zip(found["dropped"], found["accuracies"], strict=True))
    cells = [percent(float(np.mean([x for at, x in pairs if at == part]))) for part in TRIED]
    return [f"**{cell}**" if bold else cell for cell in cells]


def draw(results: dict[str, dict]) -> None:
    """Draw the figure."""
    drawing.draw({"paper_vowels": lambda: comparison(results)})


def comparison(results: dict[str, dict]):
    """Accuracies of both models, and their differences."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 4.2))
    accuracies(panels[0], results)
    differences(panels[1], results)
    for axes in panels:
        axes.set_xticks([100 * part for part in DROPPED])
        axes.set_xlim(-6, 76)
        axes.set_xlabel("points dropped, %")
    figure.tight_layout()
    return figure


def accuracies(axes: Any, results: dict[str, dict]) -> None:
    """Draw the mean of the seeds as a line, and the seeds as points side by side."""
    for kind, side in zip(KINDS, (-1.0, 1.0), strict=True):
        each = [[100 * x["accuracy"] for x in tests_of(results, kind, part)] for part in DROPPED]
        axes.plot([100 * part for part in DROPPED], [np.mean(x) for x in each], "-", color=COLOURS[kind])
        for part, values in zip(DROPPED, each, strict=True):
            at = [100 * part + side * (1.2 + i) for i in range(len(values))]
            axes.plot(at, values, MARKERS[kind], color=COLOURS[kind], fillstyle="none")
        axes.plot([], [], "-", marker=MARKERS[kind], color=COLOURS[kind], fillstyle="none", label=kind)
    axes.set_ylabel("accuracy on the test set, %")
    axes.set_title("means as lines, seeds as points")
    axes.legend()


def differences(axes: Any, results: dict[str, dict]) -> None:
    """Draw the differences with their intervals, and what was asked for."""
    found = [difference(results, part) for part in DROPPED]
    middle = [100 * x.mean for x in found]
    bars = [[100 * (x.mean - x.low) for x in found], [100 * (x.high - x.mean) for x in found]]
    axes.axhline(0.0, color="0.4", linewidth=1)
    axes.errorbar([100 * x for x in DROPPED], middle, bars, fmt="o", color=COLOURS["ODE-RNN"], capsize=3)
    for part, least in TARGETS.items():
        axes.plot([100 * part - 4, 100 * part + 4], [100 * least] * 2, "--", color="black", linewidth=2)
    axes.plot([], [], "--", color="black", linewidth=2, label="smallest difference asked for")
    axes.set_ylabel("ODE-RNN minus GRU, percentage points")
    axes.set_title("difference with its interval of 95 %")
    axes.legend()
