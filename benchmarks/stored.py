"""Where results are stored: those of `make bench` in a folder for each version of JAX, such as results/jax-0.12."""

import pathlib

import jax

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def here() -> pathlib.Path:
    """Return the folder of the version of JAX that runs."""
    return RESULTS / f"jax-{'.'.join(jax.__version__.split('.')[:2])}"


def folders() -> list[pathlib.Path]:
    """Return the folders that there are, the oldest version first."""
    return sorted(RESULTS.glob("jax-*"), key=lambda folder: [int(x) for x in folder.name[len("jax-") :].split(".")])


def newest() -> pathlib.Path:
    """Return the folder of the newest version."""
    return folders()[-1]
