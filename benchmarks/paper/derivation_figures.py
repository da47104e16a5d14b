"""Figures of the derivations."""

import functools

import numpy as np

from benchmarks.figures import plt
from benchmarks.paper import drawing
from benchmarks.paper.derivations import depth_field

COLOURS = drawing.COLOURS[:6]  # one for each adjoint


def draw(found: dict) -> None:
    """Draw every figure."""
    made = {
        "paper_depth": depth, "paper_euler": euler, "paper_system": system, "paper_memory": memory,
        "paper_tolerance": tolerance,
    }  # fmt: skip
    drawing.draw({name: functools.partial(make, found) for name, make in made.items()})


def depth(found: dict):
    """Layers of a residual network beside a continuous depth; circles where the field is evaluated."""
    part = found["depth"]
    figure, panels = plt.subplots(1, 2, figsize=(9, 5), sharey=True)
    ts, zs = np.meshgrid(np.linspace(0, part["depth"], 21), np.linspace(-5, 5, 21))
    slopes = np.asarray(depth_field(zs, ts, None))
    for axes, times, values in ((panels[0], np.floor(ts), zs), (panels[1], ts, zs)):
        arrows = np.asarray(depth_field(values, times, None)) if axes is panels[0] else slopes
        axes.quiver(values, ts, arrows, np.ones_like(arrows), color="0.8", angles="xy", width=0.003)
        axes.set_xlabel("state")
    for colour, layers, path, points in zip(COLOURS, part["layers"], part["paths"], part["points"], strict=False):
        panels[0].plot(layers, range(len(layers)), "-", color=colour)
        panels[0].plot(layers, range(len(layers)), "o", color=colour, fillstyle="none")
        panels[1].plot(path, part["times"], "-", color=colour)
        times, states = np.array(points).T
        panels[1].plot(states, times, "o", color=colour, fillstyle="none", markersize=4)
    panels[0].set_title("residual network: one evaluation a layer")
    panels[1].set_title("ODE: evaluations where the solver wants them")
    panels[0].set_ylabel("depth")
    return figure


def euler(found: dict):
    """Residual blocks against the solution, and their gradient against that of the solution."""
    figure, axes = plt.subplots(figsize=(6, 4.5))
    for colour, name, label in (
        (COLOURS[0], "residual network", "state of residual blocks"),
        (COLOURS[1], "backpropagation", "gradient by backpropagation through them"),
    ):
        part = found[name]
        axes.loglog(part["layers"], part["errors"], "o-", color=colour, fillstyle="none",
                    label=f"{label}: slope {part['slope']:.2f}")  # fmt: skip
    axes.set_xlabel("layers")
    axes.set_ylabel("error against the solution of the ODE")
    axes.legend(frameon=False)
    return figure


def system(found: dict):
    """The pattern of the system of all steps."""
    part = found["linear system"]
    figure, axes = plt.subplots(figsize=(4.5, 4.5))
    axes.imshow(part["pattern"], cmap="Greys", interpolation="nearest")
    axes.set_title(f"{part['states']} states of 12 steps")
    axes.set_xticks([])
    axes.set_yticks([])
    return figure


def memory(found: dict):
    """Memory against the number of steps."""
    part = found["memory"]
    figure, axes = plt.subplots(figsize=(6, 4.5))
    for colour, (name, sizes) in zip(COLOURS, part["bytes"].items(), strict=True):
        axes.loglog(part["steps"], sizes, "o-", color=colour, fillstyle="none", label=name)
    axes.set_xlabel("steps")
    axes.set_ylabel("temporary memory of a gradient, bytes")
    axes.legend(frameon=False)
    return figure


def tolerance(found: dict):
    """Error of the gradient against the tolerance."""
    part = found["tolerance"]
    figure, axes = plt.subplots(figsize=(6, 4.5))
    for colour, (name, errors) in zip(COLOURS, part["errors"].items(), strict=False):
        axes.loglog(part["tolerances"], errors, "o-", color=colour, fillstyle="none", label=name)
    axes.invert_xaxis()
    axes.set_xlabel("tolerance")
    axes.set_ylabel("relative error of the gradient")
    axes.legend(frameon=False)
    return figure
