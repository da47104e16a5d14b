"""Find a smaller draw that shows the same."""

import time
from collections.abc import Iterator

import numpy as np

from .checks import check, lane_of
from .comparing import Finding
from .failing import KINDS
from .structures import PAIRS, Structure
from .values import Draw

SECONDS = 60.0  # most time spent on one fault


def shrink(s: Structure, draw: Draw, finding: Finding) -> tuple[Structure, Draw, Finding]:
    """Return a structure and a draw, perhaps smaller, and what is wrong with them."""
    until = time.monotonic() + SECONDS
    for change in CHANGES:
        for smaller in change(s, draw, finding):
            if time.monotonic() > until:
                return s, draw, finding
            same = [f for f in check(*smaller) if same_fault(f, finding)]
            if same:
                (s, draw), finding = smaller, max(same, key=lambda f: f.excess)
                break
    return s, draw, finding


def same_fault(a: Finding, b: Finding) -> bool:
    """Whether two findings are of one kind."""
    if a.check == "raises":
        return b.check == "raises" and a.key == b.key and str(a.got)[:40] == str(b.got)[:40]
    return a.check == b.check and a.key.split(".")[0] == b.key.split(".")[0]


def _mapped(draw: Draw, fn) -> Draw:
    return draw._replace(values=fn(draw.values), healed=fn(draw.healed))


def _one_lane(s: Structure, draw: Draw, finding: Finding) -> Iterator:
    if not s.lanes or finding.check == "alone":
        return
    lanes = [tuple(i) for i in np.argwhere(draw.failing)][:2] + [tuple(i) for i in np.argwhere(~draw.failing)][:3]
    at = tuple(finding.lane[: len(s.lanes)])
    if len(at) == len(s.lanes) and all(i < n for i, n in zip(at, s.lanes, strict=True)):
        lanes.insert(0, at)
    alone = s.replace(lanes=(), masks=(), alone=False)
    for lane in dict.fromkeys(lanes):
        one = _mapped(draw, lambda values, lane=lane: lane_of(s, values, lane))
        allowed, partial = np.array(draw.allowed[lane]), np.array(draw.partial[lane])
        one = one._replace(allowed=allowed, partial=partial)
        if allowed == 1:
            one = one._replace(tags=tuple(t for t in draw.tags if t not in KINDS), spoils=())
        yield alone, one


def _one_axis(s: Structure, draw: Draw, finding: Finding) -> Iterator:
    """Take one entry of the outermost of several lane axes."""
    if len(s.lanes) < 2:
        return

    def taken(values, i):
        outer = {k: s.mask(k.removeprefix("v.")) for k in values}
        return {k: x[i] if outer[k][0] else x for k, x in values.items()}

    fewer = s.replace(lanes=s.lanes[1:], masks=tuple((k, mask[1:]) for k, mask in s.masks))
    for i in range(min(s.lanes[0], 2)):
        one = _mapped(draw, lambda values, i=i: taken(values, i))
        yield fewer, one._replace(allowed=draw.allowed[i], partial=draw.partial[i])


def _two_lanes(s: Structure, draw: Draw, finding: Finding) -> Iterator:
    if len(s.lanes) != 1 or s.lanes[0] < 3:
        return
    bad, good = np.flatnonzero(draw.failing), np.flatnonzero(~draw.failing)
    chosen = np.array([*bad[:1], *good[:3]])[:2]

    def taken(values):
        return {k: x[chosen] if any(s.mask(k.removeprefix("v."))) else x for k, x in values.items()}

    two = _mapped(draw, taken)
    two = two._replace(allowed=draw.allowed[chosen], partial=draw.partial[chosen])
    for width in (None, 1):  # 1: the lanes take turns, as many lanes do
        yield s.replace(lanes=(len(chosen),), width=width), two


def _plain(s: Structure, draw: Draw, finding: Finding) -> Iterator:
    if s.wrapper != "plain" or not s.compiled:
        yield s.replace(wrapper="plain", compiled=s.switch != "disable_jit"), draw


