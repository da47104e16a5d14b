"""The dtype of the times of a solve, and the repair of times that differ from its ends by rounding only."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from node_jax import tree
from node_jax.placement import is_tracer
from node_jax.types import PyTree

ULPS = 8  # a time within so many units in the last place of an end of the solve counts as that end
BLURRED = 0.05  # rounding may move times by this part of the smallest distance between two of them
SAME = 2e-6  # times nearer to each other than this part of the whole range count as equal


def time_dtype(z0: PyTree, t0: Any, t1: Any, parts: Sequence) -> jnp.dtype:
    """Return the dtype of all times of a solve: at least that of the state and that of every array of times.

    Python numbers and integers have no dtype of their own. They take that of the others, or 64 bits where rounding to
    that would blur the distances between them. Traced values have the dtype that JAX gives them.

    Args:
        z0: initial state.
        t0: initial time.
        t1: final time.
        parts: steps and save, whose `times` name the attributes that hold times.

    Raises:
        ValueError: if 64 bits are needed and not enabled.
    """
    times = {"t0": t0, "t1": t1}
    for part in parts:  # equinox wraps methods: their calls are slow
        times |= {f"{type(part).__name__}({name}=...)": getattr(part, name) for name in part.times}
    times = {name: x for name, x in times.items() if x is not None}
    own = [dtype for dtype in map(_digits, times.values()) if dtype is not None]
    dtype = functools.reduce(tree.promoted, map(jax.dtypes.canonicalize_dtype, own), tree.real_dtype(z0))
    if not _blurs(times, dtype):
        return dtype
    wide = jnp.result_type(float)
    if jnp.finfo(wide).bits > jnp.finfo(dtype).bits:
        return wide
    name, value = max(times.items(), key=lambda item: _largest(item[1], dtype))
    raise ValueError(
        f"{name}={value} cannot be told from the other times in {dtype}: measure time from a nearer origin, for example"
        " from t0, or enable 64-bit floats with jax.config.update('jax_enable_x64', True)"
    )


def _digits(x: Any) -> jnp.dtype | None:
    """Return the dtype that a time came with (all that a tracer may hold); None for Python numbers and integers."""
    if is_tracer(x) and jnp.issubdtype(x.dtype, jnp.integer):
        return jnp.finfo(f"float{8 * max(4, x.dtype.itemsize)}").dtype
    if not isinstance(x, jax.Array | np.ndarray | np.generic) or not jnp.issubdtype(x.dtype, jnp.floating):
        return None
    weak = isinstance(x, jax.Array) and x.weak_type and not is_tracer(x)
    return None if weak and x.dtype.itemsize > 4 else x.dtype


def _holds(dtype: jnp.dtype, x: Any) -> bool:
    """Whether a dtype can hold a number, or any value of an array's dtype, exactly."""
    if type(x) in (int, float):
        return float(dtype.type(x)) == x
    own = _digits(x)
    return own is not None and (own == dtype or tree.promoted(own, dtype) == dtype)


def _known(x: Any, dtype: jnp.dtype) -> np.ndarray:
    """Return the finite values, in 64 bits, of concrete times that `dtype` might not hold; else none."""
    if is_tracer(x) or (type(x) not in (int, float) and _holds(dtype, x)):
        return np.zeros(0)
    values = np.ravel(np.asarray(x))
    if values.dtype.kind not in "fiu":  # `arguments` and `arraylike` refuse them
        return np.zeros(0)
    values = values.astype(np.float64)
    return values[np.isfinite(values)]


def _largest(x: Any, dtype: jnp.dtype) -> float:
    return float(np.max(np.abs(_known(x, dtype)), initial=-1.0))


def _blurs(times: dict[str, Any], dtype: jnp.dtype) -> bool:
    """Whether rounding to `dtype` moves a time by a notable part of the smallest distance to another."""
    if all(_holds(dtype, x) for x in times.values()):  # the usual case, and the cheapest test
        return False
    values = np.unique(np.concatenate([_known(x, dtype) for x in times.values()]))
    if values.size < 2:
        return False
    gaps = np.diff(values)
    gaps = gaps[gaps > SAME * (values[-1] - values[0])]
    moved = np.max(np.abs(values.astype(dtype).astype(np.float64) - values))
    return bool(moved > BLURRED * gaps.min())


