"""Run a draw and hold what comes out against what is known."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from . import tolerances
from .comparing import MINOR, Entry, Finding, compare, entries, seen_findings
from .references import expected
from .solves import derivative_of, solve, split, under, wrapped
from .structures import SECOND, Structure
from .values import Draw, ends


class Output(NamedTuple):
    """What a structure returned for one draw."""

    derivative: Any
    seen: dict


def check(s: Structure, draw: Draw) -> list[Finding]:
    """Return everything that is wrong with a draw."""
    try:
        got = run(s, draw.values)
    except Exception as error:  # whatever it is, the draw found it
        return [Finding.of_error(error)]
    healed = {**draw.healed, "keep": ~draw.failing}
    want = reference(s, healed, got.seen)
    found = seen_findings(s, draw, got.seen, want.seen, _partial(s, draw, got.seen))
    found += _against_reference(s, draw, healed, got, want)
    if draw.failing.any() and not draw.failing.all():
        found += _without_failures(s, draw, got, healed)
    if not all(f.check.startswith(MINOR) for f in found):
        return found
    if s.partner:
        found += _against_partner(s, draw, got)
    if s.alone:
        found += _against_alone(s, draw, got)
    return found


@functools.lru_cache(maxsize=16)
def program(s: Structure):
    """Return the function that solves all lanes of a structure and differentiates."""
    fn = derivative_of(s, wrapped(s, functools.partial(solve, s)))
    return jax.jit(fn) if s.compiled else fn


def run(s: Structure, values: dict) -> Output:
    """Run it."""
    with under(s.switch):
        parts = [{k: jnp.asarray(x) for k, x in part.items()} for part in split(s, values)]
        return Output(*jax.tree.map(np.asarray, program(s)(*parts)))


@functools.lru_cache(maxsize=16)
def reference_program(s: Structure, of: str):
    """Return the function that gives what a structure should return."""
    return jax.jit(derivative_of(s, functools.partial(expected, s, of=of)))


def reference(s: Structure, values: dict, seen: dict, of: str = "steps") -> Output:
    """Return what a structure should return; `seen` says which steps were taken."""
    values = {k: _double(x) for k, x in values.items()}
    if s.save == "steps":
        t0 = np.broadcast_to(ends(s, values)[0][..., None], seen["nodes"].shape)
        values["nodes"] = np.where(np.isnan(seen["nodes"]), t0, seen["nodes"]).astype(float)
        values["count"] = np.asarray(seen["stats"].accepted)
    return Output(*jax.tree.map(np.asarray, reference_program(s, of)(*split(s, values))))


def forget() -> None:
    """Drop all compiled programs."""
    program.cache_clear()
    reference_program.cache_clear()
    jax.clear_caches()


def _double(x):
    kind = {"c": np.complex128, "f": np.float64}.get(x.dtype.kind)
    return x if kind is None else x.astype(kind)


def _comparable(s: Structure, draw: Draw, found: list[Entry]) -> list[Entry]:
    """Leave out what has two sides in this draw."""
    if not draw.skipped & set(s.differentiated):
        return found
    mixes = s.derivative in (*SECOND, "jvp", "vmap_jvp")
    return [] if mixes else [e for e in found if e.key not in draw.skipped]


def _partial(s: Structure, draw: Draw, seen: dict) -> Any:
    """Return the rows that lanes which fail on their way should have before."""
    if not draw.partial.any() or s.save not in ("at", "fn", "steps"):
        return None
    return reference(s, draw.values, seen).seen


def _against_reference(s, draw, healed, got: Output, want: Output) -> list[Finding]:
    pairs = _comparable(s, draw, entries(s, draw.failing, got.derivative, want.derivative))
    slack = {e.label: tolerances.of_zero(s, healed) for e in pairs}
    if s.strategy.of == "flow" and not s.adaptive:
        other = reference(s, healed, got.seen, of="flow").derivative
        both = entries(s, draw.failing, want.derivative, other)
        gaps = {e.label: 10 * np.max(np.abs(e.got - e.want), initial=0.0) for e in both}
        slack = {label: max(least, gaps[label]) for label, least in slack.items()}
    value = s.derivative == "none"
    tolerance = (tolerances.of_values if value else tolerances.of_derivatives)(s, healed)
    span = float(np.max(np.abs(np.subtract(*ends(s, healed)))))
    return compare("value" if value else "derivative", pairs, tolerance, slack, span)


def _without_failures(s: Structure, draw: Draw, got: Output, healed: dict) -> list[Finding]:
    """Compare with the same lanes beside healthy ones whose outputs the loss does not read."""
    other = run(s, healed).derivative
    pairs = entries(s, draw.failing, got.derivative, other)
    pairs = [e._replace(got=np.where(e.failed, 0, e.got)) for e in pairs]  # these were compared before
    return compare("beside failures", pairs, tolerances.of_order(s))


def _same_steps(a: dict, b: dict, lane=...) -> bool:
    """Whether two programs took as many steps, and as far as is known the same: rounding of an estimate may differ."""
    if "nodes" in a and not np.allclose(a["nodes"][lane], b["nodes"], rtol=0, atol=1e-12, equal_nan=True):
        return False
    return all(np.array_equal(x[lane], y) for x, y in zip(a["stats"][1:3], b["stats"][1:3], strict=True))


def _against_partner(s: Structure, draw: Draw, got: Output) -> list[Finding]:
    other = s.replace(adjoint=s.partner)
    try:
        theirs = run(other, draw.values)
    except Exception as error:
        return [Finding.of_error(error)]
    if not _same_steps(got.seen, theirs.seen):
        return []
    pairs = _comparable(s, draw, entries(s, draw.failing, got.derivative, theirs.derivative))
    return compare(f"against {s.partner}", pairs, tolerances.of_rounding(s, draw.values))


def _against_alone(s: Structure, draw: Draw, got: Output) -> list[Finding]:
    """Compare one lane of the batch with the same solve alone."""
    healthy = np.argwhere(~draw.failing)
    if not len(healthy):
        return []
    lane = tuple(healthy[len(draw.tags) % len(healthy)])
    alone = s.replace(lanes=(), masks=(), alone=False)
    try:
        theirs = run(alone, lane_of(s, draw.values, lane))
    except Exception as error:
        return [Finding.of_error(error)]
    found = []
    if got.seen["status"][lane] != theirs.seen["status"]:
        found.append(Finding("status alone", "", lane, got.seen["status"][lane], theirs.seen["status"], np.inf))
    if not _same_steps(got.seen, theirs.seen, lane):
        return found
    mine = entries(s, draw.failing, got.derivative, got.derivative)
    other = {e.label: e for e in entries(alone, np.array(False), theirs.derivative, theirs.derivative)}
    pairs = []
    for e in mine:
        if e.every or all(s.mask(e.key)):
            want = other[e.label].got
            pairs.append(Entry(e.label, e.key, np.asarray(e.got[lane]), want, True, np.zeros(np.shape(want), bool), 1))
    return found + compare("alone", _comparable(s, draw, pairs), tolerances.of_rounding(s, draw.values))


def lane_of(s: Structure, values: dict, lane: tuple) -> dict:
    """Return the arguments of one lane."""
    result = {}
    for key, x in values.items():
        mask = s.mask(key.removeprefix("v."))
        result[key] = x[tuple(i for i, yes in zip(lane, mask, strict=True) if yes)]
    return result
