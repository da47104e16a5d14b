"""What the figures of the experiments share."""

from collections.abc import Callable

from benchmarks.figures import STYLE, plt
from benchmarks.paper.storage import FIGURES

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def draw(figures: dict[str, Callable]) -> None:
    """Write figures, each a function without arguments that returns one."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        for name, make in figures.items():
            figure = make()
            figure.savefig(FIGURES / f"{name}.png", metadata={"Software": None})
            plt.close(figure)
