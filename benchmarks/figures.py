"""Figures of what `benchmarks.adjoints` stored."""

import functools
import pathlib

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter

# Okabe and Ito, Color universal design, 2008; ours are solid lines, those of others dashed
LOOKS = {
    "Checkpointed()": ("#0072B2", "o", "-"),
    "Checkpointed(checkpoints=16)": ("#56B4E9", "s", "-"),
    "Checkpointed, slots of diffrax": ("#003B5C", "h", "-"),
    "Backsolve()": ("#D55E00", "v", "-"),
    "Interpolated()": ("#009E73", "D", "-"),
    "Reversible()": ("#CC79A7", "^", "-"),
    "Reversible(restart=None)": ("#7A3E6B", "<", "-"),
    "Direct()": ("#E69F00", "P", "-"),
    "diffrax default": ("#000000", "o", "--"),
    "diffrax checkpoints=16": ("#777777", "s", "--"),
    "diffrax BacksolveAdjoint": ("#8B4513", "v", "--"),
}
TOP = 1e3  # errors beyond are drawn here, filled
STYLE = {
    "figure.dpi": 100,
    "font.size": 10,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "lines.markersize": 5,
    "lines.linewidth": 1.4,
}


def write(folder: pathlib.Path, figures: dict) -> None:
    """Write figures, each by name a function without arguments that returns one."""
    folder.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        for name, make in figures.items():
            figure = make()
            figure.savefig(folder / f"{name}.png", metadata={"Software": None})
            plt.close(figure)


def line(axes, strategy: str, x, y):
    """Draw one strategy; values that are missing leave a gap."""
    colour, marker, style = LOOKS[strategy]
    pairs = [(a, float("nan") if b is None else b) for a, b in zip(x, y, strict=True)]
    axes.loglog(*zip(*pairs, strict=True), style, color=colour, marker=marker, label=strategy, fillstyle="none")


def legend(figure, axes, columns: int, room: float):
    """Put one legend for all panels below them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.tight_layout(rect=(0, room, 1, 1))
    figure.legend(handles, labels, loc="lower center", ncols=columns, fontsize=9)


def error_figure(rows: list[dict]):
    """Error of the gradient against tolerance, a panel for each problem."""
    names = list(dict.fromkeys(row["problem"] for row in rows))
    figure, panels = plt.subplots(2, 2, figsize=(8, 7.4), sharex=True)
    for name, axes in zip(names, panels.flat, strict=True):
        for row in rows:
            if row["problem"] == name:
                known = [None if e is None or e > TOP else e for e in row["errors"]]
                lost = [x for x, e in zip(row["tolerances"], known, strict=True) if e is None]
                line(axes, row["strategy"], row["tolerances"], known)
                colour, marker, style = LOOKS[row["strategy"]]
                size = 10 if style == "-" else 5  # one within the other
                for artist in axes.plot(lost, [TOP] * len(lost), marker, color=colour, markersize=size, clip_on=False):
                    artist.set_in_layout(False)
        axes.set_title(name, pad=10)
        axes.set_ylim(1e-11, TOP)
    panels[0, 0].invert_xaxis()
    for axes in panels[1]:
        axes.set_xlabel("rtol = atol")
    for axes in panels[:, 0]:
        axes.set_ylabel("relative error of the gradient")
    legend(figure, panels[0, 0], 3, 0.08)
    return figure


def steps_figure(rows: list[dict], quantity: str, label: str, scale: float = 1.0):
    """One quantity against the number of steps: fixed steps, and adaptive ones with a bound."""
    figure, panels = plt.subplots(1, 2, figsize=(8, 5.4), sharey=True)
    titles = {"Fixed": ("Fixed(n)", "n, steps"), "Adaptive": ("Adaptive, max_steps=n", "n, of which half are taken")}
    for (mode, (title, below)), axes in zip(titles.items(), panels, strict=True):
        for strategy in LOOKS:
            some = [row for row in rows if row["steps"] == mode and row["strategy"] == strategy]
            values = [row.get(quantity) for row in some]
            if some:
                line(axes, strategy, [row["n"] for row in some], [None if v is None else scale * v for v in values])
        axes.set_title(title)
        axes.set_xlabel(below)
    panels[0].set_ylabel(label)
    legend(figure, panels[0], 3, 0.2)
    return figure


def width_figure(rows: list[dict]):
    """Time and memory of a gradient against the number of parameters."""
    figure, panels = plt.subplots(1, 2, figsize=(8, 4.2))
    for axes, quantity, label, scale in (
        (panels[0], "median_ms", "time of one gradient, ms", 1.0),
        (panels[1], "temporary_bytes", "temporary memory, MiB", 2.0**-20),
    ):
        for strategy in LOOKS:
            some = [row for row in rows if row["strategy"] == strategy]
            if some:
                line(axes, strategy, [row["parameters"] for row in some], [scale * row[quantity] for row in some])
        axes.set_xlabel("shared parameters")
        axes.set_ylabel(label)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    legend(figure, panels[0], 3, 0.08)
    return figure


def draw(parts: dict, folder: pathlib.Path):
    """Draw all figures whose parts are stored."""
    figures = {
        "gradient_error": ("error", error_figure),
        "gradient_memory": ("steps", lambda rows: steps_figure(rows, "temporary_bytes", "temporary memory, bytes")),
        "gradient_time": ("steps", lambda rows: steps_figure(rows, "median_ms", "time of one gradient, ms")),
        "gradient_parameters": ("width", width_figure),
    }
    made = {name: functools.partial(make, parts[part]["results"]) for name, (part, make) in figures.items()
            if part in parts}  # fmt: skip
    write(folder, made)
