"""One row of the benchmark: the functions that race, and the record that is stored of them."""

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks import timing
from benchmarks.peers import AGAINST

ENOUGH = 8e9  # bytes of temporary memory on a CPU: what asks for more is not run
PART = 0.5  # of the memory of an accelerator
OURS = "node_jax"
LOOPS = ("evaluations", "evaluations with pullback")
REST = "the rest"
LOOP = 100  # evaluations in the loop of a floor
compiled_before = {}


class Floor(NamedTuple):
    """What a row cannot be faster than: so many evaluations of a field, alone in a loop, and what is not the solve.

    A gradient that stores states only evaluates the stages of accepted steps once more, with their vector-Jacobian
    products.
    """

    field: Callable  # z0, theta -> slopes of all lanes
    evaluations: Callable  # arguments of the row -> evaluations of the solve, and of the way back
    gradient: bool = False  # with the way back
    start: Callable = lambda *args: args  # arguments of the row -> z0, theta
    rest: Callable | None = None  # arguments of the row -> what a model computes besides the solve


class Row(NamedTuple):
    """A comparison: functions of the same arguments, ours first, that give the same answer."""

    name: str
    runs: dict
    args: tuple
    target: dict = {}  # largest ratio to a peer  # noqa: RUF012
    bound: float = 1e-3  # largest difference of answers, relative to the largest entry
    at: dict = {}  # the point of a curve that the row is  # noqa: RUF012
    exact: Any = None  # the solution; every run then returns its answer and the number of evaluations
    floor: Floor | None = None


def measure(row: Row, rounds: int, budget: float) -> dict:
    """Compile and time one row; return its record."""
    packages, runners, answers, first = {}, {}, {}, {}
    for name, function in row.runs.items():
        try:
            runner, packages[name] = prepared(function, row.args)
            begin = time.perf_counter()
            answers[name] = [np.asarray(x) for x in jax.tree.leaves(runner())]
            first[name], runners[name] = time.perf_counter() - begin, runner
        except Exception as error:  # whatever a peer raises: the others go on
            packages[name] = packages.get(name, {}) | {"error": f"{type(error).__name__}: {error}"[:300]}
    if row.floor:
        runners |= loops_of(row)
    times = timing.race(runners, rounds, budget, first)
    bare = {name: times.pop(name) for name in (*LOOPS, REST) if name in times}
    for name, seconds in times.items():
        packages[name] |= timing.spread(seconds)
    record = {"row": row.name, "at": row.at, "packages": packages, "targets": row.target}
    record |= ratios(times)
    if row.exact is None:
        record |= agreement(answers, row.bound)
    else:
        for name, (answer, evaluations) in answers.items():
            packages[name] |= {"error_of_answer": apart(row.exact, answer), "evaluations": int(evaluations)}
    if bare and OURS in times:
        record["floor"] = over_floor(row, times[OURS], bare)
    return record


def compilation(row: Row, rounds: int, budget: float) -> dict:
    """Trace and compile one row, every function `rounds` times in turns, after one that does not count.

    Each time it is done from nothing.
    """
    times: dict = {name: [] for name in row.runs}
    for _ in range(1 + rounds):
        for name, function in row.runs.items():
            times[name].append(timing.compile_anew(function, *row.args)[1])
    times = {name: seconds[1:] for name, seconds in times.items()}
    packages = {name: timing.spread(seconds) for name, seconds in times.items()}
    return {"row": row.name, "at": row.at, "packages": packages, "targets": row.target} | ratios(times)


def prepared(function, args):
    """Return a function of no arguments, and what its compilation took."""
    if hasattr(function, "prepare"):
        return function.prepare(*jax.tree.map(np.asarray, args)), {}
    shapes = str(jax.tree.map(lambda x: (x.shape, x.dtype), args))
    if (function, shapes) not in compiled_before:
        compiled_before[function, shapes] = timing.compile_time(function, *args)
    compiled, seconds, memory = compiled_before[function, shapes]
    if memory > enough():
        raise MemoryError(f"not run: asks for {memory / 1e9:.0f} GB of temporary memory")
    return lambda: compiled(*args), {"compile_s": seconds, "temporary_bytes": memory}


def enough() -> float:
    """Return how many bytes of temporary memory a function may ask for."""
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit") if jax.default_backend() != "cpu" else None
    return PART * limit if limit else ENOUGH


