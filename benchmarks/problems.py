"""The problems of the benchmarks: fields `f(z, t, theta)` in JAX, and the data of ensembles and networks."""

import jax
import jax.numpy as jnp
import numpy as np

RATES = (1.5, 1.0, 3.0, 1.0)  # of Lotka and Volterra
SMALL, LARGE = (2, 64, 64, 2), (32, 128, 128, 32)  # sizes of networks


def lotka_volterra(z, t, theta):
    """Predator and prey."""
    a, b, c, d = theta
    x, y = z
    return jnp.stack([a * x - b * x * y, -c * y + d * x * y])


def lorenz(z, t, rho):
    """Lorenz's convection; `rho` below 1 damps it."""
    x, y, w = z
    return jnp.stack([10 * (y - x), x * (rho - w) - y, x * y - 8 / 3 * w])


def pendulum(z, t, theta):
    """A pendulum; `theta` is gravity over length."""
    return jnp.stack([z[1], -theta * jnp.sin(z[0])])


def spiral(z, t, theta):
    """The cubic spiral of Chen et al. (2018)."""
    return theta @ z**3


def van_der_pol(z, t, theta):
    """Van der Pol's oscillator, with damping `theta`."""
    return jnp.stack([z[1], theta * (1 - z[0] ** 2) * z[1] - z[0]])


def kepler(z, t, theta):
    """Two bodies."""
    x, v = z[:2], z[2:]
    return jnp.concatenate([v, -x / (x @ x) ** 1.5])


def arenstorf(z, t, theta):
    """Three bodies, one without mass; `theta` is the mass of the moon."""
    x, y, u, v = z
    d1, d2 = ((x + theta) ** 2 + y**2) ** 1.5, ((x - 1 + theta) ** 2 + y**2) ** 1.5
    a = x + 2 * v - (1 - theta) * (x + theta) / d1 - theta * (x - 1 + theta) / d2
    return jnp.stack([u, v, a, y - 2 * u - (1 - theta) * y / d1 - theta * y / d2])


def ring(z, t, theta):
    """A ring of units, each driven by its neighbour: a state of any size."""
    return jnp.tanh(theta * jnp.roll(z, 1)) - 0.1 * z


def network(z, t, theta):
    """A tanh network of one state."""
    (w1, b1), (w2, b2), (w3, b3) = theta
    return w3 @ jnp.tanh(w2 @ jnp.tanh(w1 @ z + b1) + b2) + b3


def networks(z, t, theta):
    """A tanh network of a batch that is one state, with one step size."""
    (w1, b1), (w2, b2), (w3, b3) = theta
    return jnp.tanh(jnp.tanh(z @ w1.T + b1) @ w2.T + b2) @ w3.T + b3


def network_weights(dtype, sizes=SMALL, scale=1.0):
    """Weights of the network, from a fixed key."""
    keys = jax.random.split(jax.random.key(0), len(sizes) - 1)
    return [
        (scale * jax.random.normal(k, (n, m), dtype) / jnp.sqrt(m).astype(dtype), jnp.zeros(n, dtype))
        for k, m, n in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def network_data(dtype, sizes, count=256):
    """Starts and weights."""
    return jax.random.normal(jax.random.key(1), (count, sizes[0]), dtype), network_weights(dtype, sizes)


def single(dtype, z0, theta):
    """One state and its parameters as arrays."""
    return jnp.array(z0, dtype), jnp.array(theta, dtype)


def species(count, dtype):
    """Lotka-Volterra ensemble of rates that differ: lognormal, 0.3."""
    spread = jnp.exp(0.3 * jax.random.normal(jax.random.key(1), (count, 4), dtype))
    return jnp.ones((count, 2), dtype), spread * jnp.array([RATES], dtype)


def alike(count, dtype):
    """Lotka-Volterra ensemble of rates that differ by at most a hundredth."""
    spread = 1 + 0.01 * np.random.default_rng(1).uniform(size=(count, 4))
    return jnp.ones((count, 2), dtype), jnp.asarray(spread * np.array(RATES), dtype)


def oscillators(count, low, high, dtype):
    """Van der Pol ensemble: states, and damping spread evenly in the logarithm, in no order."""
    mu = np.exp(np.random.default_rng(0).uniform(np.log(low), np.log(high), count))
    return jnp.tile(jnp.array([2.0, 0.0], dtype), (count, 1)), jnp.asarray(mu, dtype)


def convection(count, dtype, heavy=False):
    """Damped Lorenz ensemble: starts along a ray, the farther the more steps, and rho within 5 % of 0.5.

    The distance from the attractor is uniform, as in the ensemble published with modax; or `heavy` of tail: Pareto of
    index 1, a hundredth at least, so that few solves take most of the steps.
    """
    random = np.random.default_rng(42)
    part = random.uniform(size=(count, 1))
    distance = np.minimum(1.0, 0.01 / part) if heavy else 1 - part
    rho = 0.5 * (1 + 0.05 * random.uniform(-1, 1, count))
    return jnp.asarray(np.array([1000.0, -500.0, 500.0]) * distance, dtype), jnp.asarray(rho, dtype)


def attractors(count, dtype):
    """Lorenz ensemble of one start: rho spread evenly from 0 to 21."""
    return jnp.tile(jnp.array([1.0, 0.0, 0.0], dtype), (count, 1)), jnp.linspace(0.0, 21.0, count, dtype=dtype)
