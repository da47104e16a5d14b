"""The figure of a fit. Needs matplotlib, which is imported when one is drawn."""

import importlib
from typing import Any

import jax.numpy as jnp
import numpy as np

POINTS = 200


def draw(fit: Any, axes: Any = None) -> Any:
    """Draw what was observed and predicted, with bands."""
    if axes is None:
        try:
            pyplot = importlib.import_module("matplotlib.pyplot")  # only here: it is an optional dependency
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError('plot needs matplotlib: pip install "node-jax[demo]"') from error
        _, axes = pyplot.subplots()
    model, n = fit.model, len(fit.model.ts)
    grid = jnp.linspace(model.t0, model.ts[-1], POINTS)
    band = fit.predict(grid)
    observed = np.where(model.mask, model.observed, np.nan).reshape(n, -1)
    mean, low, high = (np.asarray(x).reshape(POINTS, -1) for x in (band.mean, band.low, band.high))
    for i in range(observed.shape[1]):
        (line,) = axes.plot(grid, mean[:, i], label="fit" if observed.shape[1] == 1 else f"fit {i}")
        axes.fill_between(grid, low[:, i], high[:, i], color=line.get_color(), alpha=0.2, lw=0)
        axes.plot(model.ts, observed[:, i], ls="", marker="o", color=line.get_color())
    axes.set_xlabel("t")
    axes.legend(frameon=False)
    return axes
