"""Lane axes, which come last, the outermost last of all."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def lift(fn, masks: Sequence[Sequence[bool]], lanes: Sequence[int]):
    """Map `fn(leaves, rest)` of one lane over every lane axis.

    Leaf `i` of `leaves` has at its end the axes that `masks[i]` names, `rest` and the result have all of them there,
    the outermost last. Nothing is repeated over an axis that it does not depend on, and the same component of all
    lanes is contiguous.
    """
    for k in reversed(range(len(lanes))):
        axes = [-1 if mask[k] else None for mask in masks]
        fn = jax.vmap(fn, in_axes=(axes, -1), out_axes=-1, axis_size=lanes[k])
    return fn


def take_lanes(x: jax.Array, i: jax.Array) -> jax.Array:
    """Return entries `i`, shape `(*kept, n)`, of the last axis of `x`, shape `(*shape, *kept, m)`."""
    return jnp.take_along_axis(x, i.reshape(*[1] * (x.ndim - i.ndim), *i.shape), axis=-1)


def _missing(x: jax.Array, mask: Sequence[bool]) -> tuple[int, ...]:
    return tuple(x.ndim - 1 - k for k, mapped in enumerate(mask) if not mapped)


def sum_missing(x: jax.Array, mask: Sequence[bool]) -> jax.Array:
    """Bring a cotangent with all lanes at its end to the lane axes of an input with this mask, adding up the others."""
    return jnp.sum(x, axis=_missing(x, mask))


def any_missing(x: jax.Array, mask: Sequence[bool]) -> jax.Array:
    """Say for each entry of an input with this mask whether `x`, of the shape of the lanes, holds for any lane."""
    return jnp.any(x, axis=_missing(x, mask))