def ratios(times: dict) -> dict:
    """Our time over that of each peer, round by round, of the same method and kind of gradient where we have it."""
    record = {"ratios": {}, "ratio_quartiles": {}, "against": {}}
    for name, theirs in times.items():
        mine = next((one for one in (*AGAINST.get(name, ()), OURS) if one in times), None)
        if name.startswith(OURS) or mine is None:
            continue
        each = by_round(times[mine], theirs)
        record["ratios"][name] = statistics.median(each)
        record["ratio_quartiles"][name] = timing.quartiles(each)
        record["against"][name] = mine
    return record


def by_round(ours: list[float], theirs: list[float]) -> list[float]:
    """Return the ratios of rounds; that of medians where one took part in fewer."""
    return [a / b for a, b in zip(*together(ours, theirs), strict=True)]


def together(*times: list[float]) -> list[list[float]]:
    """Return times round by round; their medians if not all took part in every round."""
    return [*times] if len({*map(len, times)}) == 1 else [[statistics.median(some)] for some in times]


def apart(ours, theirs) -> float | None:
    """How far an answer is from ours, relative to the largest entry; lanes that failed are left out."""
    if not np.isfinite(theirs).any():
        return None
    return float(np.nanmax(np.abs(ours - theirs)) / np.nanmax(np.abs(ours)))


def agreement(answers: dict, bound: float) -> dict:
    """Hold all answers against ours."""
    flat = {name: np.concatenate([np.ravel(x) for x in answer]) for name, answer in answers.items()}
    ours = flat.get(OURS, np.zeros(0))
    found = {name: apart(ours, x) for name, x in flat.items() if name != OURS and x.shape == ours.shape}
    wrong = [name for name, x in found.items() if x is None or not x <= bound]
    return {"differences": found, "bound": bound, "disagree": wrong}


def loops_of(row: Row) -> dict:
    """Return functions of no arguments: loops that only evaluate the field of a row, and the rest of a model."""
    floor, start = row.floor, row.floor.start(*row.args)
    loops = (values_in_loop, slopes_in_loop) if floor.gradient else (values_in_loop,)
    made = {name: (functools.partial(loop, floor.field), start) for name, loop in zip(LOOPS, loops, strict=False)}
    made |= {REST: (floor.rest, row.args)} if floor.rest else {}
    compiled = {name: (timing.compile_time(function, *args)[0], args) for name, (function, args) in made.items()}
    return {name: functools.partial(function, *args) for name, (function, args) in compiled.items()}


def over_floor(row: Row, seconds: list[float], bare: dict[str, list[float]]) -> dict:
    """Time over the number of evaluations times the cost of one, in loops of nothing else that ran in turns."""
    loops = [bare[name] for name in LOOPS if name in bare]
    rest = bare.get(REST, [0.0] * len(loops[0]))
    counts = [int(x) for x in row.floor.evaluations(*row.args)][: len(loops)]
    turns = zip(*together(*loops, rest), strict=True)
    floor = [sum(n * x for n, x in zip(counts, turn, strict=True)) / LOOP + more for *turn, more in turns]
    found = {"evaluations": counts, "one_us": [1e6 * statistics.median(x) / LOOP for x in loops]}
    found |= {"rest_ms": 1e3 * statistics.median(rest)} if REST in bare else {}
    return found | {"ratio": statistics.median(by_round(seconds, floor))}


def values_in_loop(field, z0, theta):
    """Evaluate a field again and again."""
    return lax.fori_loop(0, LOOP, lambda _, z: moved(z, field(z, theta)), z0)


def slopes_in_loop(field, z0, theta):
    """Evaluate a field and its vector-Jacobian product again and again."""

    def body(_, carry):
        z, total = carry
        slope, pull = jax.vjp(field, z, theta)
        z_bar, theta_bar = pull(slope)
        return moved(z, z_bar), jax.tree.map(jnp.add, total, theta_bar)

    return lax.fori_loop(0, LOOP, body, (z0, jax.tree.map(jnp.zeros_like, theta)))


def moved(z, slope):
    """Return a state moved by a little of its slope."""
    return jax.tree.map(lambda x, y: x + 1e-3 * y, z, slope)


def report(record: dict) -> str:
    """Return what is printed of a record."""
    numbers = {
        name: x.get("error") or f"{x['median_ms']:.3g} ms" for name, x in record["packages"].items()
    }  # fmt: skip
    lines = [f"{record['dtype']} {record['row']} {record['at'] or ''}", f"   {numbers}"]
    lines.append(f"   ratios { {k: round(v, 3) for k, v in record['ratios'].items()} } targets {record['targets']}")
    for name in record.get("disagree", []):
        lines.append(f"   DISAGREES: {name} by {record['differences'][name]}, at most {record['bound']} expected")
    if "floor" in record:
        lines.append(f"   {record['floor']['ratio']:.2f} of its floor")
    return "\n".join(lines)
