"""Figures of the flows: samples and losses of density matching, snapshots and likelihoods of two densities."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.figures import plt
from benchmarks.paper import drawing, flows, storage

EXTENT = 4.0  # of the plane of the matched densities
COLOURS = {"cnf": "#0072B2", "hyper": "#56B4E9", "gated": "#009E73", "planar": "#D55E00"}
NAMES = {"cnf": "polynomials", "hyper": "network", "gated": "gates", "planar": "planar layers"}
COMPARED = ("cnf", "planar")  # as in figure 4 of the paper
SMOOTH = 10  # stored losses whose mean is drawn


def grid(log_density, extent: float = EXTENT, points: int = 120) -> np.ndarray:
    """Return a density on a grid, up to its largest value."""
    axis = jnp.linspace(-extent, extent, points)
    rows = jax.lax.map(lambda y: jax.vmap(lambda x: log_density(jnp.stack([x, y])))(axis), axis)
    return np.exp(np.asarray(rows - jnp.max(rows)))


def draw_matching() -> None:
    """Draw what is stored of the density matching."""
    drawing.draw({"paper_matching": matched, "paper_matching_kl": divergences, "paper_matching_losses": losses})


def draw_likelihood() -> None:
    """Draw what is stored of the maximum likelihood."""
    drawing.draw({"paper_likelihood": snapshots, "paper_likelihood_time": times})


def bare(axes) -> None:
    """Take ticks and grid from a panel that shows points."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal")
    axes.grid(False)


def matched():
    """Samples of every flow beside the density."""
    found, box = storage.results_of("matching"), (-EXTENT, EXTENT, -EXTENT, EXTENT)
    columns = [(kind, width) for kind in COMPARED for width in flows.WIDTHS]
    figure, panels = plt.subplots(len(flows.ENERGIES), 1 + len(columns), figsize=(12, 5.6))
    for row, (name, energy) in zip(panels, flows.ENERGIES.items(), strict=True):
        row[0].imshow(grid(lambda z, energy=energy: -energy(z)), origin="lower", extent=box, cmap="Blues")
        for axes, (kind, width) in zip(row[1:], columns, strict=True):
            samples = np.array(found[f"{name}-{kind}-{width}"]["samples"])
            axes.hist2d(*samples.T, bins=60, range=[box[:2], box[2:]], cmap="Blues")
        for axes in row:
            bare(axes)
    for axes, title in zip(panels[0], ["density", *(f"{NAMES[k]}, {w}" for k, w in columns)], strict=True):
        axes.set_title(title, fontsize=8)
    figure.tight_layout()
    return figure


def divergences():
    """Divergence against the number of units or layers."""
    found = storage.results_of("matching")
    figure, panels = plt.subplots(1, 3, figsize=(12, 3.6), sharey=True)
    for axes, name in zip(panels, flows.ENERGIES, strict=True):
        for kind, colour in COLOURS.items():
            kls = [found[f"{name}-{kind}-{width}"]["kl"] for width in flows.WIDTHS]
            axes.loglog(flows.WIDTHS, kls, "o-", color=colour, fillstyle="none", label=NAMES[kind])
        axes.set_title(name)
        axes.set_xticks(flows.WIDTHS, flows.WIDTHS)
        axes.minorticks_off()
        axes.set_xlabel("units or layers")
    panels[0].set_ylabel("KL(q || p), nats")
    panels[0].legend()
    figure.tight_layout()
    return figure


def losses():
    """Smoothed losses over the training, as a part of all iterations."""
    found = storage.results_of("matching")
    figure, panels = plt.subplots(1, 3, figsize=(12, 3.6), sharey=True)
    for axes, name in zip(panels, flows.ENERGIES, strict=True):
        for kind in COMPARED:
            for width, style in zip(flows.WIDTHS, (":", "--", "-"), strict=True):
                values = np.convolve(found[f"{name}-{kind}-{width}"]["losses"], np.full(SMOOTH, 1 / SMOOTH), "valid")
                values = np.maximum(values, 1e-4)
                part, label = np.linspace(0, 1, len(values)), f"{NAMES[kind]}, {width}"
                axes.semilogy(part, values, style, color=COLOURS[kind], label=label, linewidth=1)
        axes.set_title(name)
        axes.set_xlabel("part of the iterations")
    panels[0].set_ylabel(f"KL(q || p), mean of {SMOOTH} batches")
    panels[2].legend(fontsize=8)
    figure.tight_layout()
    return figure


def snapshots():
    """Samples on their way from the base to two densities, the density on the way, and that of planar layers."""
    found = {(x["density"], x["kind"]): x for x in storage.results_of("likelihood").values()}
    box = (-flows.EXTENT, flows.EXTENT, -flows.EXTENT, flows.EXTENT)
    figure, panels = plt.subplots(4, len(flows.PARTS) + 1, figsize=(12, 7.4))
    for (above, below), name in zip(panels.reshape(2, 2, -1), flows.DENSITIES, strict=True):
        result = found[name, "concat-squash"]
        for part, points, plane, axes, under in zip(
            flows.PARTS, np.swapaxes(result["path"], 0, 1), result["planes"], above, below, strict=False
        ):
            axes.plot(*points.T, ".", color="#0072B2", markersize=1)
            axes.set_title(f"{name}, {part:.0%}", fontsize=8)
            image(under, plane, box)
        above[-1].plot(*flows.DENSITIES[name].sample(jax.random.key(0), (1500,)).T, ".", color="black", markersize=1)
        above[-1].set_title("data", fontsize=8)
        image(below[-1], found[name, "planar flow, 64 layers"]["planes"][-1], box)
        below[-1].set_title("planar layers", fontsize=8)
        for axes in (*above, *below):
            axes.set_xlim(*box[:2])
            axes.set_ylim(*box[2:])
            bare(axes)
    figure.tight_layout()
    return figure


def image(axes, plane: list[float], box: tuple) -> None:
    """Show a density that is given by its logarithm on a grid."""
    values = np.exp(np.array(plane).reshape(flows.GRID, flows.GRID))
    axes.imshow(values, origin="lower", extent=box, cmap="Blues", vmax=np.quantile(values, 0.995))


def times():
    """Distance from the entropy against the time of training."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 4), sharey=True)
    for axes, name in zip(panels, flows.DENSITIES, strict=True):
        for result in storage.results_of("likelihood").values():
            if result["density"] == name:
                _, seconds, nats = np.array(result["marks"]).T
                axes.loglog(seconds, nats - result["entropy"], label=result["kind"])
        axes.set_title(name)
        axes.set_xlabel("processor seconds of training")
    panels[0].set_ylabel("nats above the entropy")
    panels[1].legend(fontsize=8)
    figure.tight_layout()
    return figure
