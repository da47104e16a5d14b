"""The figure of a fit: what was measured, and the curve that was fitted."""

import importlib
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from node_jax.commands.table import Table
from node_jax.files import whole

MOST = 16  # subjects in a figure
POINTS = 200  # of a curve


class Curve(NamedTuple):
    """Times `(m,)`, the curve of each column `(m, columns)`, and ends of its band, if it has one."""

    ts: np.ndarray
    mean: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


def draw(path: Path, table: Table, curves: list[Curve]) -> None:
    """Draw a panel for each column of one series, or for each of several subjects; say so if there is no matplotlib."""
    try:
        figures = importlib.import_module("matplotlib.figure")  # only here: it is an optional dependency
    except ModuleNotFoundError:
        print('No figure: it needs matplotlib (pip install "node-jax[demo]").')
        return
    columns = range(len(table.observed))
    panels = (
        [(0, [j]) for j in columns] if len(curves) == 1 else [(i, list(columns)) for i in range(len(curves))][:MOST]
    )
    across = 1 if len(curves) == 1 else min(4, round(math.sqrt(len(panels))))
    down = math.ceil(len(panels) / across)
    figure = figures.Figure(figsize=(3.2 + 3.2 * across, 0.8 + 2.4 * down), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for axes, (i, shown) in zip(grid, panels, strict=False):
        for j in shown:
            _line(axes, table, i, j, curves[i])
        title = table.observed[shown[0]] if len(curves) == 1 else f"{table.subject} {table.series[i].subject}"
        axes.set(title=title, xlabel=table.time)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    if len(curves) > 1 and len(columns) > 1:
        grid[0].legend(frameon=False)
    if len(curves) > MOST:
        figure.suptitle(f"the first {MOST} of {len(curves)}")
    with whole(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=120)


def _line(axes: Any, table: Table, i: int, j: int, curve: Curve) -> None:
    """Draw points and curve of one column."""
    (line,) = axes.plot(curve.ts, curve.mean[:, j], label=table.observed[j])
    color = line.get_color()
    axes.plot(table.series[i].ts, table.series[i].values[:, j], ls="", marker="o", ms=3, color=color)
    if curve.low is not None and curve.high is not None:
        axes.fill_between(curve.ts, curve.low[:, j], curve.high[:, j], color=color, alpha=0.2, lw=0)
