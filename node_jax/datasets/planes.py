"""Densities in the plane that are known: what a flow can be trained on and judged by."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from node_jax.types import AnyArray

_NODES = 400  # of the quadrature along an arc


def _normal(squares: jax.Array, noise: float) -> jax.Array:
    """Return the log-density of a normal distribution in the plane at squared distances."""
    return -0.5 * squares / noise**2 - math.log(2 * math.pi * noise**2)


class Density(eqx.Module):
    """A distribution over the plane with `sample(key, sample_shape)` and `log_prob(x)`; also a base for a `CNF`."""

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Return samples `(*sample_shape, 2)`."""
        count = math.prod(sample_shape)
        return self._draw(key, count).reshape(*sample_shape, 2)

    def _draw(self, key: jax.Array, count: int) -> jax.Array:
        raise NotImplementedError

    def log_prob(self, x: AnyArray) -> jax.Array:
        """Return the log-density at `x` `(2,)`, a scalar in nats."""
        raise NotImplementedError

    def entropy(self, extent: float = 6.0, points: int = 400) -> float:
        """Return the entropy in nats, by the trapezoidal rule on a grid.

        Args:
            extent: the grid reaches from `-extent` to `extent` each way, and must hold nearly all of the mass.
            points: of the grid each way.
        """
        axis = jnp.linspace(-extent, extent, points)

        def row(y):
            logs = jax.vmap(lambda x: self.log_prob(jnp.stack([x, y])))(axis)
            return jnp.sum(jnp.where(logs > -80.0, -logs * jnp.exp(logs), 0.0))

        return float(jnp.sum(jax.lax.map(row, axis)) * (2 * extent / (points - 1)) ** 2)


class Circles(Density):
    """Two circles about the origin, of radius 1 and `factor`, with normal noise.

    The distribution of `sklearn.datasets.make_circles`.

    Args:
        noise: standard deviation of the noise.
        factor: radius of the inner circle.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> density = Circles()
        >>> points = density.sample(jax.random.key(0), (5,))
        >>> jax.vmap(density.log_prob)(points).shape
        (5,)
    """

    noise: float = eqx.field(static=True, default=0.06)
    factor: float = eqx.field(static=True, default=0.5)

    def _draw(self, key, count):
        first, second, third = jax.random.split(key, 3)
        angles = jax.random.uniform(first, (count,), maxval=2 * math.pi)
        radii = jnp.where(jax.random.bernoulli(second, 0.5, (count,)), 1.0, self.factor)
        points = radii[:, None] * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
        return points + self.noise * jax.random.normal(third, (count, 2))

    def log_prob(self, x: AnyArray) -> jax.Array:
        """Return the log-density at `x` `(2,)`, a scalar in nats: a closed form with a Bessel function."""
        square = jnp.sum(x**2)
        distance = jnp.sqrt(jnp.where(square > 0, square, jnp.finfo(square.dtype).tiny))  # has a derivative at 0
        logs = [
            _normal((distance - radius) ** 2, self.noise)
            + jnp.log(jax.scipy.special.i0e(distance * radius / self.noise**2))
            for radius in (1.0, self.factor)
        ]
        return jnp.logaddexp(*logs) - math.log(2.0)


class Moons(Density):
    """Two half circles that reach into each other, with normal noise.

    The distribution of `sklearn.datasets.make_moons`.

    Args:
        noise: standard deviation of the noise; the density of less than 0.02 is not resolved.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> density = Moons()
        >>> points = density.sample(jax.random.key(0), (5,))
        >>> jax.vmap(density.log_prob)(points).shape
        (5,)
    """

    noise: float = eqx.field(static=True, default=0.1)

    def _draw(self, key, count):
        first, second, third = jax.random.split(key, 3)
        angles = jax.random.uniform(first, (count,), maxval=math.pi)
        upper, lower = _moons(angles, jnp)
        which = jax.random.bernoulli(second, 0.5, (count, 1))
        return jnp.where(which, upper, lower) + self.noise * jax.random.normal(third, (count, 2))

    def log_prob(self, x: AnyArray) -> jax.Array:
        """Return the log-density at `x` `(2,)`, a scalar in nats: the midpoint rule along both arcs."""
        angles = (np.arange(_NODES) + 0.5) * math.pi / _NODES
        points = np.concatenate(_moons(angles, np))
        squares = jnp.sum((x[None] - points.astype(x.dtype)) ** 2, axis=1)
        return jax.nn.logsumexp(_normal(squares, self.noise)) - math.log(2 * _NODES)


def _moons(angles: Any, xp: Any) -> tuple[Any, Any]:
    """Return the points of both arcs at angles from 0 to pi."""
    cos, sin = xp.cos(angles), xp.sin(angles)
    return xp.stack([cos, sin], axis=1), xp.stack([1.0 - cos, 0.5 - sin], axis=1)


