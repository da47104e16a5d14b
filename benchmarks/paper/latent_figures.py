"""Figures of the latent ODE: reconstructions, predictions both ways in time, and a way through the latent space."""

import numpy as np

from benchmarks.figures import plt
from benchmarks.paper import drawing, latent

POINTS, NOISE, SEED = 30, 0.1, 0  # of the run that is drawn


def draw() -> None:
    """Draw both figures from the checkpoint of one run, which goes on from its end."""
    data = latent.data_of(POINTS, NOISE, SEED)
    run = latent.name_of(POINTS, NOISE, SEED, "latent")
    found, model, _ = latent.latent_of(data, SEED, run, latent.UPDATES)
    drawing.draw(
        {"paper_spirals": lambda: spirals(data.test, found, model), "paper_traversal": lambda: flip(data.test, model)}
    )


def spirals(test, found, model):
    """Four spirals, two of each direction."""
    chosen = [int(i) for way in (True, False) for i in np.flatnonzero(np.asarray(test.clockwise) == way)[:2]]
    before = -test.grid[1:60]
    figure, panels = plt.subplots(1, 4, figsize=(12, 3.6))
    for i, axes in zip(chosen, panels, strict=True):
        earlier = model.predict(test.ts[i], test.ys[i], None, before)
        axes.plot(*(latent.SCALE * test.truth[i]).T, color="0.7", linewidth=4, label="curve")
        axes.plot(*(latent.SCALE * test.ys[i]).T, "o", color="black", markersize=3, label="seen")
        axes.plot(*(latent.SCALE * found[i, :100]).T, color="#0072B2", label="reconstructed")
        axes.plot(*(latent.SCALE * found[i, 100:]).T, color="#D55E00", label="predicted")
        axes.plot(*(latent.SCALE * earlier).T, "--", color="#009E73", label="before the window")
        low, high = (latent.SCALE * end(test.truth[i], axis=0) for end in (np.min, np.max))
        axes.set(xlim=(low[0] - 1, high[0] + 1), ylim=(low[1] - 1, high[1] + 1), box_aspect=1)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    figure.legend(handles, labels, loc="lower center", ncols=5)
    return figure


def flip(test, model):
    """Paths from latent states on the way between two spirals of opposite directions."""
    ends = [int(np.flatnonzero(np.asarray(test.clockwise) == way)[0]) for way in (True, False)]
    first, last = (model.encode(test.ts[i], test.ys[i])[0] for i in ends)
    figure, panels = plt.subplots(1, 7, figsize=(14, 2.4))
    for part, axes in zip(np.linspace(0.0, 1.0, 7), panels, strict=True):
        path = latent.SCALE * model.decode((1 - part) * first + part * last, test.grid)
        axes.scatter(*path.T, c=np.arange(len(path)), cmap="viridis", s=4)
        axes.set_aspect("equal", "datalim")
        axes.set_title(f"{part:.2f}")
    figure.tight_layout()
    return figure
