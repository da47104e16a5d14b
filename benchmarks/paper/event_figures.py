"""Figures and tables of the point processes."""

from collections.abc import Iterator
from operator import itemgetter

import numpy as np

from benchmarks.figures import plt
from benchmarks.paper import storage
from benchmarks.paper.drawing import COLOURS, draw
from benchmarks.paper.events import END, GRID, KNOWN, SEEDS, run_of
from benchmarks.paper.joint_events import CUT, NOISES, SHOWN
from benchmarks.paper.tables import spread, table

TRUE, JOINT, ALONE, BAYES = "#000000", *COLOURS[:3]
RUN = (1.0, 0)  # noise and seed of the series shown


def draw_events() -> None:
    """Draw what is stored of the point processes."""
    draw({"paper_events_recovered": recovered, "paper_events_joint": paths})


def stored() -> dict[str, dict]:
    """Return the stored results by name."""
    return storage.results_of("events")


def recovered():
    """Recovered and true intensities, with the events of a few series below."""
    found = stored()
    figure, panels = plt.subplots(
        2, len(KNOWN), figsize=(9, 4.8), sharex=True, sharey="row", height_ratios=(4, 1), layout="constrained"
    )
    for (above, below), name in zip(panels.T, KNOWN, strict=True):
        runs = [found[run_of(name, seed)] for seed in SEEDS]
        true, band = (np.asarray(runs[0][key]) for key in ("true", "band"))
        above.fill_between(GRID, true - 2 * band, true + 2 * band, color="0.85", lw=0, label="true ± 2 standard errors")
        above.plot(GRID, true, color=TRUE, ls="--", label="true")
        for colour, run in zip(COLOURS, runs, strict=False):
            above.plot(GRID, run["found"], color=colour, label=f"found, seed {run['seed']}")
        above.set_title(name)
        raster(below, runs[0]["events"])
        below.set_xlabel("time")
    panels[0, 0].set_ylabel("events per unit of time")
    panels[0, 0].set_ylim(0, None)
    panels[1, 0].set_ylabel("6 series")
    panels[0, 0].legend(loc="lower right", fontsize=8)
    return figure


def raster(axes, series: list) -> None:
    """Draw the events of series as ticks, a row for each."""
    axes.eventplot(series, colors="0.3", linelengths=0.7, linewidths=0.8)
    axes.set_yticks([])
    axes.set_xlim(0, END)


def paths():
    """Intensities and values of test series that were encoded up to a time, with the truth."""
    found = stored()
    figure, panels = plt.subplots(
        2, SHOWN, figsize=(11, 5.2), sharex=True, sharey="row", height_ratios=(1, 1), layout="constrained"
    )
    joint, alone, references = (found[run_of(name, *RUN)] for name in ("joint", "values alone", "references"))
    ways = references["ways"]
    lines = (
        (ways["truth"], TRUE, "--", "truth"), (ways["bayes"], BAYES, ":", "inferred with the true model"),
        (alone, ALONE, "-", "trained on values, then intensity"),
        (joint, JOINT, "-", "trained on values and events"),
    )  # fmt: skip
    for i, (above, below) in enumerate(panels.T):
        for part, colour, style, label in lines:
            above.plot(GRID, part["rates"][i], style, color=colour, label=label)
            below.plot(GRID, part["values"][i], style, color=colour)
        events = references["shown"][i]
        seen = np.asarray(events["ts"]) < CUT
        for some, colour, fill in ((seen, "0.2", "full"), (~seen, "0.6", "none")):
            ts, ys = np.asarray(events["ts"])[some], np.asarray(events["ys"])[some]
            below.plot(ts, ys, "o", color=colour, fillstyle=fill, markersize=3.5)
            above.plot(ts, np.full(len(ts), -0.4), "|", color=colour, markersize=8)
        for axes in (above, below):
            axes.axvspan(CUT, END, color="0.94", lw=0, zorder=0)
            axes.set_xlim(0, END)
        above.set_title(f"test series {i + 1}")
        below.set_xlabel("time")
    panels[0, 0].set_ylabel("intensity")
    panels[1, 0].set_ylabel("value")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(lines))
    return figure


def tables_of(found: dict[str, dict]) -> dict[str, str]:
    """Return the tables of the point processes."""
    known = [[found[run_of(name, seed)] for seed in SEEDS] for name in KNOWN]
    rows = [row for several in known for row in recovered_rows(several)]
    tables = {"recovered": table(["intensity", "", "ours", "closed form"], rows, 2)}
    for noise, seeds in NOISES.items():
        lines = table(["", *JUDGED], list(judged_rows(found, noise, seeds)))
        tables[f"joint {noise}"] = f"{lines}\n\n{effective(found, noise, seeds)}"
    gained = [row for noise, seeds in NOISES.items() for row in gains(found, noise, seeds)]
    return {**tables, "gains": table(["", "noise", *(f"seed {seed}" for seed in SEEDS)], gained)}