class EightGaussians(Density):
    """Eight normal distributions around a circle.

    Args:
        radius: of the circle.
        noise: standard deviation of each.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> density = EightGaussians()
        >>> points = density.sample(jax.random.key(0), (5,))
        >>> jax.vmap(density.log_prob)(points).shape
        (5,)
    """

    radius: float = eqx.field(static=True, default=2.0)
    noise: float = eqx.field(static=True, default=0.25)

    def _centres(self):
        angles = np.arange(8) * math.pi / 4
        return self.radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)

    def _draw(self, key, count):
        first, second = jax.random.split(key)
        centres = jnp.asarray(self._centres())[jax.random.randint(first, (count,), 0, 8)]
        return centres + self.noise * jax.random.normal(second, (count, 2), centres.dtype)

    def log_prob(self, x: AnyArray) -> jax.Array:
        """Return the log-density at `x` `(2,)`, a scalar in nats."""
        squares = jnp.sum((x[None] - self._centres().astype(x.dtype)) ** 2, axis=1)
        return jax.nn.logsumexp(_normal(squares, self.noise)) - math.log(8.0)


class Checkerboard(Density):
    """The uniform distribution over the dark fields of a board of four by four fields.

    Args:
        extent: the board reaches from `-extent` to `extent` each way.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> density = Checkerboard()
        >>> points = density.sample(jax.random.key(0), (5,))
        >>> jax.vmap(density.log_prob)(points).shape
        (5,)
    """

    extent: float = eqx.field(static=True, default=4.0)

    def _draw(self, key, count):
        first, second, third = jax.random.split(key, 3)
        column = jax.random.randint(first, (count,), 0, 4)
        row = 2 * jax.random.randint(second, (count,), 0, 2) + column % 2
        corner = jnp.stack([column, row], axis=1) + jax.random.uniform(third, (count, 2))
        return self.extent * (corner / 2 - 1.0)

    def log_prob(self, x: AnyArray) -> jax.Array:
        """Return the log-density at `x` `(2,)`, a scalar in nats; minus infinity on light fields."""
        column, row = jnp.floor(2 * (x / self.extent + 1.0))
        inside = jnp.all(jnp.abs(x) < self.extent) & ((column + row) % 2 == 0)
        return jnp.where(inside, -math.log(2 * self.extent**2), -jnp.inf)


def circles(n: int, *, noise: float = 0.06, factor: float = 0.5, key: jax.Array) -> jax.Array:
    """Return points of two circles; their density is `Circles(noise, factor)`.

    Args:
        n: number of points.
        noise: standard deviation of the noise.
        factor: radius of the inner circle.
        key: JAX random key.

    Returns:
        Array `(n, 2)`.

    Example:
        >>> import jax
        >>> circles(100, key=jax.random.key(0)).shape
        (100, 2)
    """
    return Circles(noise, factor).sample(key, (n,))


def moons(n: int, *, noise: float = 0.1, key: jax.Array) -> jax.Array:
    """Return points of two moons; their density is `Moons(noise)`.

    Args:
        n: number of points.
        noise: standard deviation of the noise.
        key: JAX random key.

    Returns:
        Array `(n, 2)`.

    Example:
        >>> import jax
        >>> moons(100, key=jax.random.key(0)).shape
        (100, 2)
    """
    return Moons(noise).sample(key, (n,))


def eight_gaussians(n: int, *, radius: float = 2.0, noise: float = 0.25, key: jax.Array) -> jax.Array:
    """Return points of eight normal distributions; their density is `EightGaussians(radius, noise)`.

    Args:
        n: number of points.
        radius: of the circle on which the distributions lie.
        noise: standard deviation of each.
        key: JAX random key.

    Returns:
        Array `(n, 2)`.

    Example:
        >>> import jax
        >>> eight_gaussians(100, key=jax.random.key(0)).shape
        (100, 2)
    """
    return EightGaussians(radius, noise).sample(key, (n,))


def checkerboard(n: int, *, extent: float = 4.0, key: jax.Array) -> jax.Array:
    """Return points of a checkerboard; their density is `Checkerboard(extent)`.

    Args:
        n: number of points.
        extent: the board reaches from `-extent` to `extent` each way.
        key: JAX random key.

    Returns:
        Array `(n, 2)`.

    Example:
        >>> import jax
        >>> checkerboard(100, key=jax.random.key(0)).shape
        (100, 2)
    """
    return Checkerboard(extent).sample(key, (n,))


def nested_spheres(n: int, *, dim: int = 2, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return points of a ball and of a shell around it, which no neural ODE without augmentation separates.

    The data of Dupont, Doucet and Teh, 2019: a quarter of the points in the ball of radius 0.5, the others in the shell
    between radius 1 and 1.5.

    Args:
        n: number of points.
        dim: number of components.
        key: JAX random key.

    Returns:
        Points `(n, dim)`, and labels `(n,)`: 0 in the ball and 1 in the shell; int32.

    Example:
        >>> import jax
        >>> points, labels = nested_spheres(100, key=jax.random.key(0))
        >>> points.shape, int(labels.max())
        ((100, 2), 1)
    """
    first, second, third = jax.random.split(key, 3)
    directions = jax.random.normal(first, (n, dim))
    directions = directions / jnp.linalg.norm(directions, axis=1, keepdims=True)
    labels = (jax.random.uniform(second, (n,)) >= 0.25).astype(jnp.int32)
    part = jax.random.uniform(third, (n,))
    inner, outer = jnp.where(labels == 1, 1.0, 0.0), jnp.where(labels == 1, 1.5, 0.5)
    radii = (inner**dim + part * (outer**dim - inner**dim)) ** (1.0 / dim)  # uniform in the volume
    return radii[:, None] * directions, labels
