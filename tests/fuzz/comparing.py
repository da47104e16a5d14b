"""Compare arrays entry by entry, and say what is wrong in words that stay the same for the same fault."""

from typing import Any, NamedTuple

import jax
import numpy as np

from . import tolerances
from .structures import Structure
from .values import Draw, ends, under_lanes


class Finding(NamedTuple):
    """One thing that is wrong: which check, of which argument or output, where, and both numbers."""

    check: str
    key: str
    lane: tuple
    got: Any
    want: Any
    excess: float  # error in units of what is allowed

    @staticmethod
    def of_error(error: Exception) -> "Finding":
        """Describe an exception."""
        lines = str(error).splitlines() or [""]
        return Finding("raises", type(error).__name__, (), lines[0][:160], "no error", np.inf)

    def record(self) -> dict:
        """Return it for JSON."""
        return {
            "check": self.check,
            "key": self.key,
            "lane": [int(i) for i in self.lane],
            "got": str(self.got),
            "want": str(self.want),
            "excess": float(self.excess),
        }


SEVERE = ("raises", "status", "value", "derivative", "against", "alone", "beside", "derivative, failed", "nodes")
MINOR = ("t_reached", "not NaN")


def severity(finding: Finding) -> tuple:
    """Order findings of one draw: what is first in the lists counts most, then what is furthest off."""
    names = (*SEVERE, *MINOR)
    ranks = [i for i, name in enumerate(names) if finding.check.startswith(name)]
    return -max(ranks, default=len(names)), finding.excess


class Entry(NamedTuple):
    """A derivative or output with its reference; `failed` marks what must be zero exactly."""

    label: str
    key: str
    got: np.ndarray
    want: np.ndarray
    every: bool  # whether all lane axes are in front, or those of the argument
    failed: np.ndarray
    shared: int  # lanes summed in it


def entries(s: Structure, failing: np.ndarray, got: Any, want: Any) -> list[Entry]:
    """Pair what a structure returned with what it should have returned."""
    outputs = s.derivative in ("none", "jvp", "vmap_jvp")
    every = outputs or s.derivative in ("vmap_grad", "vmap_hvp", "jacrev")
    result = []
    paths, wanted = jax.tree_util.tree_flatten_with_path(got)[0], jax.tree.leaves(want)
    for (path, x), y in zip(paths, wanted, strict=True):
        label = jax.tree_util.keystr(path, simple=True, separator=".")
        key = "" if outputs else label
        where = failing if every else under_lanes(s, key, failing, np.all)
        x = np.asarray(x)
        failed = np.broadcast_to(where.reshape(where.shape + (1,) * (x.ndim - where.ndim)), x.shape)
        shared = 1 if every else failing.size // max(where.size, 1)
        result.append(Entry(label, key, x, np.asarray(y), every, failed, shared))
    return result


def compare(check: str, pairs: list[Entry], tolerance: float, slack: dict | None = None, span=1.0) -> list[Finding]:
    """Return the worst entry of every pair that is beyond the tolerance.

    That is relative to the size of what is expected, and at least to one for each lane that is summed; derivatives with
    respect to parameters are at most of the order of the `span` of time.
    """
    found = []
    for e in pairs:
        if not e.got.size:
            continue
        good = ~e.failed
        size = np.max(np.abs(e.want[good & np.isfinite(e.want)]), initial=0.0)
        least = min(max(span, 1e-3), 1.0) if e.key.startswith("p.") else 1.0
        allowed = tolerance * (size + least * e.shared**0.5) + (slack or {}).get(e.label, 0.0)
        with np.errstate(invalid="ignore"):
            error = np.where(e.failed, np.where(e.got == 0, 0.0, np.inf), np.abs(e.got - e.want) / allowed)
        error = np.where(np.isnan(error), np.inf, error)
        worst = np.unravel_index(np.argmax(error), error.shape)
        if error[worst] > 1:
            name = f"{check}, failed lane" if e.failed[worst] else check
            want = 0.0 if e.failed[worst] else e.want[worst]
            found.append(Finding(name, e.label, worst, e.got[worst], want, error[worst]))
    return found


