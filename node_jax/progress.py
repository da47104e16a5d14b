"""A progress bar with loss, NFE and time left, in a terminal or a notebook."""

import contextlib
import importlib
import sys
from typing import Any

from node_jax.updates import Row, median_loss, total


class _Silent:
    """Stand in for a bar where none is wanted."""

    def update(self, n: int = 1) -> None:
        """Show nothing."""

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        """Show nothing."""


def bar(progress: bool | str, done: int, updates: int) -> contextlib.AbstractContextManager[Any]:
    """Open a bar of `updates` steps, `done` of them done; `progress` is its label, or whether to show it."""
    if progress is False:
        return contextlib.nullcontext(_Silent())
    try:
        tqdm = importlib.import_module("tqdm.auto").tqdm  # only here: tqdm is an optional dependency
    except ImportError:
        print('No progress bar: it needs tqdm (pip install "node-jax[demo]").', file=sys.stderr)
        return contextlib.nullcontext(_Silent())
    label = progress if isinstance(progress, str) else "fit"
    return tqdm(desc=label, initial=done, total=max(done, updates), unit="update", dynamic_ncols=True)


class Tally:
    """Keep the running counts that the bar shows."""

    def __init__(self, history: list[Row]):
        self.failed = sum(total(row.failed) for row in history)
        self.skipped = sum(total(row.skipped) for row in history)

    def show(self, shown: Any, row: Row) -> None:
        """Move the bar by one update."""
        self.failed += total(row.failed)
        self.skipped += total(row.skipped)
        text = f"loss={median_loss(row):.3g}, NFE={total(row.nfe):,}"
        if self.failed:
            text += f", failed={self.failed:,}"
        if self.skipped:
            text += f", skipped={self.skipped:,}"
        shown.set_postfix_str(text, refresh=False)
        shown.update()
