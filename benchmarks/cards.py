"""What is stored of accelerators, in Markdown: checks and rows of each card, and an earlier measurement."""

import json

from benchmarks import report
from benchmarks.stored import RESULTS

EARLIER = RESULTS / "gpu_earlier.json"
NOT_MEASURED = "Not measured with this version: no card has stored results of `python -m benchmarks.gpu`."


def stored() -> list[dict]:
    """Return the stored results of all cards; those of small runs are none."""
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    return [x for x in found if "card" in x and not x.get("rows", {}).get("small")]


def accelerators(_groups: dict) -> str:
    """Return the report of all cards."""
    cards = stored()
    lines = [line for card in cards for line in of_card(card)] or [NOT_MEASURED, ""]
    return "\n".join([*lines, *earlier(json.loads(EARLIER.read_text()))])


def of_card(content: dict) -> list[str]:
    """Return the lines of one card."""
    lines = [f"### {content['card']}", ""]
    if "rows" in content:
        lines += of_rows(content["rows"])
    if "checks" in content:
        lines += of_checks(content["checks"])
    return lines


def of_rows(part: dict) -> list[str]:
    """Return the ratios and details of rows, and who did not take part."""
    results = part["results"]
    lines = [report.about(part), "", *report.ratio_table(results), "", *report.detail_table(results)]
    lines += [*report.failures(results), ""]
    lines += [f"- Left out: {name}: {why}." for name, why in part["left_out"].items()]
    lines += [f"- Not run within the budget: {name}." for name in part["not_run"]]
    return [*lines, ""]


def of_checks(part: dict) -> list[str]:
    """Return how many checks hold, and those that do not."""
    results = part["results"]
    wrong = [x for x in results if not x["ok"]]
    text = f"Against float64 on the host's CPU, {len(results) - len(wrong)} of {len(results)} checks hold"
    worst = {
        dtype: max((x["difference"] for x in results if x["dtype"] == dtype and x["ok"]), default=0.0)
        for dtype in ("float64", "float32")
    }
    lines = [f"{text}; differences up to {', '.join(f'{x:.0e} in {dtype}' for dtype, x in worst.items())}.", ""]
    rows = [[x["check"], x["dtype"], x.get("error") or of_wrong(x)] for x in wrong]
    lines += [*report.markdown(["does not hold", "dtype", ""], rows, 3), ""] if rows else []
    return lines + [f"- Not run within the budget: {name}." for name in part["not_run"]]


def of_wrong(record: dict) -> str:
    """Say what is wrong."""
    ends = f", ends {', '.join(sorted(set(record['statuses'])))}" if "statuses" in record else ""
    return f"difference {report.gap_cell(record['difference'])}, at most {record['bound']:.0e} expected{ends}"


def earlier(content: dict) -> list[str]:
    """Return the table of the earlier measurement."""
    versions = ", ".join(f"{name} {number}" for name, number in content["versions"].items())
    head = list(content["results"][0])
    rows = [list(x.values()) for x in content["results"]]
    return [f"### Earlier: {content['device']}, {versions}", "", content["note"], "",
            *report.markdown(["ms", *head[1:]], rows)]  # fmt: skip