def _derivative(s: Structure, draw: Draw, finding: Finding) -> Iterator:
    for derivative in ("none", "grad"):
        if s.derivative != derivative and derivative in ("none", *s.strategy.derivatives):
            yield s.replace(derivative=derivative), draw


def _fewer_arguments(s: Structure, draw: Draw, finding: Finding) -> Iterator:
    groups = [g for g in ("z0", "p", *s.times) if g == finding.key.split(".")[0]]
    for group in (*groups, *(g for g in s.wrt if len(s.wrt) > 1)):
        if (group,) != s.wrt:
            yield s.replace(wrt=(group,)), draw


def _fewer_failures(s: Structure, draw: Draw, finding: Finding) -> Iterator:
    """Undo all kinds of failures but one; its lanes alone may have to fail."""
    for key, name in draw.spoils if len(draw.spoils) > 1 else ():
        if any(k == key and n != name for k, n in draw.spoils):
            continue
        tags = tuple(t for t in draw.tags if t not in KINDS or t == name)
        values = {**draw.healed, key: draw.values[key]}
        if not s.lanes:
            yield s, draw._replace(values=values, tags=tags, spoils=((key, name),))


def _save(s: Structure, draw: Draw, finding: Finding) -> Iterator:
    if s.save != "end" and not any(key == "ts" for key, _ in draw.spoils):
        yield s.replace(save="end", uses="both"), draw
    if s.save == "fn":
        yield s.replace(save="at"), draw


def _adjoint(s: Structure, draw: Draw, finding: Finding) -> Iterator:
    for adjoint in ("nj.Checkpointed()", "nj.Direct()"):
        if adjoint != s.adjoint:
            yield s.replace(adjoint=adjoint), draw


def _home(s: Structure, draw: Draw, finding: Finding) -> Iterator:
    if s.home != "theta":
        yield s.replace(home="theta"), draw


def _method(s: Structure, draw: Draw, finding: Finding) -> Iterator:
    if s.control or s.width:
        yield s.replace(control="", width=None), draw
    if s.method != "tsit5":
        yield s.replace(method="tsit5"), draw


def _tree(s: Structure, draw: Draw, finding: Finding) -> Iterator:
    tree = "pair" if s.of.pairs else "scalar"
    if (
        s.tree in (tree, "mixed")
        or s.tree not in (*PAIRS, "vector", "dict", "tuple", "empty leaf")
        or s.steps == "leaf"
    ):
        return
    shape = s.shapes[0]
    left = len(shape) - (1 if s.of.pairs else 0)
    for i in np.ndindex(*shape[:left]):

        def taken(values, i=i):
            result = {}
            for k, x in values.items():
                name, _, leaf = k.rpartition(".")
                if name in ("z0", "w.z1", "w.rows", "v.z0"):
                    if leaf != "0":
                        continue
                    tail = (*i, slice(None)) if s.of.pairs else i
                    x = x[(..., *tail)]
                result[k] = np.asarray(x)
            return result

        yield s.replace(tree=tree), _mapped(draw, taken)


def _double(s: Structure, draw: Draw, finding: Finding) -> Iterator:
    dtype = "complex128" if s.dtype.startswith("complex") else "float64"
    if s.switch == "x32" or (s.dtype == dtype and s.time_dtype == "float64"):
        return
    kinds = {"f": np.float64, "c": np.complex128}

    def taken(values):
        return {k: np.asarray(x, kinds.get(x.dtype.kind, x.dtype)) for k, x in values.items()}

    yield s.replace(dtype=dtype, time_dtype="float64"), _mapped(draw, taken)


def _weights(s: Structure, draw: Draw, finding: Finding) -> Iterator:
    yield s, _mapped(draw, lambda values: {k: np.ones_like(x) if k.startswith("w.") else x for k, x in values.items()})


def _switch(s: Structure, draw: Draw, finding: Finding) -> Iterator:
    if s.switch not in ("", "x32"):
        yield s.replace(switch=""), draw


CHANGES = (
    _switch,
    _one_lane,
    _one_axis,
    _two_lanes,
    _fewer_failures,
    _plain,
    _derivative,
    _fewer_arguments,
    _save,
    _adjoint,
    _home,
    _tree,
    _double,
    _method,
    _weights,
)
