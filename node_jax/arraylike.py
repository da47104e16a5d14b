"""Conversion of times given as lists, tuples, NumPy arrays or arrays of other packages."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def times_of(name: str, ts: Any) -> Any:
    """Return times as an array of a floating dtype, without losing digits.

    Args:
        name: their name in error messages.
        ts: array, list or tuple of real numbers or scalars. Other objects (None, and the placeholders that JAX puts
            into pytrees) are returned unchanged.

    Raises:
        TypeError: if they are not real numbers.
        ValueError: if their shapes differ.
    """
    if isinstance(ts, (list, tuple)):
        ts = _stacked(name, ts)
    elif isinstance(ts, str) or (hasattr(ts, "__array__") and not hasattr(ts, "dtype")):
        ts = np.asarray(ts)
    elif hasattr(ts, "__array__") and not isinstance(ts, (jax.Array, np.ndarray, np.generic)):
        ts = np.asarray(ts)  # an array of another package, with other dtypes
    dtype = getattr(ts, "dtype", None)
    if dtype is None or jnp.issubdtype(dtype, jnp.floating):
        return ts
    if not jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, np.timedelta64):
        raise TypeError(f"{name} must be real numbers, got {ts!r}")
    return ts.astype(float) if isinstance(ts, (jax.Array, np.ndarray, np.generic)) else ts


def points_of(name: str, ts: Any) -> Any:
    """Return times as `times_of` does; a scalar becomes an array `(1,)`."""
    ts = times_of(name, [ts] if type(ts) is float else ts)
    return ts.reshape(1) if isinstance(ts, (jax.Array, np.ndarray, np.generic)) and ts.ndim == 0 else ts


def _stacked(name: str, ts: Any) -> Any:
    try:
        if any(isinstance(x, jax.Array) for x in jax.tree.leaves(ts)):
            return jnp.stack([jnp.asarray(x) for x in ts])
        return np.asarray(ts, None if len(ts) else float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array, or a list of real numbers, got {ts!r}") from error
