"""Lanes that fail: each kind spoils one argument, and says which statuses its lanes may have."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from node_jax import Status

from .draws import pick
from .structures import Structure
from .values import SUCCESS, Draw, ends, over_lanes, rng_of_failures, under_lanes

ANY = sum(1 << s.value for s in Status) - SUCCESS
NON_FINITE, BAD_INPUT = 1 << Status.NON_FINITE.value, 1 << Status.BAD_INPUT.value


class Spoiled(NamedTuple):
    """A new value for an argument, which of its own lanes it spoils, and the statuses of these."""

    key: str
    value: np.ndarray
    where: np.ndarray
    allowed: int
    partial: bool = False


class Context(NamedTuple):
    """What a kind of failure may look at."""

    s: Structure
    rng: np.random.Generator
    values: dict
    t0: np.ndarray
    t1: np.ndarray

    def one_lane(self, key: str, new, component=None) -> tuple[np.ndarray, np.ndarray]:
        """Write something into one lane of an argument; return it, and which of its lanes that is."""
        value = np.array(self.values[key])
        lanes = self.s.lane_shape(key)
        where = np.zeros(lanes, bool)
        i = tuple(self.rng.integers(n) for n in lanes)
        where[i] = True
        lane = np.array(value[i])
        lane[component if component is not None else ...] = new[i] if np.ndim(new) else new
        value[i] = lane
        return value, where

    def whole(self, key: str) -> bool:
        """Whether an argument has all lane axes."""
        return all(self.s.mask(key))


def spoil(s: Structure, seed: int, index: int, draw: Draw, share: float = 0.45) -> Draw:
    """Let some lanes of a share of the draws fail."""
    rng = rng_of_failures(seed, index)
    if rng.random() > share or s.switch == "debug_nans":
        return draw
    for _ in range(int(rng.integers(1, 3))):
        names = [str(name) for name in rng.permutation(list(KINDS)) if name not in draw.tags]
        if rng.random() < 0.5:  # those that seldom apply go first
            names.sort(key=lambda name: name not in SELDOM)
        for name in names:
            spoiled = KINDS[name](Context(s, rng, draw.values, *ends(s, draw.healed)))
            if spoiled is not None:
                draw = _with(s, draw, spoiled, name)
                break
    return draw


def _with(s: Structure, draw: Draw, spoiled: Spoiled, name: str) -> Draw:
    where = over_lanes(s, spoiled.key, spoiled.where)
    before = np.where(draw.failing, draw.allowed, 0)
    allowed = np.where(where, before | spoiled.allowed, draw.allowed)
    partial = np.where(where, spoiled.partial & ~draw.failing, draw.partial)
    values = {**draw.values, spoiled.key: spoiled.value}
    spoils = (*draw.spoils, (spoiled.key, name))
    return draw._replace(values=values, allowed=allowed, partial=partial, tags=(*draw.tags, name), spoils=spoils)


def _state(new: Callable, allowed: int, fields=None):
    def kind(c: Context):
        if fields and (c.s.field not in fields or np.any(c.t0 == c.t1)):
            return None
        i = pick(c.rng, [i for i, shape in enumerate(c.s.shapes) if 0 not in shape])
        component = tuple(c.rng.integers(n) for n in c.s.shapes[i])
        value, where = c.one_lane(f"z0.{i}", new(c.s.leaf_dtype(i)), component)
        return Spoiled(f"z0.{i}", value, where, allowed)

    return kind


def _huge(dtype) -> float:
    return 1e30 if dtype == np.float32 else 1e200


def _bad_time(c: Context):
    key = pick(c.rng, ("t0", "t1"))
    new = pick(c.rng, (np.nan, np.inf, -np.inf))
    if c.s.steps == "grid":
        return Spoiled("grid", *c.one_lane("grid", new, int(c.rng.integers(c.s.n + 1))), BAD_INPUT)
    return Spoiled(key, *c.one_lane(key, new), BAD_INPUT)


def _nan_parameter(c: Context):
    if np.any(c.t0 == c.t1):
        return None
    key = f"p.{next(iter(c.s.of.params))}"
    return Spoiled(key, *c.one_lane(key, np.nan), NON_FINITE)


def _negative_tolerance(c: Context):
    if not c.s.compiled:  # a value that is known is refused by name
        return None
    key = pick(c.rng, [k for k in c.values if k.startswith(("rtol", "atol"))] or [""])
    return Spoiled(key, *c.one_lane(key, -1e-6), BAD_INPUT) if key else None


def _unsorted(c: Context):
    if "ts" not in c.values or np.any(c.t0 == c.t1):
        return None
    if c.s.rows > 1 and c.rng.random() < 0.5:
        # the time after t0 by more than any other, but not beyond t1, comes first
        ts = c.values["ts"].copy()
        if not np.all(ts[..., 0] != ts[..., -1]):
            return None
        return Spoiled("ts", ts[..., ::-1], np.ones(ts.shape[:-1], bool), BAD_INPUT)
    ts = c.values["ts"].astype(float)
    reach = under_lanes(c.s, "ts", np.where(c.t1 > c.t0, c.t1 + 0.5, -np.inf))
    if not np.all(np.isfinite(reach)):
        return None
    ts[..., -1] = reach
    return Spoiled("ts", ts.astype(c.s.time_dtype), np.ones(ts.shape[:-1], bool), BAD_INPUT)


def _nan_breakpoint(c: Context):
    if not c.s.points:
        return None
    return Spoiled("points", *c.one_lane("points", np.nan, int(c.rng.integers(c.s.points))), BAD_INPUT)


def _outside_domain(c: Context):
    if "p.end" not in c.values or np.any(c.t0 == c.t1):
        return None
    new = under_lanes(c.s, "p.end", np.minimum(c.t0, c.t1), np.min) - 0.5
    return Spoiled("p.end", *c.one_lane("p.end", new), NON_FINITE)


def _leaves_domain(c: Context):
    if "p.end" not in c.values or np.any(c.t0 == c.t1) or not c.whole("p.end") or not c.s.adaptive:
        return None
    return Spoiled("p.end", *c.one_lane("p.end", (c.t0 + c.t1) / 2), ANY, bool(np.all(c.t1 > c.t0)))


def _blows_up(c: Context):
    if c.s.field != "blowup" or np.any(c.t0 == c.t1) or not c.whole("p.c") or not c.s.adaptive:
        return None
    least = np.min([np.min(c.values[f"z0.{i}"], initial=1.0) for i in range(len(c.s.shapes))])
    return Spoiled("p.c", *c.one_lane("p.c", 3.0 / (least * (c.t1 - c.t0))), ANY)


def _stiff(c: Context):
    key = f"p.{c.s.of.stiff}"
    if key not in c.values or np.any(c.t0 == c.t1) or not c.whole(key) or not c.s.adaptive or c.s.tree == "mixed":
        return None
    zero = any(np.all(c.values[f"z0.{i}"] == 0) for i, shape in enumerate(c.s.shapes) if 0 not in shape)
    if zero or c.s.real != np.float64:
        return None
    return Spoiled(key, *c.one_lane(key, 1e7 / (c.t1 - c.t0)), ANY)


KINDS = {
    "state NaN": _state(lambda dtype: np.nan, NON_FINITE),
    "state infinite": _state(lambda dtype: np.inf, NON_FINITE),
    "state huge": _state(_huge, ANY, ("logistic", "blowup")),
    "time not finite": _bad_time,
    "parameter NaN": _nan_parameter,
    "tolerance negative": _negative_tolerance,
    "times unsorted": _unsorted,
    "breakpoint NaN": _nan_breakpoint,
    "domain left at the start": _outside_domain,
    "domain left on the way": _leaves_domain,
    "blow-up": _blows_up,
    "too many steps": _stiff,
}
SELDOM = (
    "state huge",
    "domain left at the start",
    "domain left on the way",
    "blow-up",
    "too many steps",
    "times unsorted",
)
