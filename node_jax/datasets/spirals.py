"""Spirals in the plane, seen at irregular times: the data of the latent ODE of Chen et al., 2018, section 5."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from node_jax.nn.shapes import check_sizes

WINDOW = 100  # equally spaced times of which some are seen
LENGTH = 500  # points of a spiral, as in torchdiffeq's example
SPACING = 6 * math.pi / (LENGTH - 1)
RATE = 0.3  # radius a radian


class Spirals(NamedTuple):
    """Spirals, of which a window is seen in part and with noise.

    Attributes:
        ts: times that are seen, `(n, points)`, sorted, from 0 on.
        ys: what is seen there, `(n, points, 2)`, with noise.
        grid: the equally spaced times of the window and as many beyond it, `(200,)`.
        truth: the curve at these times without noise, `(n, 200, 2)`.
        clockwise: direction, `(n,)`; bool.

    Example:
        >>> import jax
        >>> data = spirals(4, points=30, key=jax.random.key(0))
        >>> data.grid.shape, data.clockwise.shape
        ((200,), (4,))
    """

    ts: jax.Array
    ys: jax.Array
    grid: jax.Array
    truth: jax.Array
    clockwise: jax.Array


def spirals(n: int, *, points: int = 100, noise: float = 0.1, beyond: bool = True, key: jax.Array) -> Spirals:
    """Return spirals that begin anywhere, half of them clockwise.

    The paper leaves the shape open. These are the curves of torchdiffeq's example: a radius of 0.3 a radian, shifted to
    (5, 0), counterclockwise; and one of `0.3 * 50 / (6 pi + 1 - angle)`, shifted to (-5, 0), clockwise. A curve has 500
    equally spaced times, and a window 100 of them.

    Args:
        n: number of spirals.
        points: how many of the 100 times of the window are seen, drawn without replacement.
        noise: standard deviation of the normal noise.
        beyond: whether each curve has another 100 times behind its window. If not, windows lie anywhere, up to the end
            of a curve, and `truth` is NaN behind it.
        key: JAX random key.

    Returns:
        `Spirals`.

    Raises:
        ValueError: if `points` is not from 1 to 100.

    Example:
        >>> import jax
        >>> data = spirals(4, points=30, key=jax.random.key(0))
        >>> data.ts.shape, data.ys.shape, data.truth.shape
        ((4, 30), (4, 30, 2), (4, 200, 2))
    """
    check_sizes(n=n, points=points)
    if points > WINDOW:
        raise ValueError(f"points must be at most {WINDOW}, the times of a window, got {points}")
    keys = jax.random.split(key, 4)
    clockwise = jnp.arange(n) % 2 == 0
    clockwise = jax.random.permutation(keys[0], clockwise)
    starts = jax.random.randint(keys[1], (n, 1), 0, LENGTH - (2 if beyond else 1) * WINDOW)
    places = starts + jnp.arange(2 * WINDOW)[None]
    truth = jnp.where(clockwise[:, None, None], _clockwise(places * SPACING), _counterclockwise(places * SPACING))
    truth = jnp.where((places < LENGTH)[..., None], truth, jnp.nan)
    chosen = jax.vmap(lambda k: jnp.sort(jax.random.permutation(k, WINDOW)[:points]))(jax.random.split(keys[2], n))
    grid = jnp.arange(2 * WINDOW) * SPACING
    seen = jnp.take_along_axis(truth, chosen[:, :, None], axis=1)
    ys = seen + noise * jax.random.normal(keys[3], seen.shape)
    return Spirals(grid[chosen], ys, grid, truth, clockwise)


def _counterclockwise(angles: jax.Array) -> jax.Array:
    radii = RATE * angles
    return jnp.stack([radii * jnp.cos(angles) + 5.0, radii * jnp.sin(angles)], axis=-1)


def _clockwise(angles: jax.Array) -> jax.Array:
    angles = 6 * math.pi + 1.0 - angles
    radii = RATE * 50 / angles
    return jnp.stack([radii * jnp.cos(angles) - 5.0, radii * jnp.sin(angles)], axis=-1)
