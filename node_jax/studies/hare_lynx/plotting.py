"""The figure of the main job. Needs matplotlib, which `import node_jax` does not."""

import os
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

HARE, LYNX, OTHER, INK, SHADE = "#c8553d", "#1f6f8b", "#6b6b6b", "#222222", "#f1ece2"


class Curve(NamedTuple):
    """Log populations of the members `(members, n, 2)` and their median `(n, 2)` at years `(n,)`."""

    years: np.ndarray
    members: np.ndarray
    median: np.ndarray


class Picture(NamedTuple):
    """Everything that the figure shows; populations are logarithms of thousands."""

    years: np.ndarray  # (n,)
    logs: np.ndarray  # (n, 2)
    trained: int  # years seen
    network: Curve
    classical: Curve
    losses: np.ndarray  # (updates, members)
    classical_losses: np.ndarray  # (updates, members)
    nfe: np.ndarray  # (updates, members)
    stage: int  # update at which all years came in
    field: Any  # (m, 2) -> (m, 2): growth rates
    orbit: np.ndarray  # (n, 2): one member
    steps: np.ndarray  # (n, 2): its accepted steps
    evaluations: np.ndarray  # (m, 2): where its field was evaluated
    captions: tuple[str, str, str]  # train, held out, gradient


def draw(picture: Picture, path: str | os.PathLike) -> None:
    """Draw the figure and write it as PNG.

    Args:
        picture: what to show.
        path: file to write.
    """
    engine = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12, wspace=0.04, hspace=0.04)
    figure = Figure(figsize=(13.0, 8.6), dpi=130, layout=engine, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 12, height_ratios=(1.0, 1.05))
    figure.suptitle(
        "A neural ODE learns the hare and lynx cycle from fifteen years of furs",
        fontsize=16, fontweight="bold", color=INK, x=0.015, ha="left",
    )  # fmt: skip
    _series(figure.add_subplot(grid[0, :]), picture)
    _portrait(figure.add_subplot(grid[1, :6]), picture)
    right = grid[1, 6:].subgridspec(2, 1)
    losses = figure.add_subplot(right[0])
    _losses(losses, picture)
    _evaluations(figure.add_subplot(right[1], sharex=losses), picture)
    losses.tick_params(labelbottom=False)
    figure.savefig(path)


def _plain(axes: Axes, title: str) -> None:
    """Give axes the common look."""
    axes.set_title(title, loc="left", fontsize=11.5, fontweight="bold", color=INK, pad=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(colors="#444444", labelsize=9)


def _thousands(axis: Any, ticks: tuple[int, ...]) -> None:
    """Label an axis of logarithms in thousands of pelts."""
    axis.set_ticks(np.log(ticks))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{np.exp(x):g}"))


def _series(axes: Axes, picture: Picture) -> None:
    _plain(axes, "Observed and learned populations")
    start, end = picture.years[picture.trained - 1] + 0.5, picture.years[-1] + 0.4
    axes.axvspan(start, end, color=SHADE, zorder=0)
    for i, (name, color) in enumerate((("hare", HARE), ("lynx", LYNX))):
        low, high = np.nanpercentile(picture.network.members[..., i], (0, 100), axis=0)
        axes.fill_between(picture.network.years, low, high, color=color, alpha=0.22, lw=0)
        axes.plot(picture.network.years, picture.network.median[:, i], color=color, lw=2.2, label=f"{name}, network")
        axes.plot(
            picture.classical.years, picture.classical.median[:, i], color=color, lw=1.2, ls=(0, (4, 2)),
            alpha=0.85, label=f"{name}, Lotka-Volterra",
        )  # fmt: skip
        seen = slice(0, picture.trained)
        dots = {"ls": "", "marker": "o", "ms": 6.5, "mec": color, "mew": 1.6, "zorder": 5}
        axes.plot(picture.years[seen], picture.logs[seen, i], mfc=color, label=f"{name}, seen", **dots)
        held = slice(picture.trained, None)
        axes.plot(picture.years[held], picture.logs[held, i], mfc="white", label=f"{name}, held out", **dots)
    axes.set_xlim(picture.years[0] - 0.4, end)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, np.log(2.0)) - 0.1, min(high, np.log(200.0)) + 0.75)
    _thousands(axes.yaxis, (3, 5, 10, 20, 50, 100))
    axes.set_ylabel("thousands of pelts", color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=21))
    for x, align, text in (
        (picture.years[0], "left", picture.captions[0]),
        (start + 0.1, "left", picture.captions[1]),
    ):
        axes.text(
            x,
            0.985,
            text,
            transform=axes.get_xaxis_transform(),
            ha=align,
            va="top",
            fontsize=9,
            color="#555555",
        )
    axes.legend(ncols=1, fontsize=8.5, frameon=False, loc="upper left", bbox_to_anchor=(1.005, 1.0), borderaxespad=0.0)


