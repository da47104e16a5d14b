"""The problems of the benchmarks, each as a field `f(z, t, theta)` with its data."""

import jax
import jax.numpy as jnp


def lotka_volterra(z, t, theta):
    """Predator and prey."""
    a, b, c, d = theta
    x, y = z
    return jnp.stack([a * x - b * x * y, -c * y + d * x * y])


def network(z, t, theta):
    """A 2-64-64-2 tanh network."""
    (w1, b1), (w2, b2), (w3, b3) = theta
    return w3 @ jnp.tanh(w2 @ jnp.tanh(w1 @ z + b1) + b2) + b3


def network_weights(dtype, sizes=(2, 64, 64, 2), scale=1.0):
    """Weights of the network, from a fixed key."""
    keys = jax.random.split(jax.random.key(0), len(sizes) - 1)
    return [
        (scale * jax.random.normal(k, (n, m), dtype) / jnp.sqrt(m).astype(dtype), jnp.zeros(n, dtype))
        for k, m, n in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def pendulum(z, t, theta):
    """A pendulum; `theta` is gravity over length."""
    return jnp.stack([z[1], -theta * jnp.sin(z[0])])


def spiral(z, t, theta):
    """The cubic spiral of Chen et al. (2018)."""
    return theta @ z**3


def van_der_pol(z, t, theta):
    """Van der Pol's oscillator, with damping `theta`."""
    return jnp.stack([z[1], theta * (1 - z[0] ** 2) * z[1] - z[0]])
