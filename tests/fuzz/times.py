"""Times of a draw: either direction, length zero, far from zero, repeated, padded, at the ends."""

from typing import NamedTuple

import numpy as np

from .draws import chance, pick
from .structures import Structure

KINDS = {"usual": 0.76, "zero": 0.08, "far": 0.12, "short": 0.04}
OUTPUTS = {"usual": 0.5, "repeated": 0.12, "padded": 0.12, "ends": 0.16, "first": 0.04, "beyond by an ulp": 0.06}


class Times(NamedTuple):
    """Arguments that are times; words for what is special; those whose derivative has two sides here."""

    values: dict
    tags: tuple[str, ...]
    skipped: frozenset


def draw_times(s: Structure, rng) -> Times:
    """Return times for the lanes of a structure."""
    tags: list[str] = []
    first, last = s.times[0], s.times[0 if s.steps == "grid" else 1]
    shape = s.lane_shape(first) if s.mask(first) == s.mask(last) else ()
    t0, t1 = _ends(s, rng, shape, tags)
    values = {"t0": t0, "t1": t1}
    low, high = np.minimum(t0, t1)[..., None], np.maximum(t0, t1)[..., None]

    def at(u):
        u = np.broadcast_to(u, (*shape, np.shape(u)[-1]))
        inner = t0[..., None] + (t1 - t0)[..., None] * u
        exact = np.where(u <= 0, t0[..., None], np.where(u >= 1, t1[..., None], np.clip(inner, low, high)))
        return exact.astype(s.time_dtype)

    if "ts" in s.times or "tq" in s.times:
        values["ts" if "ts" in s.times else "tq"] = _outputs(s, rng, shape, at, t1, tags)
    if s.steps == "grid":
        u = np.sort(rng.uniform(0.02, 0.98, (*shape, s.n - 1)), axis=-1)
        if s.n > 2 and chance(rng, 0.2):
            u[..., 1] = u[..., 0]
            tags.append("repeated node")
        ends = (np.zeros((*shape, 1)), np.ones((*shape, 1)))
        values["grid"] = at(np.concatenate([ends[0], u, ends[1]], axis=-1))
    still = "zero interval" in tags and s.save == "dense"  # what lies beside a single time is not known
    skipped: set[str] = {"tq"} if still else set()
    if s.points:
        values["points"] = _points(s, rng, at, tags)
        if s.save == "steps" and s.field == "jump":  # one of the rows is at the jump, which moves and the row does not
            skipped |= {"points"}
        if "ts" in values and s.field == "jump" and s.rows > 2 and not tags and chance(rng, 0.15):
            values["ts"][..., 1] = values["points"][..., s.tau]
            values["ts"].sort(axis=-1)
            values["ts"][...] = np.where((t1 < t0)[..., None], values["ts"][..., ::-1], values["ts"])
            tags.append("output at the jump")
            skipped |= {"ts", "points"}
    values |= _moved(s, rng, t0, t1)
    return Times(values, tuple(tags), frozenset(skipped))


def _ends(s: Structure, rng, shape, tags: list):
    """Return `t0` and `t1`, which every other time lies between."""
    kind = pick(rng, KINDS)
    size = rng.uniform(0.3, 2.0, shape) * np.where(rng.random(shape) < 0.4, -1, 1)
    t0 = rng.uniform(-1.0, 1.0, shape)
    if kind == "zero":
        size = np.where(rng.random(shape) < 0.5, 0.0, size) if shape else np.zeros(())
    if kind == "short":
        size = size * 1e-3
    coarse = s.time_dtype == "float32" and (s.of.timed or not s.adaptive)
    if kind == "far" and s.of.anywhere and not coarse and not (s.of.timed and s.single):
        t0 = t0 + (1.7e9 if not s.of.timed and s.time_dtype == "float64" and chance(rng, 0.3) else 1e4)
    elif kind == "far":
        kind = "usual"
    if kind != "usual":
        tags.append(f"{kind} interval")
    t0 = np.asarray(t0, s.time_dtype)
    return t0, np.asarray(np.where(size == 0, t0, t0 + size), s.time_dtype)


def _outputs(s: Structure, rng, shape, at, t1, tags: list):
    """Return the times of rows."""
    u = np.sort(rng.uniform(0.02, 0.98, (*shape, s.rows)), axis=-1)
    kind = pick(rng, OUTPUTS)
    if kind == "repeated" and s.rows > 1:
        u[..., 1] = u[..., 0]
    if kind == "padded" and s.rows > 1:
        u[..., -2:] = u[..., -2:-1]
    if kind == "ends":
        u[..., 0], u[..., -1] = 0.0, 1.0
    if kind == "first":
        u[...] = 0.0
    times = at(u)
    if kind == "beyond by an ulp" and "ts" in s.times:
        t0 = at(np.zeros(1))[..., 0]
        away = np.where(t1 < t0, -np.inf, np.inf).astype(s.time_dtype)
        times[..., -1] = np.where(t1 == t0, t1, np.nextafter(t1, away))
        tags.append("output an ulp beyond t1")
    elif kind not in ("usual", "beyond by an ulp"):
        tags.append(f"outputs {kind}")
    return times


def _points(s: Structure, rng, at, tags: list):
    """Return the breakpoints; one of them, the jump, may lie outside, others may be infinite."""
    u = rng.uniform(0.1, 0.9, s.points)
    if chance(rng, 0.1):
        u[s.tau] = 0.5
        points = at(u)
        points[..., s.tau] = at(np.ones(1))[..., 0] + 5.0
        tags.append("jump outside")
    else:
        points = at(u)
    for i in range(s.points):
        if i != s.tau and chance(rng, 0.4):
            points[..., i] = np.inf
            tags.append("breakpoint at infinity")
    still = at(np.zeros(1)) == at(np.ones(1))  # no jump where nothing is integrated: it would have two sides
    return np.where(still, points + 0.5, points).astype(s.time_dtype)


def _moved(s: Structure, rng, t0, t1) -> dict:
    """Return the end that has more lane axes than other times, moved away from them."""
    result = {}
    for name, sign in (("t0", -1), ("t1", 1)):
        lanes = s.lane_shape(name)
        if lanes and t0.shape != lanes:
            more = sign * (t1 - t0) * rng.uniform(0.0, 0.3, lanes)
            result[name] = np.asarray((t0 if name == "t0" else t1) + more, s.time_dtype)
    return result
