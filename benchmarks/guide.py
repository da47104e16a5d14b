"""Write the tables of gradients in docs/ from what `benchmarks.adjoints` stored with the newest JAX, and draw it.

python -m benchmarks.guide
"""

import json
import pathlib

from benchmarks import figures, markers, stored
from benchmarks.stored import ROOT

STORED = stored.newest() / "adjoints.json"
GUIDE = ROOT / "docs" / "gradients.md"
MEASURED = ROOT / "docs" / "benchmarks" / "gradients.md"
SHOWN = (1e-4, 1e-6, 1e-8, 1e-10)  # tolerances


def markdown(head: list[str], rows: list[list[str]], about: str) -> str:
    """Return a table below a line of text; all columns but the first are aligned to the right."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join([about, "", *(f"| {' | '.join(line)} |" for line in lines)])


def where(part: dict) -> str:
    """Say what a part ran on."""
    about = part["machine"]
    versions = ", ".join(f"{name} {about[name]}" for name in ("jax", "diffrax"))
    return f"{about['cpu']}, {about['cores']} cores, Python {about['python']}, {versions}."


def amount(size: float) -> str:
    """Return bytes in a unit that suits them."""
    for unit, scale in (("MiB", 2**20), ("KiB", 2**10)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size:.0f} B"


def shown(value: float | None, form: str = ".1e", missing: str = "not finite") -> str:
    """Return a number, or why there is none."""
    return missing if value is None else format(value, form)


def error_table(part: dict) -> str:
    """Relative errors, a row for each problem and strategy."""
    rows = []
    for row in part["results"]:
        errors = dict(zip(row["tolerances"], row["errors"], strict=True))
        near = {x: next(e for t, e in errors.items() if abs(t / x - 1) < 1e-9) for x in SHOWN}
        rows.append([f"{row['problem']}, {name(row['strategy'])}", *(shown(near[x]) for x in SHOWN)])
    return markdown(["relative error of the gradient at", *(f"{x:.0e}" for x in SHOWN)], rows, where(part))


def name(strategy: str) -> str:
    """Return the name of a strategy of ours as code."""
    return f"`{strategy}`" if strategy.endswith(")") else strategy


def steps_table(part: dict) -> str:
    """Memory and time at the fewest and at the most steps."""
    results = part["results"]
    low, high = (pick(row["n"] for row in results) for pick in (min, max))
    found = {(row["steps"], row["n"], row["strategy"]): row for row in results}
    rows = []
    for strategy in dict.fromkeys(row["strategy"] for row in results):
        few, most = (found["Fixed", n, strategy] for n in (low, high))
        bound = found.get(("Adaptive", high, strategy), {})
        rows.append([
            name(strategy), amount(few["temporary_bytes"]), amount(most["temporary_bytes"]),
            amount(bound["temporary_bytes"]) if bound else "",
            *(shown(row.get("median_ms"), ".3g", "not run") for row in (few, most)),
            shown(most.get("difference"), ".0e", "not run" if "capped" in most else "not finite"),
        ])  # fmt: skip
    head = ["", *(f"bytes, `Fixed({n})`" for n in (low, high)), f"bytes, `max_steps={high}`",
            *(f"ms, `Fixed({n})`" for n in (low, high)), f"difference at {high}"]  # fmt: skip
    text = f"{where(part)} A pendulum; difference: of the gradient from that of `Checkpointed()`, relative."
    return markdown(head, rows, text)


def raced_table(part: dict) -> str:
    """Time, memory and compilation, and the ratios to the counterpart."""
    rows_of = {row["strategy"]: row for row in part["results"]}
    rows = []
    for strategy, row in rows_of.items():
        peer = row.get("counterpart")
        ratios = ["", "", "", ""]
        if peer:
            other = rows_of[peer]
            sizes, compiles = (row[key] / other[key] for key in ("temporary_bytes", "compile_s"))
            ratios = [f"{row['ratios'][peer]:.2g}", f"{sizes:.2g}", f"{compiles:.2g}", peer]
        times = [f"{row['median_ms']:.3g}", amount(row["temporary_bytes"]), f"{row['compile_s']:.2f}"]
        rows.append([name(strategy), *times, *ratios])
    head = ["", "ms", "temporary", "trace and compile, s", "time", "memory", "compile", "ratio to"]
    return markdown(head, rows, f"{where(part)} {part['about']}")


def law_table(part: dict) -> str:
    """States and replays of `Checkpointed` beside the least that is possible."""
    rows = [
        [f"{row['n']:,}", f"{row['slots']}", f"{row['states']}", f"{row['replays_per_step']:.2f}",
         f"{row['least_replays_per_step']:.2f}", f"{row['repetitions']}"]
        for row in part["results"]
    ]  # fmt: skip
    head = ["steps", "`checkpoints`", "states in all", "replays a step", "least replays a step", "r"]
    return markdown(head, rows, part["about"])


def sizes_table(parts: dict) -> str:
    """Time and temporary memory of one gradient by each strategy, from small problems to large ones."""
    rows = [
        [about, *(found_cell(parts[part]["results"], at, strategy) for strategy in STRATEGIES)]
        for about, part, at in SIZES
    ]
    heads = [name(strategy).replace("(checkpoints=16)`", "`, `checkpoints=16`") for strategy in STRATEGIES]
    head = ["solves x components, parameters, steps", *(each.replace("()", "") for each in heads)]
    text = f"{where(parts['steps'])} Milliseconds of one gradient; temporary memory of the compiled gradient."
    return markdown(head, rows, text)


def found_cell(results: list[dict], at: dict, strategy: str) -> str:
    """Return time and memory of the record that fits."""
    for row in results:
        if row["strategy"] == strategy and all(row[key] == value for key, value in at.items()):
            return f"{row['median_ms']:.3g} ms, {amount(row['temporary_bytes'])}"
    return ""


STRATEGIES = ("Checkpointed()", "Checkpointed(checkpoints=16)", "Backsolve()", "Interpolated()", "Direct()")
SIZES = (
    ("1 x 2, 1 parameter, 50 of at most 100 steps", "steps", {"steps": "Adaptive", "n": 100}),
    ("1 x 2, 4 parameters, about 800 of at most 4,096 steps", "single", {}),
    ("1 x 2, 1 parameter, 5,000 of at most 10,000 steps", "steps", {"steps": "Adaptive", "n": 10_000}),
    ("1 x 2, 1 parameter, 50,000 of at most 100,000 steps", "steps", {"steps": "Adaptive", "n": 100_000}),
    ("64 x 2, 114 parameters", "width", {"width": 8}),
    ("64 x 2, 17,154 parameters", "width", {"width": 128}),
    ("64 x 2, 67,074 parameters", "width", {"width": 256}),
    ("256 x 2, 4,482 parameters", "lanes", {}),
)

TABLES = {
    "error": error_table,
    "steps": steps_table,
    "lanes": raced_table,
    "single": raced_table,
    "law": law_table,
}


def filled(page: pathlib.Path, content: dict) -> str:
    """Return the text of a page with every table put between its markers."""
    parts = content["parts"]
    if page == GUIDE:
        return markers.filled(page.read_text(), {"sizes": sizes_table(parts)})
    return markers.filled(page.read_text(), {part: table(parts[part]) for part, table in TABLES.items()})


if __name__ == "__main__":
    found = json.loads(STORED.read_text())
    for page in (GUIDE, MEASURED):
        page.write_text(filled(page, found))
    figures.draw(found["parts"], ROOT / "docs" / "figures")
