"""Pages of docs/results: their tables, written between their markers from what is stored."""

import functools

from benchmarks import markers
from benchmarks.paper import event_figures, storage, tables, vowel_figures

PAGES = {  # of each page the experiments it shows, and what makes tables of their results
    "cheaper": {"cheaper": tables.cheaper},
    "derivations": {"derivations": tables.derivations},
    "flows": {"likelihood": tables.likelihood, "matching": tables.matching},
    "images": {
        "images": tables.images,
        "accuracy": tables.accuracy,
        "digits": functools.partial(tables.images, name="digits"),
    },
    "latent-ode": {"latent": tables.latent},
    "point-process": {"events": event_figures.tables_of},
    "spheres": {"spheres": tables.spheres},
    "vowels": {"vowels": vowel_figures.tables},
}


def write(page: str) -> None:
    """Write the tables of one page."""
    path = storage.PAGES / f"{page}.md"
    path.write_text(filled(page, path.read_text()))


def filled(page: str, text: str) -> str:
    """Return the text of a page with its tables as they are stored."""
    every, machines = {}, {}
    for experiment, function in PAGES[page].items():
        runs = storage.runs_of(experiment)
        every |= function({name: run["result"] for name, run in runs.items()})
        machines |= {f"{experiment}-{name}": run["machine"] for name, run in runs.items()}
    return markers.filled(text, every | {"machine": where(machines)})


def where(machines: dict[str, dict]) -> str:
    """Say what the runs of a page were computed with."""
    names = ("cpu", "cores", "python", "jax")
    lines = {tuple(machine[name] for name in names) for machine in machines.values()}
    return " ".join(f"{cpu}, {cores} cores, Python {python}, jax {jax}." for cpu, cores, python, jax in sorted(lines))
