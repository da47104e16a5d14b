"""Draw the figure of the README from what its three scripts compute.

python -m benchmarks.readme_figure
"""

import re

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import figures
from benchmarks.figures import plt
from benchmarks.stored import ROOT

BLUE, RED, GREY = "#0072B2", "#D55E00", "0.6"


def scripts() -> list[dict]:
    """Run the three scripts; return the names that each leaves behind."""
    _, text = (ROOT / "README.md").read_text().split("## Three scripts")
    found = []
    for program in re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        exec(compile(program, "README.md", "exec"), names := {})
        found.append(names)
    return found


def draw():
    """Return the figure: a density, a series and two populations."""
    flow, latent, parameters = scripts()
    figure, panels = plt.subplots(1, 3, figsize=(12, 3.4), width_ratios=(1, 1.3, 1.3), layout="constrained")
    draw_flow(panels[0], flow)
    draw_series(panels[1], latent)
    draw_pelts(panels[2], parameters)
    return figure


def draw_flow(axes, found: dict) -> None:
    """Draw the learned density, and points of the data."""
    extent = (-2.3, 2.5, -1.6, 1.6)
    x, y = jnp.linspace(*extent[:2], 150), jnp.linspace(*extent[2:], 100)
    points = jnp.stack(jnp.meshgrid(x, y), axis=-1)
    density = jnp.exp(jax.vmap(jax.vmap(found["fitted"].model.log_prob))(points))
    axes.imshow(density, origin="lower", extent=extent, cmap="Blues", interpolation="bilinear")
    axes.plot(*found["points"][:150].T, ".", color=RED, markersize=2.5)
    axes.set(title="a continuous flow", xticks=[], yticks=[])
    axes.grid(False)


def draw_series(axes, found: dict) -> None:
    """Draw one series: what was read, what was not, and what is expected."""
    ts, ys, real = found["ts"], found["ys"][:, 0], found["mask"][:, 0]
    read = real & (ts < 4.0)
    axes.axvspan(4.0, 6.0, color="0.95")
    axes.plot(np.linspace(0.0, 6.0, 100), found["path"][:, 0], color=BLUE, label="prediction")
    axes.plot(ts[read], ys[read], "o", color="black", label="read")
    axes.plot(ts[real & ~read], ys[real & ~read], "o", color=RED, fillstyle="none", label="not read")
    axes.set(title="a latent ODE", xlabel="time")
    axes.legend(fontsize=8)


def draw_pelts(axes, found: dict) -> None:
    """Draw the pelts, the fitted curves and their bands."""
    record, band = found["record"], found["band"]
    years = 1900 + band.ts
    for i, (name, colour) in enumerate((("hare", BLUE), ("lynx", RED))):
        axes.fill_between(years, *np.exp([band.low[:, i], band.high[:, i]]), color=colour, alpha=0.2, linewidth=0)
        axes.plot(years, np.exp(band.mean[:, i]), color=colour, label=name)
        axes.plot(record.years, getattr(record, name), "o", color=colour, markersize=4)
    axes.set(title="fitted parameters", yscale="log", ylabel="thousands of pelts", xticks=range(1900, 1921, 5))
    axes.set_yticks([5, 10, 20, 50], labels=["5", "10", "20", "50"])
    axes.minorticks_off()
    axes.legend(fontsize=8)


if __name__ == "__main__":
    figures.write(ROOT / "docs" / "figures", {"readme": draw})
