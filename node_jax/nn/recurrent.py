"""A recurrent cell along an irregular series, of which points and parts of points may be missing."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from node_jax.nn.neural_ode import NeuralODE
from node_jax.placement import is_traced
from node_jax.types import PyTree


class Read(NamedTuple):
    """What a cell knows of a series.

    Attributes:
        state: after the last point that was read, `(hidden,)`.
        t: time of that point; 0 if there is none.
        states: after each point, `(n, hidden)`.
        ok: whether all solves between the points succeeded; bool. States behind a failed solve mean nothing.
        oks: the same up to each point, `(n,)`.
    """

    state: jax.Array
    t: jax.Array
    states: jax.Array
    ok: jax.Array
    oks: jax.Array


def floating(x: Any) -> jax.Array:
    """Return an array of floating numbers."""
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def as_series(ts: Any, ys: Any, mask: Any, observed: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return times `(n,)`, values `(n, observed)` with zeros where there is none, and which there are.

    Args:
        ts: times `(n,)`, `n >= 1`.
        ys: values `(n, observed)`, or `(n,)` if `observed` is 1.
        mask: `(n,)` or `(n, observed)`, true where a value was observed; None: everywhere.
        observed: number of values at one time.

    Raises:
        ValueError: if a shape is another, or a concrete value that is there is NaN.
    """
    ts, ys = (floating(x) for x in (ts, ys))
    ys = ys[:, None] if ys.ndim == 1 and observed == 1 else ys
    if ts.ndim != 1 or not ts.size or ys.shape != (*ts.shape, observed):
        want = f"(n,) and (n, {observed}), n >= 1"
        raise ValueError(f"ts and ys must have shapes {want}, got {ts.shape} and {ys.shape}; use jax.vmap for a batch")
    mask = jnp.ones(ts.shape, bool) if mask is None else jnp.asarray(mask, bool)
    if mask.shape not in (ts.shape, ys.shape):
        raise ValueError(f"mask must have shape {ts.shape} or {ys.shape}, got {mask.shape}")
    mask = jnp.broadcast_to(mask[:, None] if mask.ndim == 1 else mask, ys.shape)
    ys = jnp.where(mask, ys, jnp.zeros_like(ys))
    if not is_traced(ys) and np.isnan(ys).any():
        raise ValueError("ys must not be NaN where mask is true; the mask of nj.datasets.pad is false there")
    return ts, ys, mask


def both(ts: Any, ys: Any, *masks: Any) -> jax.Array:
    """Return a mask `(n, observed)` that is true where all masks are, each as in `as_series`."""
    observed = 1 if jnp.ndim(ys) == 1 else jnp.shape(ys)[1]
    return jnp.all(jnp.stack([as_series(ts, ys, mask, observed)[2] for mask in masks]), axis=0)


def read(
    cell: eqx.nn.GRUCell,
    series: tuple[jax.Array, jax.Array, jax.Array],
    *,
    gaps: bool = False,
    ode: NeuralODE | None = None,
    reverse: bool = False,
) -> Read:
    """Take a cell along a series, past each point of which something was observed.

    Args:
        cell: takes the values, which of them there are, and with `gaps` the time to the point read before.
        series: as `as_series` returns it.
        gaps: whether that time is an input.
        ode: what the state follows between the points; None: it stays.
        reverse: whether to begin with the last point.
    """
    dtype = jnp.result_type(series[1], cell.weight_ih)

    def body(carry, point):
        state, before, began, ok = carry
        t, y, seen = point
        here = jnp.any(seen)
        t = jnp.where(here, t, before)
        gap = jnp.where(began & here, t - before, 0.0)
        moved = state
        if ode is not None:
            solution = ode.solve(state, t0=t - gap, t1=t, regularized=False)
            moved, ok = solution.filled().z1, ok & (solution.ok | ~here)
        parts = [y, seen.astype(dtype), *([jnp.abs(gap)[None]] if gaps else [])]
        after = cell(jnp.concatenate([x.astype(dtype) for x in parts]), moved)
        state = jnp.where(here, after.astype(dtype), state)
        return (state, t, began | here, ok), (state, ok)

    start = (jnp.zeros(cell.hidden_size, dtype), jnp.zeros_like(series[0][0]), jnp.array(False), jnp.array(True))
    (state, t, _, ok), (states, oks) = lax.scan(body, start, series, reverse=reverse)
    return Read(state, t, states, ok, oks)


def known(ok: jax.Array, out: PyTree) -> PyTree:
    """Return NaN in place of what was made of a state behind a failed solve."""
    return jax.tree.map(lambda x: jnp.where(ok, x, jnp.full_like(x, jnp.nan)), out)
