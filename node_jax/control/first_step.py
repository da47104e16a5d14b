"""The size of the first step: Hairer, Norsett and Wanner, Solving ODEs I, section II.4."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from node_jax import tree
from node_jax.types import PyTree


def first_step(
    field: Callable, size_of: Callable, order: int, z0: PyTree, slope: PyTree, t0: jax.Array, t1: jax.Array
) -> jax.Array:
    """Guess a step from the size of the state, its slope and the change of its slope; one evaluation.

    `field(z, t)` is the vector field, `size_of` the norm in units of the tolerance. A probe that leaves the domain of
    the field leaves the guess at that of the probe itself.
    """
    span = jnp.abs(t1 - t0)
    d0, d1 = size_of(z0), size_of(slope)
    h0 = jnp.minimum(jnp.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1), span)
    signed = jnp.where(t1 < t0, -h0, h0)
    probe = field(tree.combine(z0, signed, (1.0,), (slope,)), t0 + signed)
    steepest = jnp.maximum(d1, size_of(tree.subtract(probe, slope)) / h0)
    h1 = jnp.where(steepest <= 1e-15, jnp.maximum(1e-6, 1e-3 * h0), (0.01 / steepest) ** (1.0 / order))
    size = jnp.where(jnp.isfinite(h1) & (h1 > 0), jnp.minimum(100 * h0, h1), h0)
    size = jnp.minimum(size, span)
    return jnp.where(jnp.isfinite(size), size, span).astype(t0.dtype)
