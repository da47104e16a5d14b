"""Where experiments keep what they find: a file for each run, so that an experiment goes on where it was stopped."""

import json
import os
import pathlib
from collections.abc import Callable

from benchmarks import timing
from benchmarks.stored import RESULTS, ROOT

FOLDER = RESULTS / "paper"
FIGURES = ROOT / "docs" / "figures"
PAGES = ROOT / "docs" / "results"
SCRATCH = ROOT / "build" / "paper"  # checkpoints of runs that are not finished


def path_of(experiment: str, run: str) -> pathlib.Path:
    """Return the file of one run."""
    return FOLDER / experiment / f"{run}.json"


def checkpoint_of(experiment: str, run: str) -> pathlib.Path:
    """Return the checkpoint of the training of one run."""
    path = SCRATCH / experiment / f"{run}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def kept(experiment: str, run: str, compute: Callable[[], dict]) -> dict:
    """Return what is stored of a run; compute and store it if nothing is."""
    path = path_of(experiment, run)
    if path.exists():
        return json.loads(path.read_text())["result"]
    result = compute()
    write(path, {"machine": timing.machine("jax", "jaxlib", "node-jax"), "result": result})
    return json.loads(path.read_text())["result"]


def write(path: pathlib.Path, content: dict | list) -> None:
    """Write a file as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(part, path)


def results_of(experiment: str) -> dict[str, dict]:
    """Return the results of all stored runs of an experiment by name."""
    return {name: run["result"] for name, run in runs_of(experiment).items()}


def runs_of(experiment: str) -> dict[str, dict]:
    """Return all stored runs of an experiment by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((FOLDER / experiment).glob("*.json"))}