def recovered_rows(runs: list[dict]) -> list[list[str]]:
    """Return what was found of one intensity, a row for each quantity."""
    one, several = runs[0], lambda form, key: ", ".join(form.format(*np.atleast_1d(run[key])) for run in runs)
    rows = [
        ["largest difference of the log-density of a series, by one solve with the true intensity, nats",
         several("{:.0e}", "solve_error"), "0"],
        ["mean number of events of a held-out series that was thinned", several("{:.2f} ± {:.2f}", "count_thinned"),
         f"{one['count']:.2f}"],
        ["expected number of events after training", several("{:.2f}", "count_found"), f"{one['count']:.2f}"],
        ["rms error of the intensity, over the mean rate", several("{:.1%}", "rms"),
         f"{one['rms_expected']:.1%} (standard error)"],
        ["largest error of the intensity, over the mean rate", several("{:.1%}", "largest"),
         f"{one['error_expected']:.1%} (largest standard error)"],
        ["negative log-likelihood of a held-out series, nats", several("{:.2f}", "nll"),
         ", ".join(f"{run['nll_true'][0]:.2f}" for run in runs)],
        ["its difference from that of the true intensity", several("{:.4f} ± {:.4f}", "nll_gap"),
         f"{one['divergence_expected']:.4f} (expected)"],
        ["the same by quadrature over all series there may be", several("{:.4f}", "divergence"),
         f"{one['divergence_expected']:.4f} (expected)"],
    ]  # fmt: skip
    return [[one["intensity"], *row] for row in rows]


JUDGED = {
    "nats an event, later part": "nats",
    "correlation of the intensity, seen part": "correlation_inside",
    "the same, later part": "correlation_beyond",
    "rms error of the value, seen part": "value_inside",
    "the same, later part ": "value_beyond",
}
COMPARED = {
    "true parameters of each series": ("references", "truth"),
    "inferred with the true model, from values and events": ("references", "bayes"),
    "latent ODE, trained on values and events": ("joint", None),
    "inferred with the true model, from values alone": ("references", "bayes, values alone"),
    "latent ODE, trained on values, then intensity": ("values alone", None),
    "constant rate": ("references", "constant"),
}


def compared(found: dict, name: str, noise: float, seeds: tuple[int, ...]) -> list[dict]:
    """Return the numbers of one way of prediction, for each seed."""
    run, way = COMPARED[name]
    parts = [found[run_of(run, noise, seed)] for seed in seeds]
    return [part["ways"][way] if way else part for part in parts]


def judged_rows(found: dict, noise: float, seeds: tuple[int, ...]) -> Iterator[list[str]]:
    """Yield a row for each way of prediction: the mean over seeds, and the least and the largest."""
    for name in COMPARED:
        parts = compared(found, name, noise, seeds)
        known = {key: parts[0][key] is not None for key in JUDGED.values()}
        yield [name, *(spread(parts, itemgetter(key), ".3f") if there else "" for key, there in known.items())]


def effective(found: dict, noise: float, seeds: tuple[int, ...]) -> str:
    """Say how many draws of equal weights the weighted ones of the true model are worth."""
    parts = [part for name in list(COMPARED)[1:4:2] for part in compared(found, name, noise, seeds)]
    median, least = (min(part[key] for part in parts) for key in ("draws", "draws_least"))
    return (
        f"The weighted draws of the true model are worth {median:.0f} (median) and at least {least:.0f} draws a series."
    )


def gains(found: dict, noise: float, seeds: tuple[int, ...]) -> Iterator[list[str]]:
    """Yield differences in nats a later event between two ways of prediction, with standard errors over series."""
    names = list(COMPARED)
    for better, worse in ((2, 4), (1, 3), (1, 2), (2, 5)):
        cells = []
        for a, b in zip(*(compared(found, names[i], noise, seeds) for i in (better, worse)), strict=True):
            gaps = np.subtract(a["by_series"], b["by_series"])
            cells.append(f"{np.sum(gaps) / a['events']:.3f} ± {np.std(gaps) * len(gaps) ** 0.5 / a['events']:.3f}")
        yield [f"{names[better]}, minus {names[worse]}", f"{noise}", *cells, *[""] * (len(SEEDS) - len(seeds))]
