"""Figures of the stored curves: sizes of states and batches, and work-precision."""

import pathlib

import matplotlib.pyplot as plt

from benchmarks.figures import legend, write
from benchmarks.report import UNITS, curves_of

# Okabe and Ito, Color universal design, 2008; node_jax is solid, others are dashed
LOOKS = {
    "node_jax": ("#0072B2", "o", "-"),
    "node_jax dopri5": ("#56B4E9", "s", "-"),
    "node_jax Backsolve": ("#003B5C", "v", "-"),
    "node_jax Backsolve dopri5": ("#7A3E6B", "<", "-"),
    "diffrax": ("#000000", "o", "--"),
    "tinydiffeq": ("#009E73", "D", "--"),
    "tinydiffeq forward": ("#8FBC3B", "d", "--"),
    "jax odeint": ("#D55E00", "^", "--"),
    "torchdiffeq": ("#E69F00", "P", "--"),
    "torchode": ("#CC79A7", "X", "--"),
    "scipy": ("#777777", "*", "--"),
}
METHODS = {"heun": "#CC79A7", "bosh3": "#E69F00", "tsit5": "#0072B2", "dopri5": "#009E73", "dopri8": "#D55E00"}
QUANTITIES = {"median_ms": "time, ms", "evaluations": "field evaluations"}
FIGURES = {  # for each group: figure, what it shows
    "dimensions": {
        "benchmark_dimensions": "Time of one solve and of its gradient against the size of the state, float64"
    },
    "batches": {"benchmark_batches": "Time of a batch and of its gradient against the number of lanes, float64"},
    "precision": {
        "precision_time": "Error against time: node_jax and diffrax, methods of order 2 to 8, float64",
        "precision_evaluations": "Error against field evaluations: node_jax and diffrax, order 2 to 8, float64",
        "precision_packages": "Error against time: all packages, their methods of order 5, float64",
    },
}


def chosen(results: list[dict]) -> list[dict]:
    """Return what figures show."""
    return [record for record in results if record["dtype"] == "float64"]


def scaling(results: list[dict]):
    """Time against the point of the curve: a solve, and its gradient."""
    rows = list(dict.fromkeys(record["row"] for record in results))
    figure, panels = plt.subplots(1, 2, figsize=(9, 5.2), sharey=True)
    for row, axes in zip(rows, panels, strict=True):
        some = [record for record in results if record["row"] == row]
        (key,) = some[0]["at"]
        for name, (colour, marker, style) in LOOKS.items():
            known = [(x["at"][key], x["packages"][name]["median_ms"]) for x in some
                     if "median_ms" in x["packages"].get(name, {})]  # fmt: skip
            if known:
                axes.loglog(*zip(*known, strict=True), style, color=colour, marker=marker, fillstyle="none", label=name)
        axes.set_title(row)
        axes.set_xlabel(UNITS[key])
    panels[0].set_ylabel(QUANTITIES["median_ms"])
    all_names(panels)
    legend(figure, panels[0], 4, 0.16)
    return figure


def all_names(panels):
    """Give the first panel an empty line for each name that only another panel has."""
    names = set(panels[0].get_legend_handles_labels()[1])
    for axes in panels[1:]:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            if name not in names:
                names.add(name)
                panels[0].plot([], [], handle.get_linestyle(), color=handle.get_color(), marker=handle.get_marker(),
                               fillstyle="none", label=name)  # fmt: skip


def panels_of(results: list[dict], quantity: str):
    """Return a figure with a panel for each problem, and what each shows."""
    found = curves_of(results, quantity)
    names = list(dict.fromkeys(row for row, _, _ in found))
    figure, panels = plt.subplots(2, 2, figsize=(9, 8.6))
    shown = []
    for name, axes in zip(names, panels.flat, strict=True):
        axes.set_title(name)
        axes.set_xlabel("relative error at the end")
        axes.set_ylabel(QUANTITIES[quantity])
        shown.append((axes, {method: of for (row, _, method), of in found.items() if row == name}))
    return figure, shown


def by_method(results: list[dict], quantity: str):
    """Curves of node_jax and diffrax, a colour for each method."""
    figure, shown = panels_of(results, quantity)
    for axes, methods in shown:
        for method, of in methods.items():
            for package in ("node_jax", "diffrax"):
                _, marker, style = LOOKS[package]
                axes.loglog(*of[package], style, color=METHODS[method], marker=marker if style == "-" else "x",
                            fillstyle="none", label=f"{package} {method}")  # fmt: skip
        axes.invert_xaxis()
    legend(figure, shown[0][0], 5, 0.08)
    return figure


def by_package(results: list[dict], methods=("tsit5", "dopri5")):
    """Curves of all packages, of the first of these methods that each has."""
    figure, shown = panels_of(results, "median_ms")
    for axes, of_method in shown:
        for name, (colour, marker, style) in LOOKS.items():
            curve = next((of_method[m][name] for m in methods if name in of_method.get(m, {})), None)
            if curve is not None:
                axes.loglog(*curve, style, color=colour, marker=marker, fillstyle="none", label=name)
        axes.invert_xaxis()
    legend(figure, shown[0][0], 4, 0.08)
    return figure


def draw(groups: dict, folder: pathlib.Path):
    """Draw all figures."""
    made = {
        "benchmark_dimensions": lambda: scaling(chosen(groups["dimensions"]["results"])),
        "benchmark_batches": lambda: scaling(chosen(groups["batches"]["results"])),
        "precision_time": lambda: by_method(chosen(groups["precision"]["results"]), "median_ms"),
        "precision_evaluations": lambda: by_method(chosen(groups["precision"]["results"]), "evaluations"),
        "precision_packages": lambda: by_package(chosen(groups["precision"]["results"])),
    }
    write(folder, made)
