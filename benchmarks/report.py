"""Markdown of stored results: ratios, losses, missed targets, floors and details."""

import math

import numpy as np

from benchmarks.reasons import reason

TITLES = {
    "singles": "Single systems",
    "lanes": "Batches of 256 and 1,024 lanes",
    "ensembles": "Ensembles",
    "networks": "Neural fields",
    "fixed": "Fixed steps",
    "models": "Models: gradients in the weights",
    "compilation": "Trace and compile",
    "dimensions": "Size of the state",
    "batches": "Size of the batch",
    "precision": "Work-precision",
}
OURS = "node_jax"
OWN = ("lockstep", "lockstep, few steps", "without", "clean batch")  # node_jax otherwise: no peers
PEERS = (
    "diffrax", "diffrax Backsolve", "diffrax lax.map", "diffrax common steps", "tinydiffeq", "tinydiffeq forward",
    "jax odeint", "torchdiffeq", "torchdiffeq adjoint", "torchode", "scipy", "scan", *OWN,
)  # fmt: skip
AHEAD = 1.1
ITS_FLOOR = "its floor"
FLOOR = 1.3  # largest ratio to it, if the row states no other
UNITS = {"size": "components", "count": "lanes"}


def markdown(head: list[str], rows: list[list[str]], left: int = 2) -> list[str]:
    """Return the lines of a table; all columns but the first ones are aligned to the right."""
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * left + ["---:"] * (len(head) - left), *rows)]


def machine(group: dict) -> str:
    """Say what a result was measured on."""
    found = group["machine"]
    names = ("jax", "diffrax", "tinydiffeq", "torch", "torchdiffeq", "torchode", "scipy")
    versions = ", ".join(f"{name} {found[name]}" for name in names if found.get(name))
    return f"{found['cpu']}, {found['cores']} cores, Python {found['python']}, {versions}."


def about(group: dict) -> str:
    """Say what a result was measured on, and what its ratios are."""
    return (
        f"{machine(group)} Time of node_jax divided by that of the peer, median over interleaved rounds; below 1"
        " node_jax is faster."
    )


def label(record: dict) -> str:
    """Return the name of a row, and the point it is."""
    at = record["at"]
    return ", ".join([record["row"], *(f"{at[key]:,} {unit}" for key, unit in UNITS.items() if key in at)])


def columns(results: list[dict], own: bool) -> list[str]:
    """Return the packages that any row has, in a fixed order."""
    found = dict.fromkeys(name for record in results for name in record["packages"])
    mine = [name for name in found if name.startswith(OURS)] if own else []
    return mine + [name for name in PEERS if name in found]


def ratio_table(results: list[dict], without=()) -> list[str]:
    """Return a table of ratios, a column for each peer."""
    peers = [name for name in columns(results, own=False) if name not in without]
    rows = []
    for record in results:
        cells = [ratio_cell(record, peer) for peer in peers]
        rows.append([label(record), record["dtype"], time_cell(record["packages"][OURS]), *cells])
    return markdown(["", "dtype", "node_jax, ms", *peers], rows)


def time_cell(package: dict) -> str:
    """Return milliseconds, or that it failed."""
    return "failed" if "error" in package else f"{package['median_ms']:.3g}"


def ratio_cell(record: dict, peer: str) -> str:
    """Return a ratio: bold where the peer is ahead, marked where answers differ."""
    if "error" in record["packages"].get(peer, {}):
        return "failed"
    if peer not in record["ratios"]:
        return ""
    ratio = record["ratios"][peer]
    text = f"**{ratio:.2g}**" if ratio > AHEAD and peer not in OWN else f"{ratio:.2g}"
    return text + (" ≠" if peer in record.get("disagree", ()) else "")