def _portrait(axes: Axes, picture: Picture) -> None:
    _plain(axes, "Learned vector field, and where the solver evaluated it")
    points = np.concatenate([picture.logs, picture.orbit])
    low, high = points.min(axis=0) - 0.35, points.max(axis=0) + 0.35
    xs, ys = (np.linspace(low[i], high[i], 40) for i in range(2))
    x, y = np.meshgrid(xs, ys)
    slopes = np.asarray(picture.field(np.stack([x.ravel(), y.ravel()], axis=1))).reshape(*x.shape, 2)
    u, v = slopes[..., 0], slopes[..., 1]
    speed = np.hypot(u, v)
    shade = axes.pcolormesh(x, y, speed, cmap="Greys", vmin=0, vmax=3.5 * speed.max(), shading="gouraud", zorder=0)
    shade.set_rasterized(True)
    axes.streamplot(xs, ys, u, v, color="#9a9a9a", linewidth=0.7, density=1.1, arrowsize=0.8, zorder=1)
    axes.plot(*picture.orbit.T, color="#7b4fa3", lw=2.0, label="orbit of the median seed", zorder=3)
    axes.plot(*picture.evaluations.T, ls="", marker=".", ms=4.5, color=INK, label="field evaluated here", zorder=4)
    axes.plot(
        *picture.steps.T,
        ls="",
        marker="o",
        ms=6,
        mfc="none",
        mec=INK,
        mew=1.0,
        label="accepted step",
        zorder=5,
    )
    seen = picture.logs[: picture.trained]
    axes.plot(*seen.T, ls="", marker="D", ms=5, color="#e0a030", mec="white", mew=0.6, label="seen", zorder=6)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    _thousands(axes.xaxis, (5, 10, 20, 50, 100))
    _thousands(axes.yaxis, (3, 5, 10, 20, 50, 100))
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    axes.set_xlabel("hares, thousands of pelts", color=INK)
    axes.set_ylabel("lynxes, thousands of pelts", color=INK)
    axes.legend(fontsize=8.5, loc="upper left", framealpha=0.92, edgecolor="none")


def _losses(axes: Axes, picture: Picture) -> None:
    _plain(axes, "Mean squared error of the logarithms")
    updates = np.arange(len(picture.losses))
    _band(axes, updates, picture.losses, "#7b4fa3", "network: median and range of 8 seeds")
    _band(
        axes,
        np.arange(len(picture.classical_losses)),
        picture.classical_losses,
        OTHER,
        "Lotka-Volterra: 8 starts",
    )
    axes.set_yscale("log")
    _stage(axes, picture, "all years from here")
    axes.legend(fontsize=8.5, frameon=False, loc="upper right")


def _evaluations(axes: Axes, picture: Picture) -> None:
    _plain(axes, "Field evaluations (NFE) of one forward solve")
    _band(axes, np.arange(len(picture.nfe)), picture.nfe, "#7b4fa3", "network")
    _stage(axes, picture, "")
    axes.set_xlabel("update", color=INK)
    axes.set_ylim(bottom=0)
    axes.text(
        0.99,
        0.06,
        picture.captions[2],
        transform=axes.transAxes,
        ha="right",
        va="bottom",
        fontsize=9,
        color="#555555",
    )


def _stage(axes: Axes, picture: Picture, text: str) -> None:
    axes.axvline(picture.stage, color="#aaaaaa", lw=1.0, ls=(0, (2, 2)))
    axes.text(
        picture.stage,
        0.97,
        f" {text}",
        transform=axes.get_xaxis_transform(),
        fontsize=8.5,
        color="#777777",
        va="top",
    )


def _band(axes: Axes, x: np.ndarray, members: np.ndarray, color: str, label: str) -> None:
    """Draw the median of the members and their range."""
    axes.fill_between(x, np.min(members, axis=1), np.max(members, axis=1), color=color, alpha=0.2, lw=0)
    axes.plot(x, np.median(members, axis=1), color=color, lw=1.4, label=label)
