"""A process that runs structures: it reads their numbers, one a line, and writes what it found as lines of JSON."""

import json
import sys
import time
import traceback
import warnings
from typing import TextIO

from .checks import check, forget
from .comparing import Finding, severity
from .draws import draw_structure
from .failing import spoil
from .programs import program
from .shrinking import shrink
from .structures import VALUES, Structure
from .values import Draw, draw_values

SWITCHES = 0.05  # share of structures that run under one of JAX's
OFTEN = 12  # structures after which compiled programs are dropped
MINOR_TAGS = ("outputs", "short")
UNTAGGED = ("raises", "t_reached", "not NaN beyond the ends")


def draw(seed: int, index: int, switches: float) -> tuple[Structure, Draw]:
    """Return draw `index` of a seed."""
    s = draw_structure(seed, index // VALUES, switches)
    return s, spoil(s, seed, index, draw_values(s, seed, index))


def signature(s: Structure, d: Draw, finding: Finding) -> str:
    """Say what kind of fault this is."""
    what = finding.got if finding.check == "raises" else finding.key.split(".")[0]
    steps = "adaptive" if s.steps == "leaf" else s.steps
    tags = ", ".join(sorted({t for t in d.tags if not t.startswith(MINOR_TAGS)}))
    over = f" {s.adjoint} {s.derivative}"
    if finding.check in ("status", "value", "t_reached") or finding.check.startswith("not NaN"):
        over = ""
    return (
        f"{finding.check} {what} | {steps} {s.save}{over} | {s.switch} | {'' if finding.check in UNTAGGED else tags}"[
            :300
        ]
    )


def coarse(kind: str) -> str:
    """Return a kind without what is special about its values: one program for each will do."""
    return kind.rpartition(" | ")[0]


def record(seed: int, index: int, switches: float, known: set[str] | None) -> dict:
    """Run a draw and return the record of it; a fault that is not `known` is shrunk (None: none is)."""
    start = time.monotonic()
    s, d = draw(seed, index, switches)
    result: dict = {"index": index, "ok": True}
    try:
        found = check(s, d)
        if found:
            worst = max(found, key=severity)
            result |= {"ok": False, "kind": signature(s, d, worst), "findings": [f.record() for f in found[:4]]}
            result |= {"tags": list(d.tags), "structure": describe(s)}
            if known is not None and coarse(result["kind"]) not in known:
                known.add(coarse(result["kind"]))
                smaller = shrink(s, d, worst)
                result |= {"program": program(*smaller), "kind": signature(*smaller)}
    except Exception as error:  # a fault of this tool
        result |= {"ok": False, "kind": f"the fuzzer itself: {error!r}"[:200], "program": traceback.format_exc()}
    return result | {"seconds": round(time.monotonic() - start, 2)}


def describe(s: Structure) -> dict:
    """Return what a structure differs in from the plainest."""
    plain = Structure(s.field)
    return {k: v for k, v in vars(s).items() if k == "field" or (v != getattr(plain, k) and k != "masks")}


def serve(lines: TextIO, out: TextIO, seed: int, switches: float, draws: int) -> None:
    """Run the structures whose numbers come in."""
    known: set[str] = set()
    for count, line in enumerate(lines, 1):
        first, before = int(line) * VALUES, len(known)
        for index in range(first, min(first + VALUES, draws)):
            out.write(json.dumps(record(seed, index, switches, known)) + "\n")
            out.flush()
        out.write(json.dumps({"structure": int(line)}) + "\n")
        out.flush()
        if count % OFTEN == 0 or len(known) > before:  # shrinking compiles dozens
            forget()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    results, sys.stdout = sys.stdout, sys.stderr  # what a draw prints is no result
    serve(sys.stdin, results, int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