def detail_table(results: list[dict]) -> list[str]:
    """Return time, seconds of tracing and compiling, and temporary memory of every package."""
    names = columns(results, own=True)
    rows = [[label(record), record["dtype"], *(detail_cell(record["packages"].get(name)) for name in names)]
            for record in results]  # fmt: skip
    head = ["ms; s to trace and compile; temporary memory", "dtype", *names]
    summary = '<details markdown="1"><summary>Times, compilation and memory of every package</summary>'
    return [summary, "", *markdown(head, rows), "", "</details>"]


def detail_cell(package: dict | None) -> str:
    """Return time, compilation and memory of one package; nothing is compiled outside JAX."""
    if package is None:
        return ""
    if "compile_s" not in package:
        return time_cell(package)
    return f"{time_cell(package)}; {package['compile_s']:.2f}; {amount(package['temporary_bytes'])}"


def amount(size: float) -> str:
    """Return bytes in a unit that suits them."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size:.0f} B"


def failures(results: list[dict]) -> list[str]:
    """Return what failed, and why: one line for each package and message."""
    found: dict = {}
    for record in results:
        for name, package in record["packages"].items():
            if "error" in package:
                found.setdefault((name, package["error"]), []).append(f"{label(record)} ({record['dtype']})")
    lines = [f"- {name}: {'; '.join(rows)}: `{' '.join(error.split())}`" for (name, error), rows in found.items()]
    return ["", "Failed:", "", *lines] if lines else []


def floor_table(results: list[dict]) -> list[str]:
    """Return time over floor where a row has one."""
    with_floor = [x for x in results if "floor" in x]
    if not with_floor:
        return []
    note = (
        "Floor: the evaluations of the solve, and for a gradient those of the stages of accepted steps with their"
        " vector-Jacobian products, each at what it costs alone in a loop. The last column leaves those of the solve"
        " out, as if a gradient could do without."
    )
    rest = any("rest_ms" in x["floor"] for x in with_floor)
    note += " The rest of a model is its gradient without the solve, and part of the floor." if rest else ""
    head = ["", "dtype", "evaluations", "one, us", *["rest, ms"] * rest, "time over floor", "over pullbacks alone"]
    return [note, "", *markdown(head, [floor_row(x, rest) for x in with_floor]), ""]


def floor_row(record: dict, rest: bool) -> list[str]:
    """Return the cells of one floor."""
    floor = record["floor"]
    counts, each, more = floor["evaluations"], floor["one_us"], floor.get("rest_ms", 0.0)
    alone = record["packages"][OURS]["median_ms"] * 1e3 / (counts[-1] * each[-1] + 1e3 * more)
    return [
        label(record), record["dtype"], " + ".join(map(str, counts)), " + ".join(f"{x:.3g}" for x in each),
        *[f"{more:.3g}" if more else ""] * rest, f"{floor['ratio']:.2f}", f"{alone:.2f}" if len(counts) > 1 else "",
    ]  # fmt: skip


def comparable(groups: dict):
    """Yield (row, dtype, peer, ratio) of all comparisons with peers; work-precision curves count once each."""
    for name, group in groups.items():
        if name == "precision":
            yield from at_equal_error(group["results"])
            continue
        for record in group["results"]:
            for peer, ratio in record["ratios"].items():
                if peer not in OWN:
                    yield label(record), record["dtype"], peer, ratio


def comparisons(groups: dict) -> int:
    """Return how many comparisons with peers there are."""
    return len(list(comparable(groups)))


def losses(groups: dict) -> list[tuple]:
    """Return the comparisons in which the peer is ahead by more than 10 %, the worst first."""
    return sorted((x for x in comparable(groups) if x[3] > AHEAD), key=lambda x: -x[3])


def loss_table(groups: dict) -> list[str]:
    """Return the losses with their reasons."""
    rows = [[row, dtype, peer, f"{ratio:.2g}", reason(row, dtype, peer)] for row, dtype, peer, ratio in losses(groups)]
    if not rows:
        return ["None."]
    return [f"{len(rows)} of {comparisons(groups)} comparisons.", "",
            *markdown(["", "dtype", "peer", "ratio", "reason"], rows, 5)]  # fmt: skip


def missed_table(groups: dict) -> list[str]:
    """Return the targets that were missed, and what the floor of a row is to the same."""
    rows = [
        [label(x), x["dtype"], to, f"{ratio:.2g}", f"{target:.2g}", floor_cell(x, ratio)]
        for group in groups.values()
        for x in group["results"]
        for to, ratio, target in held(x)
        if ratio > target
    ]
    return markdown(["", "dtype", "ratio to", "ratio", "target", "floor"], rows, 3) if rows else ["None."]


def floor_cell(record: dict, ratio: float) -> str:
    """Return what a ratio would be if a row took no longer than its floor."""
    return f"{ratio / record['floor']['ratio']:.2g}" if "floor" in record else ""


def held(record: dict):
    """Yield (to what, ratio, largest ratio asked for) of one row."""
    for peer, target in record["targets"].items():
        if peer in record["ratios"]:
            yield peer, record["ratios"][peer], target
    if "floor" in record:
        yield ITS_FLOOR, record["floor"]["ratio"], record["targets"].get(ITS_FLOOR, FLOOR)


def differing(groups: dict) -> list[str]:
    """Return the answers that are farther from ours than the row states."""
    rows = [
        [label(x), x["dtype"], name, gap_cell(x["differences"][name]), f"{x['bound']:.0e}"]
        for group in groups.values()
        for x in group["results"]
        for name in x.get("disagree", ())
    ]
    return markdown(["", "dtype", "", "difference", "bound"], rows, 3) if rows else ["None."]


def gap_cell(gap: float | None) -> str:
    """Return a difference."""
    return "not finite" if gap is None or not math.isfinite(gap) else f"{gap:.1e}"


# Work-precision.


def curves_of(results: list[dict], quantity: str) -> dict:
    """Return (row, dtype, method) -> package -> (errors, values), errors ascending."""
    found: dict = {}
    for record in results:
        of = found.setdefault((record["row"], record["dtype"], record["at"]["method"]), {})
        for name, package in record["packages"].items():
            error, value = package.get("error_of_answer"), package.get(quantity, -1)
            if error and error < 1 and value > 0:
                of.setdefault(name, []).append((error, value))
    return {key: {name: np.array(sorted(x)).T for name, x in of.items()} for key, of in found.items()}


def at_equal_error(results: list[dict], quantity: str = "median_ms"):
    """Yield (row and method, dtype, peer, ratio): geometric mean over the errors that both reach."""
    for (row, dtype, method), of in curves_of(results, quantity).items():
        for peer in PEERS:
            if peer in of and OURS in of:
                low, high = (pick(a, b) for pick, a, b in zip((max, min), ends(of[OURS]), ends(of[peer]), strict=True))
                if low < high:
                    errors = np.linspace(math.log(low), math.log(high), 9)
                    mine, other = (np.interp(errors, *np.log(of[name])) for name in (OURS, peer))
                    yield f"{row}, {method}", dtype, peer, float(np.exp(np.mean(mine - other)))


def ends(curve) -> tuple:
    """Return the smallest and the largest error."""
    return curve[0][0], curve[0][-1]


def precision_table(results: list[dict]) -> list[str]:
    """Return ratios of time, and of evaluations where both count them, at the same error."""
    lines = []
    for title, quantity in (("time", "median_ms"), ("evaluations", "evaluations")):
        cells: dict = {}
        for row, dtype, peer, ratio in at_equal_error(results, quantity):
            cells.setdefault((row, dtype), {})[peer] = f"**{ratio:.2g}**" if ratio > AHEAD else f"{ratio:.2g}"
        peers = [peer for peer in PEERS if any(peer in of for of in cells.values())]
        rows = [[*key, *(of.get(peer, "") for peer in peers)] for key, of in cells.items()]
        lines += [f"Ratios of {title} at the same error, geometric mean over the errors that both reach.", ""]
        lines += [*markdown(["", "dtype", *peers], rows), ""]
    return lines[:-1]
