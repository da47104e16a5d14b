"""Tables of docs/results, written between their markers from what is stored."""

from benchmarks import markers
from benchmarks.paper import storage
from benchmarks.report import markdown


def write(page: str) -> None:
    """Write the tables of one page."""
    path = storage.PAGES / f"{page}.md"
    path.write_text(filled(page, path.read_text()))


def filled(page: str, text: str) -> str:
    """Return the text of a page with its tables as they are stored."""
    return markers.filled(text, PAGES[page](storage.runs_of(page)))


def where(runs: dict[str, dict]) -> str:
    """Say what the runs of a page were computed with."""
    names = ("cpu", "cores", "python", "jax")
    machines = {tuple(run["machine"][name] for name in names) for run in runs.values()}
    lines = (f"{cpu}, {cores} cores, Python {python}, jax {jax}." for cpu, cores, python, jax in sorted(machines))
    return " ".join(lines)


def derivations(runs: dict[str, dict]) -> dict[str, str]:
    """Return the tables of the derivations."""
    found = {name: run["result"] for name, run in runs.items()}
    deep, back, system = found["residual_network"], found["backpropagation"], found["linear_system"]
    memory, tolerance = found["memory"], found["tolerance"]
    checks = [
        ["one step of Euler's method is the residual block, bit for bit", "yes",
         "yes" if deep["one_step_is_the_block"] else "no"],
        ["slope of the error of residual blocks, in the number of layers", "-1", f"{deep['slope']:.3f}"],
        ["slope of the error of their gradient", "-1", f"{back['slope']:.3f}"],
        ["gradient in {weights} weights by one transposed system of {states} states, against reverse mode, relative"
         .format(**system), "0", f"{system['transposed_against_reverse']:.0e}"],
        ["the same by one system for each weight", "0", f"{system['forward_against_reverse']:.0e}"],
    ]  # fmt: skip
    sizes = [[name, *(f"{x:,}" for x in of), f"{of[-1] / of[0]:.3g}"] for name, of in memory["bytes"].items()]
    errors = [[name, *(f"{x:.0e}" for x in values)] for name, values in tolerance["errors"].items()]
    return {
        "checks": "\n".join([where(runs), "", *markdown(["", "derived", "found"], checks, 1)]),
        "memory": "\n".join(markdown(["", *(f"{n:,} steps" for n in memory["steps"]), "last over first"], sizes, 1)),
        "errors": "\n".join(markdown(["", *(f"{x:.0e}" for x in tolerance["tolerances"])], errors, 1)),
    }


PAGES = {"derivations": derivations}
