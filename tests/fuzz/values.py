"""The values of a draw: a flat dict of arrays, lane axes in front."""

from typing import NamedTuple

import numpy as np

from .draws import chance, pick
from .structures import METHODS, VALUES, Structure
from .times import draw_times

SUCCESS = 1  # statuses are bits: 1 << status


class Draw(NamedTuple):
    """Arguments of one call of a structure, the same without failures, and what is known beforehand."""

    values: dict
    healed: dict
    allowed: np.ndarray  # bits of the statuses that a lane may have
    skipped: frozenset  # arguments whose derivative has two sides
    partial: np.ndarray  # lanes that fail on their way and whose rows before that are right
    tags: tuple[str, ...]
    spoils: tuple[tuple[str, str], ...] = ()  # arguments that were spoiled, and how

    @property
    def failing(self) -> np.ndarray:
        """Which lanes fail."""
        return self.allowed != SUCCESS


def draw_values(s: Structure, seed: int, index: int) -> Draw:
    """Return draw `index` of a seed, whose structure is `s`; no lane of it fails."""
    rng = np.random.default_rng([seed, index // VALUES, 1 + index % VALUES])
    times = draw_times(s, rng)
    tags = list(times.tags)
    values = dict(times.values)
    values |= _parameters(s, rng, values)
    values |= _state(s, rng, values, tags)
    values |= _tolerances(s, rng)
    values |= _cotangents(s, rng)
    values |= {"keep": np.ones(s.lanes, bool), "yes": np.array(True)}
    for key in s.differentiated:
        values[f"v.{key}"] = _normal(rng, values[key].shape, values[key].dtype)
    allowed = np.full(s.lanes, SUCCESS)
    return Draw(values, values, allowed, times.skipped, np.zeros(s.lanes, bool), tuple(tags))


def rng_of_failures(seed: int, index: int):
    """Return what failures of a draw are drawn from."""
    return np.random.default_rng([seed, index // VALUES, 1 + index % VALUES, 1])


def over_lanes(s: Structure, key: str, array) -> np.ndarray:
    """Broadcast an array whose leading axes are the lanes of an argument over all lanes."""
    array, mask = np.asarray(array), s.mask(key)
    rest = array.shape[sum(mask) :]
    sizes = iter(array.shape[: sum(mask)])
    spread = array.reshape((*(next(sizes) if yes else 1 for yes in mask), *rest))
    return np.broadcast_to(spread, (*s.lanes, *rest))


def under_lanes(s: Structure, key: str, array, reduce=np.max) -> np.ndarray:
    """Reduce an array over the lanes that an argument does not have."""
    missing = tuple(i for i, yes in enumerate(s.mask(key)) if not yes)
    return reduce(array, axis=missing) if missing else np.asarray(array)


def ends(s: Structure, values: dict) -> tuple[np.ndarray, np.ndarray]:
    """Return `t0` and `t1` of every lane, in double precision."""
    if s.steps == "grid":
        grid = over_lanes(s, "grid", values["grid"]).astype(float)
        return grid[..., 0], grid[..., -1]
    t0, t1 = (over_lanes(s, key, values[key]).astype(float) for key in ("t0", "t1"))
    return t0, t1


def _normal(rng, shape, dtype) -> np.ndarray:
    x = rng.normal(size=shape)
    if np.issubdtype(dtype, np.complexfloating):
        x = x + 1j * rng.normal(size=shape)
    return np.asarray(x, dtype)


def _parameters(s: Structure, rng, values: dict) -> dict:
    t0, t1 = ends(s, values)
    result = {}
    for name, what in s.of.params.items():
        key = f"p.{name}"
        lanes = s.lane_shape(key)
        if name == "m":
            k, w = rng.uniform(0.2, 1.0, lanes), rng.uniform(-2.0, 2.0, lanes)
            rows = np.stack([np.stack([-k, w], -1), np.stack([-w, -k], -1)], -2)
            x = rows + rng.uniform(-0.1, 0.1, rows.shape)
        else:
            x = rng.uniform(*what, lanes)
        if name == "end":
            x = x + under_lanes(s, key, np.maximum(t0, t1))
        result[key] = np.asarray(x, s.time_dtype if name == "end" and s.real == np.float64 else s.real)
    if "p.end" in result and s.single:  # single precision may round it down
        result["p.end"] = result["p.end"] + np.asarray(0.1, result["p.end"].dtype)
    return result


def _state(s: Structure, rng, values: dict, tags: list) -> dict:
    result = {}
    rest = s.of.rest and chance(rng, 0.02)
    cap = values.get("p.cap")
    if rest:
        tags.append("at rest")
    for i, shape in enumerate(s.shapes):
        key = f"z0.{i}"
        dtype = s.leaf_dtype(i)
        x = rng.uniform(*s.of.start, (*s.lane_shape(key), *shape))
        if np.issubdtype(dtype, np.complexfloating):
            x = x + 1j * rng.uniform(*s.of.start, x.shape)
        if rest:
            x = np.zeros_like(x) + (cap if cap is not None and cap.ndim == 0 else 0.0)
        result[key] = np.asarray(x, dtype)
    return result


def tolerance_range(s: Structure) -> tuple[float, float]:
    """Return the relative tolerances that a method can be asked for."""
    order = METHODS[s.method].order
    if s.single:
        return 1e-5, 1e-4
    if s.save in ("steps", "dense"):
        return (1e-5, 1e-4) if order < 5 else (1e-7, 1e-6)
    return {2: (4e-6, 1e-5), 3: (1e-7, 1e-6), 8: (1e-10, 1e-6)}.get(order, (1e-9, 1e-6))


def _tolerances(s: Structure, rng) -> dict:
    if not s.adaptive:
        return {}
    low, high = np.log10(tolerance_range(s))
    leaves = range(len(s.shapes)) if s.steps == "leaf" else (None,)
    result = {}
    for i in leaves:
        lanes = s.lane_shape("rtol") if i is None else ()
        rtol = 10.0 ** rng.uniform(low, high, lanes)
        name = "" if i is None else f".{i}"
        result[f"rtol{name}"] = np.asarray(rtol, s.real)
        result[f"atol{name}"] = np.asarray(np.min(rtol) * pick(rng, (0.01, 0.1, 1.0)), s.real)
    return result


def _cotangents(s: Structure, rng) -> dict:
    rows = {"end": 0, "steps": s.capacity}.get(s.save, s.rows)
    result = {}
    for i, shape in enumerate(s.shapes):
        dtype = s.leaf_dtype(i)
        result[f"w.z1.{i}"] = _normal(rng, (*s.lanes, *shape), dtype)
        if rows:
            result[f"w.rows.{i}"] = _normal(rng, (*s.lanes, rows, *shape), dtype)
    return result