def blur(given: tuple[Any, ...], dtype: jnp.dtype) -> float:
    """Return the coarsest relative rounding of the given times, at most that of float32; 0 if `dtype` is as coarse."""
    own = [float(jnp.finfo(digits).eps) for digits in map(_digits, given) if digits is not None]
    most = min(max(own, default=0.0), float(jnp.finfo(jnp.float32).eps))
    return most if most > float(jnp.finfo(dtype).eps) else 0.0


def rounding(t0: jax.Array, t1: jax.Array, blur: float = 0.0) -> jax.Array:
    """Return the distance from an end of the solve within which a time counts as that end."""
    furthest = jnp.maximum(jnp.abs(t0), jnp.abs(t1))
    least = ULPS * float(jnp.finfo(t0.dtype).eps) * furthest
    return jnp.maximum(least, jnp.minimum(ULPS * blur * furthest, BLURRED * jnp.abs(t1 - t0))) if blur else least


@jax.custom_jvp
def between(ts: jax.Array, t0: jax.Array, t1: jax.Array) -> jax.Array:
    """Clip times to the ends of the solve, beyond which rounding may have put them; the derivative is that of `ts`."""
    return jnp.clip(ts, jnp.minimum(t0, t1), jnp.maximum(t0, t1))


@between.defjvp
def _moved_between(times: tuple[Any, ...], dots: tuple[Any, ...]) -> tuple[jax.Array, jax.Array]:
    return between(*times), dots[0]  # at an end, the derivative of `clip` would be half of this


def from_end_to_end(ts: jax.Array, t0: jax.Array, t1: jax.Array, blur: float = 0.0) -> jax.Array:
    """Return times that begin at `t0` and end at `t1` exactly, if they do so up to rounding."""
    ends, inside = jnp.stack([t0, t1]), between(ts, t0, t1)
    return _moved(ts, inside.at[jnp.array([0, -1])].set(ends), rounding(t0, t1, blur))


def within_ends(ts: jax.Array, t0: jax.Array, t1: jax.Array, blur: float) -> jax.Array:
    """Return times in which those that lie beyond an end by rounding are that end."""
    return _moved(ts, between(ts, t0, t1), rounding(t0, t1, blur))


def _moved(ts: jax.Array, there: jax.Array, near: jax.Array) -> jax.Array:
    return ts + lax.stop_gradient(jnp.where(jnp.abs(ts - there) <= near, there - ts, 0.0))


def misplaced(name: str, ts: Any, t0: Any, t1: Any) -> str | None:
    """Return a message about the first concrete time that is not finite, turns back or lies beyond an end; or None."""
    ts, (t0, t1) = np.asarray(ts, np.float64), np.asarray([t0, t1], np.float64)
    sign = -1.0 if t1 < t0 else 1.0
    blur = ULPS * float(np.finfo(np.float32).eps) * max(abs(t0), abs(t1))
    for i, t in enumerate(ts):
        if not np.isfinite(t):
            return f"{name}[{i}] must be finite, got {t}"
        if i and sign * (t - ts[i - 1]) < 0:
            which = f"{name.rpartition(' ')[2]}[{i}]"
            return f"{name} must go from t0={t0} towards t1={t1}: {which}={t} comes after {ts[i - 1]}"
    for i, end, which in ((0, t0, "t0"), (-1, t1, "t1")):
        beyond = sign * (ts[i] - end) if i else sign * (end - ts[i])
        if ts.size and beyond > 0:
            more = " (times are compared in the dtype of the solve)" if beyond <= blur else ""
            return f"{name}[{i % ts.size}]={ts[i]} lies beyond {which}={end}{more}"
    return None


def narrowed(slope: PyTree, z: PyTree, t: jax.Array) -> PyTree:
    """Cast a slope to the dtypes of the state, if only the wider dtype of the times had promoted it."""
    if t.dtype == tree.real_dtype(z) or jax.tree.structure(slope) != jax.tree.structure(z):
        return slope

    def leaf(k, x):
        return k.astype(x.dtype) if jnp.result_type(k) == tree.promoted(x.dtype, t.dtype) else k

    return jax.tree.map(leaf, slope, z)


class TimesDefaults:
    """What a policy of steps or a save need not say of times: that it holds none, and that none is wrong."""

    times: Any = ()

    def aligned(self, t0: jax.Array, t1: jax.Array, blur: float = 0.0) -> Any:
        """Return the record as it is."""
        return self

    def complaint(self, t0: Any, t1: Any) -> str | None:
        """Return None: nothing can be wrong."""
        return None

    def valid(self, t0: jax.Array, t1: jax.Array) -> jax.Array:
        """Return true."""
        return jnp.array(True)
