"""What the figures of the experiments share."""

from collections.abc import Callable

from benchmarks.figures import write
from benchmarks.paper.storage import FIGURES

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def draw(figures: dict[str, Callable]) -> None:
    """Write figures of docs, each by name a function without arguments that returns one."""
    write(FIGURES, figures)
