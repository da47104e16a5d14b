"""Figures of the cheaper dynamics: accuracy against evaluations, and nested spheres."""

import statistics

import numpy as np

from benchmarks.figures import plt
from benchmarks.paper import storage, tables
from benchmarks.paper.drawing import COLOURS, draw


def draw_cheaper() -> None:
    """Draw what is stored of the regularizers."""
    draw({"paper_cheaper": pareto})


def draw_spheres() -> None:
    """Draw what is stored of the nested spheres."""
    draw({"paper_spheres": nested})


def pareto():
    """Accuracy and evaluations of each regularizer; a line goes through its weights."""
    results = storage.results_of("cheaper")
    groups = tables.grouped(results, "regularizer", "weight")
    figure, axes = plt.subplots(figsize=(7.5, 4.6))
    for name, colour, marker in zip(dict.fromkeys(key[0] for key in groups), COLOURS, "s^vDPXo", strict=False):
        keys = [key for key in groups if key[0] == name]
        nfe = [statistics.mean(x["test"]["nfe"] for x in groups[key]) for key in keys]
        part = [100 * statistics.mean(x["test"]["accuracy"] for x in groups[key]) for key in keys]
        axes.semilogx(nfe, part, marker, linestyle="-", color=colour, label=name, markersize=7)
        for key in keys:
            axes.semilogx([x["test"]["nfe"] for x in groups[key]],
                          [100 * x["test"]["accuracy"] for x in groups[key]], ".", color=colour, alpha=0.4)  # fmt: skip
    plain = groups["none", 0.0]
    half = statistics.mean(x["test"]["nfe"] for x in plain) / 2
    axes.axvline(half, color="0.6", linestyle="--", linewidth=1)
    axes.axhline(100 * statistics.mean(x["test"]["accuracy"] for x in plain) - 0.5, color="0.6", linestyle="--",
                 linewidth=1)  # fmt: skip
    axes.set_xticks(ticks := (32, 36, 40, 45, 50, 56, 64), [f"{x}" for x in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("evaluations of a solve (dashed: half of those without a regularizer)")
    axes.set_ylabel("test accuracy, % (dashed: 0.5 below)")
    axes.legend(fontsize=8)
    figure.tight_layout()
    return figure


def nested():
    """Points of two spheres with the classes that are predicted, and loss and evaluations over training."""
    results = storage.results_of("spheres")
    figure, panels = plt.subplots(1, 4, figsize=(15, 3.7), layout="constrained")
    for axes, kind in zip(panels, ("plain", "augmented"), strict=False):
        result = results[f"{kind}-0"]
        points, labels = np.array(result["points"]), np.array(result["labels"])
        sides = np.array(result["plane"]).reshape(80, 80)
        axes.imshow(sides, origin="lower", extent=(-2, 2, -2, 2), cmap="coolwarm", vmin=0, vmax=1, alpha=0.5)
        for label, colour in enumerate(("#0072B2", "#D55E00")):
            axes.plot(*points[labels == label].T, ".", color=colour, markersize=3)
        axes.set_title(kind)
        axes.set_aspect("equal")
        axes.grid(False)
    for kind, colour in zip(("plain", "augmented"), COLOURS, strict=False):
        for i, result in enumerate(x for x in results.values() if x["kind"] == kind):
            updates, nfe, loss = np.array(result["history"]).T
            panels[2].semilogy(updates, loss, color=colour, label=None if i else kind)
            panels[3].plot(updates, nfe, color=colour, label=None if i else kind)
    for axes, label in zip(panels[2:], ("loss", "evaluations of a solve"), strict=True):
        axes.set_xlabel("update")
        axes.set_ylabel(label)
        axes.legend()
    return figure
