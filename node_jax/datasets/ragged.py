"""Series of different lengths as arrays of one length."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np


def pad(series: Sequence[tuple[Any, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bring series to the length of the longest.

    The last time of a series is repeated behind its end, which `SaveAt` takes, and its values are zero there. A value
    that is NaN, or masked in a NumPy array, is a missing one: it becomes zero, and its entry of the mask false.

    Args:
        series: pairs `(ts, ys)` of times `(n,)` and values `(n, observed)` or `(n,)`, `n` of each its own, at least 1.

    Returns:
        Times `(series, longest)`, values `(series, longest, observed)`, and a mask like the values; bool.

    Raises:
        ValueError: if there is no series, or one has other shapes, is not of real numbers, or has times that are not
            finite and sorted, naming its place in the list.

    Example:
        >>> ts, ys, mask = pad([([0.0, 1.0], [5.0, 6.0]), ([0.5], [7.0])])
        >>> ts.tolist(), mask[:, :, 0].tolist()
        ([[0.0, 1.0], [0.5, 0.5]], [[True, True], [True, False]])
    """
    if not series:
        raise ValueError("series must have at least one pair (ts, ys), got none")
    pairs = [_checked(i, *pair) for i, pair in enumerate(series)]
    observed = pairs[0][1].shape[1]
    for i, (_, ys) in enumerate(pairs):
        if ys.shape[1] != observed:
            raise ValueError(f"series[{i}] must have {observed} values at each time, as series[0], got {ys.shape[1]}")
    longest = max(len(ts) for ts, _ in pairs)
    times = np.stack([np.pad(ts, (0, longest - len(ts)), mode="edge") for ts, _ in pairs])
    values = np.stack([np.pad(ys, ((0, longest - len(ts)), (0, 0))) for ts, ys in pairs])
    there = np.stack([np.arange(longest) < len(ts) for ts, _ in pairs])[:, :, None]
    mask = there & ~np.isnan(values)
    return times, np.where(mask, values, np.zeros_like(values)), mask


def _filled(ys: Any) -> Any:
    """Return the values of a masked array with NaN where they are masked; others as they are."""
    return np.ma.filled(ys.astype(float), np.nan) if isinstance(ys, np.ma.MaskedArray) else ys


def _checked(i: int, ts: Any, ys: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the arrays of one series."""
    ts, ys = np.asarray(ts), np.asarray(_filled(ys))
    for name, x in (("ts", ts), ("ys", ys)):
        if x.dtype.kind not in "biu" and not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"series[{i}]: {name} must be real numbers, got dtype {x.dtype}")
    ts, ys = (x if np.issubdtype(x.dtype, np.floating) else x.astype(np.float64) for x in (ts, ys))
    ys = ys[:, None] if ys.ndim == 1 else ys
    if ts.ndim != 1 or ys.ndim != 2 or len(ts) != len(ys) or not len(ts):
        raise ValueError(f"series[{i}] must have shapes (n,) and (n, observed), n >= 1, got {ts.shape} and {ys.shape}")
    if not np.all(fine := np.isfinite(ts)):
        j = int(np.argmin(fine))
        raise ValueError(f"series[{i}]: times must be finite, got ts[{j}]={ts[j]}")
    if np.any(back := np.diff(ts) < 0):
        j = 1 + int(np.argmax(back))
        raise ValueError(f"series[{i}]: times must be sorted, got ts[{j}]={ts[j]} after ts[{j - 1}]={ts[j - 1]}")
    return ts, ys
