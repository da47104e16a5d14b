"""Tables of docs/results, written between their markers from what is stored."""

import statistics

from benchmarks import markers
from benchmarks.paper import storage
from benchmarks.report import markdown

TABLE_2 = {  # Chen et al., 2018, table 2: root mean square error of the extrapolation
    "latent": {30: 0.1642, 50: 0.1502, 100: 0.1346},
    "rnn": {30: 0.3937, 50: 0.3202, 100: 0.1813},
}


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


def latent(runs: dict[str, dict]) -> dict[str, str]:
    """Return the table of the latent ODE."""
    groups: dict = {}
    for run in runs.values():
        result = run["result"]
        groups.setdefault((result["noise"], result["points"], result["model"]), []).append(result)
    rows = [latent_row(key, groups[key]) for key in sorted(groups)]
    head = ["noise", "points", "model", "seeds", "error beyond", "over seeds", "paper", "standardized", "noisy target",
            "error inside", "seconds a run"]  # fmt: skip
    return {"table": "\n".join([where(runs), "", *markdown(head, rows, 3)])}


def latent_row(key: tuple, some: list[dict]) -> list[str]:
    """Return the cells of the runs of one noise, number of points and model."""
    noise, points, model = key
    names = ("beyond", "standardized", "noisy", "inside", "seconds")
    mean = {name: statistics.mean(x[name] for x in some) for name in names}
    beyond = [x["beyond"] for x in some]
    return [
        f"{noise}", f"{points}", model, f"{len(some)}",
        f"{mean['beyond']:.4f}", f"{min(beyond):.3f} to {max(beyond):.3f}",
        f"{TABLE_2.get(model, {}).get(points, '')}", f"{mean['standardized']:.4f}", f"{mean['noisy']:.4f}",
        f"{mean['inside']:.4f}", f"{mean['seconds']:.0f}",
    ]  # fmt: skip


PAGES = {"derivations": derivations, "latent": latent}
