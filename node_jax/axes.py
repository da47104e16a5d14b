"""Arithmetic on lane axes, which are the last axes of an array, the outermost last of all."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from node_jax.types import PyTree


def take_lanes(values: PyTree, i: jax.Array) -> PyTree:
    """Return entries `i`, shape `(*kept, n)`, of the last axis of every leaf, shape `(*shape, *kept, m)`."""

    def leaf(x):
        return jnp.take_along_axis(x, i.reshape(*[1] * (x.ndim - i.ndim), *i.shape), axis=-1)

    return jax.tree.map(leaf, values)


def _missing(x: jax.Array, mask: Sequence[bool]) -> tuple[int, ...]:
    return tuple(x.ndim - 1 - k for k, mapped in enumerate(mask) if not mapped)


def sum_missing(x: jax.Array, mask: Sequence[bool]) -> jax.Array:
    """Sum a cotangent that has all lane axes over those that an input with this mask lacks."""
    return jnp.sum(x, axis=_missing(x, mask))


def contributed(g: jax.Array, counts: jax.Array, poison: jax.Array, mask: Sequence[bool]) -> jax.Array:
    """Return the cotangent of an input: zero in entries that no lane that counts uses, NaN in those of a poisoned one.

    Args:
        g: cotangent, shape `(*shape, *lanes it has)`.
        counts: bool for each lane: whether it contributes.
        poison: bool for each lane: whether it spoils what it uses.
        mask: which lane axes the input has.
    """
    used, spoilt = (jnp.broadcast_to(any_missing(lanes, mask), g.shape) for lanes in (counts, poison))
    return jnp.where(spoilt, jnp.nan, jnp.where(used, g, jnp.zeros_like(g)))


def any_missing(x: jax.Array, mask: Sequence[bool]) -> jax.Array:
    """Whether `x`, a bool for each lane, is true for any lane that uses an entry of an input with this mask."""
    return jnp.any(x, axis=_missing(x, mask))
