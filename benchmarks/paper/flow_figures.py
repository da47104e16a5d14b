"""Figures of the flows: samples and losses of density matching, snapshots and likelihoods of two densities."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.figures import STYLE, plt
from benchmarks.paper import flows, storage

EXTENT = 4.0
COLOURS = {"cnf": "#0072B2", "planar": "#D55E00"}
NAMES = {"cnf": "continuous", "planar": "planar layers"}


def save(name: str, figure) -> None:
    """Write one figure."""
    figure.savefig(storage.FIGURES / f"{name}.png", metadata={"Software": None})
    plt.close(figure)


def grid(log_density, extent: float = EXTENT, points: int = 120) -> np.ndarray:
    """Return a density on a grid, up to its largest value."""
    axis = jnp.linspace(-extent, extent, points)
    rows = jax.lax.map(lambda y: jax.vmap(lambda x: log_density(jnp.stack([x, y])))(axis), axis)
    return np.exp(np.asarray(rows - jnp.max(rows)))


def draw_matching() -> None:
    """Draw samples of every flow beside the density, and losses."""
    found = {name: run["result"] for name, run in storage.runs_of("matching").items()}
    with plt.rc_context({**STYLE, "axes.grid": False}):
        columns = [(kind, width) for kind in flows.ITERATIONS for width in flows.WIDTHS]
        figure, panels = plt.subplots(len(flows.ENERGIES), 1 + len(columns), figsize=(12, 5.6))
        for row, (name, energy) in zip(panels, flows.ENERGIES.items(), strict=True):
            box = (-EXTENT, EXTENT, -EXTENT, EXTENT)
            row[0].imshow(grid(lambda z, energy=energy: -energy(z)), origin="lower", extent=box, cmap="Blues")
            for axes, (kind, width) in zip(row[1:], columns, strict=True):
                samples = np.array(found[f"{name}-{kind}-{width}"]["samples"])
                axes.hist2d(*samples.T, bins=60, range=[box[:2], box[2:]], cmap="Blues")
                axes.set_aspect("equal")
            for axes in row:
                axes.set_xticks([])
                axes.set_yticks([])
        for axes, title in zip(panels[0], ["density", *(f"{NAMES[k]}, {w}" for k, w in columns)], strict=True):
            axes.set_title(title, fontsize=8)
        figure.tight_layout()
        save("paper_matching", figure)
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, 3, figsize=(12, 3.6), sharey=True)
        for axes, name in zip(panels, flows.ENERGIES, strict=True):
            for kind, colour in COLOURS.items():
                kls = [found[f"{name}-{kind}-{width}"]["kl"] for width in flows.WIDTHS]
                axes.loglog(flows.WIDTHS, kls, "o-", color=colour, fillstyle="none", label=NAMES[kind])
            axes.set_title(name)
            axes.set_xlabel("units or layers")
        panels[0].set_ylabel("KL(q || p), nats")
        panels[0].legend()
        figure.tight_layout()
        save("paper_matching_kl", figure)


def draw_likelihood() -> None:
    """Draw snapshots of two flows on their way, and the distance from the entropy against the time of training."""
    runs = storage.runs_of("likelihood")
    found = {(run["result"]["density"], run["result"]["kind"]): run["result"] for run in runs.values()}
    with plt.rc_context({**STYLE, "axes.grid": False}):
        figure, panels = plt.subplots(2, len(flows.PARTS), figsize=(12, 4.4))
        for row, name in zip(panels, flows.DENSITIES, strict=True):
            path = np.array(found[name, "concat-squash"]["path"])
            for i, axes in enumerate(row):
                axes.plot(*path[:, i].T, ".", color="#0072B2", markersize=1)
                axes.set_xlim(-3, 3)
                axes.set_ylim(-3, 3)
                axes.set_xticks([])
                axes.set_yticks([])
                axes.set_aspect("equal")
                axes.set_title(f"{flows.PARTS[i]:.0%}" if name == "circles" else "")
        figure.tight_layout()
        save("paper_likelihood", figure)
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, 2, figsize=(11, 4), sharey=True)
        for axes, name in zip(panels, flows.DENSITIES, strict=True):
            for (density, kind), result in found.items():
                if density == name:
                    _, seconds, nats = np.array(result["marks"]).T
                    axes.loglog(seconds, nats - result["entropy"], label=kind)
            axes.set_title(name)
            axes.set_xlabel("seconds of training")
        panels[0].set_ylabel("nats above the entropy")
        panels[1].legend(fontsize=8)
        figure.tight_layout()
        save("paper_likelihood_time", figure)
