"""Figures of the nets on images: error over epochs, and figure 3 of the paper."""

import numpy as np

from benchmarks.figures import plt
from benchmarks.paper import storage
from benchmarks.paper.drawing import COLOURS, draw


def draw_images() -> None:
    """Draw what is stored of the nets."""
    draw({"paper_images": epochs})


def draw_accuracy() -> None:
    """Draw what is stored of figure 3."""
    draw({"paper_accuracy": figure_3})


def epochs():
    """Test error and evaluations after each epoch, a line for each seed."""
    results = list(storage.results_of("images").values())
    widths = sorted({x["channels"] for x in results})
    figure, panels = plt.subplots(1, 1 + len(widths), figsize=(4 * (1 + len(widths)), 3.6))
    for width, axes in zip(widths, panels, strict=False):
        for kind, colour in zip(("ODE-Net", "RK-Net", "ResNet"), COLOURS, strict=False):
            some = [x["history"] for x in results if (x["kind"], x["channels"]) == (kind, width)]
            for i, history in enumerate(some):
                axes.semilogy([x["epoch"] for x in history], [100 * x["error"] for x in history], "o-", color=colour,
                              fillstyle="none", label=None if i else kind)  # fmt: skip
                if kind != "ResNet":
                    panels[-1].plot([x["epoch"] for x in history], [x["nfe"] for x in history], "o-", color=colour,
                                    fillstyle="none", label=None if i else f"{kind}, {width} channels",
                                    alpha=0.4 + 0.6 * (width == widths[-1]))  # fmt: skip
        axes.set_title(f"{width} channels")
        axes.set_xlabel("epoch")
        axes.set_ylabel("test error, %")
        axes.legend()
    panels[-1].set_title("cost of a solve")
    panels[-1].set_xlabel("epoch")
    panels[-1].set_ylabel("evaluations forward")
    panels[-1].set_ylim(bottom=20)
    panels[-1].legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    return figure


def figure_3():
    """Error against evaluations, time against evaluations, the way back against the way forward, and training."""
    found = storage.results_of("accuracy")["figure-3"]
    figure, panels = plt.subplots(1, 4, figsize=(16, 3.8))
    for name, colour in zip(found["fits"], COLOURS, strict=False):
        rows = [row for row in found["rows"] if row["method"] == name]
        nfe = np.array([row["nfe"] for row in rows])
        panels[0].loglog(nfe, [row["error"] for row in rows], "o-", color=colour, fillstyle="none", label=name)
        panels[1].plot(nfe, [1e3 * row["seconds"] for row in rows], "o", color=colour, fillstyle="none", label=name)
        line = found["fits"][name]
        panels[1].plot(nfe, 1e3 * (line["slope"] * nfe + line["intercept"]), "-", color=colour, linewidth=0.8)
    adjoints = dict.fromkeys(row["adjoint"] for row in found["back"])
    for name, colour, marker in zip(adjoints, COLOURS, "os^vD", strict=False):
        rows = [row for row in found["back"] if row["adjoint"] == name]
        panels[2].plot([row["forward"] for row in rows], [row["pulled"] for row in rows], marker, color=colour,
                       fillstyle="none", label=name)  # fmt: skip
    ends = [0, max(row["forward"] for row in found["back"])]
    panels[2].plot(ends, ends, "--", color="0.6", linewidth=1, label="as many as forward")
    panels[2].plot(ends, [0.5 * x for x in ends], ":", color="0.6", linewidth=1, label="half as many")
    panels[3].plot([x["epoch"] for x in found["history"]], [x["nfe"] for x in found["history"]], "o-",
                   color=COLOURS[0], fillstyle="none")  # fmt: skip
    labels = (
        ("evaluations forward", "error of the state, relative"),
        ("evaluations forward", "milliseconds, 500 images"),
        ("evaluations forward", "vector-Jacobian products back"),
        ("epoch", "evaluations forward"),
    )
    for axes, title, (x, y) in zip(panels, "abcd", labels, strict=True):
        axes.set_title(title, loc="left", fontweight="bold")
        axes.set_xlabel(x)
        axes.set_ylabel(y)
    for axes in panels[:3]:
        axes.legend(fontsize=8)
    panels[0].set_xticks([20, 50, 100, 200], ["20", "50", "100", "200"])
    panels[0].set_xticks([], minor=True)
    figure.tight_layout()
    return figure