def seen_findings(s: Structure, draw: Draw, seen: dict, want: dict, partial: Any) -> list[Finding]:
    """Check statuses, times reached, states and rows."""
    found = []
    status = np.asarray(seen["status"])
    wrong = ((1 << status) & draw.allowed) == 0
    if wrong.any():
        lane = tuple(np.argwhere(wrong)[0])
        allowed = [i for i in range(6) if draw.allowed[lane] >> i & 1]
        found.append(Finding("status", "", lane, status[lane], allowed, np.inf))
    good = ~draw.failing & (status == 0)
    t1 = ends(s, draw.healed)[1]
    late = good & (seen["t_reached"] != t1)
    if late.any():
        lane = tuple(np.argwhere(late)[0])
        found.append(Finding("t_reached", "", lane, seen["t_reached"][lane], t1[lane], np.inf))
    found += _states(s, draw, seen, want, good)
    if s.save == "steps":
        found += _nodes(s, seen, good, t1)
    found += [] if "beyond" not in seen else _beyond(seen)
    if partial is not None:
        found += _before_failure(s, draw, seen, partial, status)
    return found


def _lanes_of(mask: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.broadcast_to(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x.shape)


def _states(s: Structure, draw: Draw, seen: dict, want: dict, good) -> list[Finding]:
    tolerance, found = tolerances.of_values(s, draw.healed), []
    for part in ("z1", "rows"):
        used = good
        if part == "rows" and s.save == "steps":
            used = good[..., None] & (np.arange(s.capacity) < seen["stats"].accepted[..., None])
        for i, x in enumerate(seen.get(part, [])):
            y = want[part][i]
            zero = np.zeros(x.shape, bool)
            kept = _lanes_of(used, x)
            found += compare("value", [Entry(f"{part}.{i}", "", np.where(kept, x, y), y, True, zero, 1)], tolerance)
            lost = ~kept & (_lanes_of(draw.failing, x) if part == "z1" else _lanes_of(good, x))
            if lost.any() and not np.isnan(x[lost]).all() and s.switch != "debug_nans":
                found.append(Finding("not NaN", f"{part}.{i}", (), x[lost][~np.isnan(x[lost])][0], "NaN", np.inf))
    return found


def _nodes(s: Structure, seen: dict, good, t1) -> list[Finding]:
    nodes, count = np.asarray(seen["nodes"], float), np.asarray(seen["stats"].accepted)
    found = []
    for lane in np.argwhere(good):
        i = tuple(lane)
        ts, rest = nodes[i][: count[i]], nodes[i][count[i] :]
        ends_there = not count[i] or ts[-1] == t1[i]
        sorted_there = np.all(np.diff(ts) >= 0) or np.all(np.diff(ts) <= 0)
        unused = np.isnan(rest).all() or s.switch == "debug_nans"
        if not (ends_there and sorted_there and unused):
            found.append(Finding("nodes", "ts", i, ts, t1[i], np.inf))
            break
    return found


def _beyond(seen: dict) -> list[Finding]:
    return [
        Finding("not NaN beyond the ends", f"evaluate.{i}", (), x[~np.isnan(x)][0], "NaN", np.inf)
        for i, x in enumerate(seen["beyond"])
        if not np.isnan(x).all()
    ]


def _before_failure(s: Structure, draw: Draw, seen: dict, want: dict, status) -> list[Finding]:
    """Rows that a lane wrote before it failed are right."""
    found = []
    lanes = draw.partial & (status != 0)
    for i, x in enumerate(seen["rows"]):
        written = _lanes_of(lanes, x) & np.isfinite(x)
        pair = Entry(f"rows.{i}", "", np.where(written, x, 0), np.where(written, want["rows"][i], 0), True, ~written, 1)
        found += compare("value before the failure", [pair._replace(failed=np.zeros(x.shape, bool))], 0.01)
    return found
