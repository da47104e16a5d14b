"""The fields of `problems` once more, for PyTorch and NumPy: a state, or a batch of states along the first axis."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from benchmarks import problems


class Arrays(NamedTuple):
    """What a field needs of NumPy or PyTorch: stack components along the last axis, and tanh."""

    pack: Callable
    tanh: Callable
    roll: Callable


TORCH = Arrays(lambda parts: torch.stack(parts, -1), torch.tanh, lambda z: torch.roll(z, 1, -1))
NUMPY = Arrays(np.array, np.tanh, lambda z: np.roll(z, 1))


def lotka_volterra(z, t, theta, xp):
    """Predator and prey."""
    x, y = z[..., 0], z[..., 1]
    a, b, c, d = (theta[..., i] for i in range(4))
    return xp.pack([a * x - b * x * y, -c * y + d * x * y])


def lorenz(z, t, rho, xp):
    """Lorenz's convection."""
    x, y, w = z[..., 0], z[..., 1], z[..., 2]
    return xp.pack([10 * (y - x), x * (rho - w) - y, x * y - 8 / 3 * w])


def van_der_pol(z, t, mu, xp):
    """Van der Pol's oscillator."""
    x, v = z[..., 0], z[..., 1]
    return xp.pack([v, mu * (1 - x**2) * v - x])


def ring(z, t, theta, xp):
    """Each unit driven by its neighbour."""
    return xp.tanh(theta * xp.roll(z)) - 0.1 * z


def network(z, t, theta, xp):
    """A tanh network."""
    (w1, b1), (w2, b2), (w3, b3) = theta
    return xp.tanh(xp.tanh(z @ w1.T + b1) @ w2.T + b2) @ w3.T + b3


def kepler(z, t, theta, xp):
    """Two bodies."""
    x, y, u, v = (z[..., i] for i in range(4))
    cube = (x * x + y * y) ** 1.5
    return xp.pack([u, v, -x / cube, -y / cube])


def arenstorf(z, t, theta, xp):
    """Three bodies, one without mass; `theta` is the mass of the moon."""
    x, y, u, v = (z[..., i] for i in range(4))
    d1, d2 = ((x + theta) ** 2 + y**2) ** 1.5, ((x - 1 + theta) ** 2 + y**2) ** 1.5
    a = x + 2 * v - (1 - theta) * (x + theta) / d1 - theta * (x - 1 + theta) / d2
    return xp.pack([u, v, a, y - 2 * u - (1 - theta) * y / d1 - theta * y / d2])


TWINS = {
    problems.lotka_volterra: lotka_volterra,
    problems.lorenz: lorenz,
    problems.van_der_pol: van_der_pol,
    problems.kepler: kepler,
    problems.arenstorf: arenstorf,
    problems.ring: ring,
    problems.network: network,
    problems.networks: network,
}
