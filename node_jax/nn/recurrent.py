"""A recurrent cell along an irregular series, of which points and parts of points may be missing."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from node_jax.types import PyTree


def as_series(ts: Any, ys: Any, mask: Any, observed: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return times `(n,)`, values `(n, observed)` with zeros where there is none, and which there are.

    Args:
        ts: times `(n,)`.
        ys: values `(n, observed)`, or `(n,)` if `observed` is 1.
        mask: `(n,)` or `(n, observed)`, true where a value was observed; None: everywhere.
        observed: number of values at one time.

    Raises:
        ValueError: if a shape is another.
    """
    ts, ys = jnp.asarray(ts), jnp.asarray(ys)
    ys = ys[:, None] if ys.ndim == 1 and observed == 1 else ys
    if ts.ndim != 1 or ys.shape != (*ts.shape, observed):
        want = f"(n,) and (n, {observed})"
        raise ValueError(f"ts and ys must have shapes {want}, got {ts.shape} and {ys.shape}; use jax.vmap for a batch")
    mask = jnp.ones(ts.shape, bool) if mask is None else jnp.asarray(mask, bool)
    if mask.shape not in (ts.shape, ys.shape):
        raise ValueError(f"mask must have shape {ts.shape} or {ys.shape}, got {mask.shape}")
    mask = jnp.broadcast_to(mask[:, None] if mask.ndim == 1 else mask, ys.shape)
    return ts, jnp.where(mask, ys, jnp.zeros_like(ys)), mask


def run(update: Callable, start: PyTree, ts: jax.Array, ys: jax.Array, mask: jax.Array, reverse: bool = False):
    """Take a state along the series, past each point of which something was observed.

    Args:
        update: `update(state, gap, t, y, seen)` returns the state after a point at `t`, `gap` behind the point before.
        start: state before the first point.
        ts: times `(n,)`; so have `ys` and `mask` a leading axis.
        ys: values.
        mask: which there are.
        reverse: whether to begin with the last point.

    Returns:
        The state after the last point, and that after each, along a leading axis.
    """

    def body(carry, point):
        state, before, began = carry
        t, y, seen = point
        here = jnp.any(seen)
        gap = jnp.where(began & here, jnp.abs(t - before), 0.0)
        after = update(state, gap, t, y, seen)
        state = jax.tree.map(lambda new, old: jnp.where(here, new, old), after, state)
        return (state, jnp.where(here, t, before), began | here), state

    carry = (start, ts[0], jnp.array(False))
    (state, _, _), states = lax.scan(body, carry, (ts, ys, mask), reverse=reverse)
    return state, states


def features(y: jax.Array, seen: jax.Array, gap: jax.Array, gaps: bool) -> jax.Array:
    """Return what a cell is given of one point: values, which there are, and the time since the point before."""
    parts = [y, seen.astype(y.dtype)]
    return jnp.concatenate([*parts, gap[None].astype(y.dtype)] if gaps else parts)
