"""Norms of states, and tolerances in the same units."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from node_jax.tree import promoted, real_dtype, single, spread
from node_jax.types import PyTree


def rms(z: PyTree) -> jax.Array:
    """Root mean square over all elements of all leaves, which is the default error norm.

    Args:
        z: pytree of real or complex arrays.

    Returns:
        Real scalar; zero for a tree without elements.

    Example:
        >>> import jax.numpy as jnp
        >>> float(rms((jnp.array([3.0, 4.0]), jnp.array(0.0), jnp.zeros(0))))  # sqrt(25 / 3)
        2.88675...
    """
    leaves = [single(x) for x in jax.tree.leaves(z) if x.size]
    dtype = real_dtype(z)
    total = sum((jnp.sum((x * jnp.conj(x)).real).astype(dtype) for x in leaves), jnp.zeros((), dtype))
    return jnp.sqrt(total / max(1, sum(x.size for x in leaves)))


def largest(z: PyTree, dtype: jnp.dtype) -> jax.Array:
    """Return the largest modulus over all elements; NaN if any is NaN, zero for an empty tree."""
    parts = [jnp.max(jnp.abs(x)).astype(dtype) for x in jax.tree.leaves(z) if x.size]
    return jax.tree.reduce(jnp.maximum, parts, jnp.zeros((), dtype))


def tolerances(z0: PyTree, z1: PyTree, rtol: PyTree, atol: PyTree) -> PyTree:
    """Return `atol + rtol max(|z0|, |z1|)` for each component, in a real dtype of at least 32 bits."""

    def leaf(x, y, r, a):
        real = jnp.finfo(x.dtype)
        wide = promoted(real.dtype, jnp.float32)
        r = jnp.maximum(r, 4 * float(real.eps)).astype(wide)  # a smaller relative change is rounding
        scale = a.astype(wide) + r * jnp.maximum(jnp.abs(x), jnp.abs(y)).astype(wide)
        return scale + float(jnp.finfo(wide).tiny)  # an error of zero is accepted even if both tolerances are

    return jax.tree.map(leaf, z0, z1, spread(rtol, z0), spread(atol, z0))


def bounded(z: PyTree) -> PyTree:
    """Clip the elements of real or complex leaves so that the sum of their squares does not overflow."""

    def leaf(x):
        most = math.sqrt(float(jnp.finfo(x.dtype).max) / (4 * max(1, x.size)))
        if jnp.iscomplexobj(x):
            return lax.complex(jnp.clip(x.real, -most, most), jnp.clip(x.imag, -most, most))
        return jnp.clip(x, -most, most)

    return jax.tree.map(leaf, z)
