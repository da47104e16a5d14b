"""The entries of a batch, as a loss is given them: its parts, and which samples are finite."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax import tree
from node_jax.types import PyTree


def parts(form: str, batch: Any, least: int, most: int) -> list[Any]:
    """Return the parts of a batch, None for those that are not given; the first `least` are arrays with an axis."""
    parts = [*batch] if isinstance(batch, tuple | list) else [batch]
    first = parts[:least]
    if not least <= len(parts) <= most or not all(eqx.is_array_like(x) and jnp.ndim(x) for x in first):
        raise TypeError(f"batch must be {form}, got {outline(batch)}")
    return [*map(jnp.asarray, first), *parts[least:], *[None] * (most - len(parts))]


def outline(batch: Any) -> str:
    """Describe a batch in a few words."""
    kind = f"a {type(batch).__name__}"
    if not isinstance(batch, tuple | list):
        return f"{kind} of shape {jnp.shape(batch)}" if eqx.is_array_like(batch) else kind
    return f"{kind} of {len(batch)}: {', '.join(type(part).__name__ for part in batch[:4])}"


def sound(data: PyTree, count: int) -> tuple[PyTree, jax.Array]:
    """Return data with a finite sample in place of those that are not finite, and which samples are finite."""
    data, sound = jax.tree.map(jnp.asarray, data), jnp.ones(count, bool)
    shapes = [x.shape for x in jax.tree.leaves(data)]
    if not count or any(shape[:1] != (count,) for shape in shapes):
        raise ValueError(f"all parts of a batch must have a leading axis of as many samples, at least 1, got {shapes}")
    for x in jax.tree.leaves(data):
        sound = sound & finite_rows(x)
    other = jnp.argmax(sound)
    return jax.tree.map(lambda x: tree.where_rows(sound, x, jnp.broadcast_to(x[other], x.shape)), data), sound


def sound_series(ts: Any, ys: Any, mask: Any = None) -> tuple[tuple[Any, ...], jax.Array]:
    """Return series with zeros in place of what is not finite, and which have finite times, values seen, and masks."""
    ts, ys, mask = jax.tree.map(jnp.asarray, (ts, ys, mask))
    ys = ys[..., None] if ys.ndim == 2 else ys
    mask = jnp.ones(ys.shape, bool) if mask is None else mask
    if mask.shape not in (ys.shape, ys.shape[:2]):
        raise ValueError(f"mask must have the shape of the values {ys.shape}, or of the times, got {mask.shape}")
    wide = jnp.expand_dims(mask, range(mask.ndim, ys.ndim))
    sound = finite_rows(ts) & finite_rows(jnp.where(wide, ys, 0.0)) & finite_rows(mask)
    return (*(jnp.where(jnp.isfinite(x), x, 0.0) for x in (ts, ys)), mask), sound


def finite_rows(x: jax.Array) -> jax.Array:
    """Say of each row along the first axis whether it is finite."""
    return jnp.all(jnp.isfinite(x), axis=tuple(range(1, x.ndim)))
