"""What a run says: a progress bar with loss, NFE and time left, and warnings at its end."""

import contextlib
import importlib
import sys
import warnings
from typing import Any

import numpy as np

from node_jax.train.recovery import HALVINGS
from node_jax.train.updates import Row


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
        self.failed = sum(_total(row.failed) for row in history)
        self.skipped = sum(_total(row.skipped) for row in history)
        self.recovered = sum(_total(row.recovered) for row in history)

    def show(self, shown: Any, row: Row) -> None:
        """Move the bar by one update."""
        self.failed += _total(row.failed)
        self.skipped += _total(row.skipped)
        self.recovered += _total(row.recovered)
        parts = [f"{name}={np.median(x):.3g}" for name, x in {"loss": row.loss, **row.metrics}.items()]
        counts = {"NFE": _total(row.nfe), "failed": self.failed, "skipped": self.skipped, "went back": self.recovered}
        parts += [f"{name}={count:,}" for name, count in counts.items() if count]
        shown.set_postfix_str(", ".join(parts), refresh=False)
        shown.update()


def _total(x: Any) -> int:
    """Sum over members."""
    return int(np.sum(x))


def warn(rows: Row, fell_back: Any, given_up: Any, unmeasured: bool) -> None:
    """Warn, once, about what a run left out.

    Args:
        rows: history of the run.
        fell_back: whether the last update led to a model whose loss is not finite, for each member.
        given_up: whether the member was given up.
        unmeasured: whether some model had no finite validation score to be chosen by.
    """
    texts = [*_skipped(rows, np.asarray(fell_back)), *_recovered(rows, np.asarray(given_up)), *_failed(rows)]
    if unmeasured:
        texts.append("validate gave no finite score to a model whose loss is finite: the last good model is returned")
    if texts:
        warnings.warn("; ".join(texts), stacklevel=3)


def _skipped(rows: Row, fell_back: Any) -> list[str]:
    number, flat = rows.skipped.size, np.flatnonzero(rows.skipped)
    why = "loss, gradient or step was not finite"
    if flat.size and flat.size == number:
        return [f"all {number:,} updates were skipped, since their {why}: no update was made"]
    texts, never = [], rows.skipped.all(axis=0)
    if flat.size:
        first = int(flat[0]) // max(1, int(np.size(rows.skipped[0])))
        texts.append(f"{flat.size:,} of {number:,} updates were skipped, first update {first}: their {why}")
    if never.any():
        texts.append(f"no update was made of {_some(never)}")
    if np.any(fell_back & ~never):
        texts.append(
            f"the last update left {_some(fell_back & ~never)} with a loss or gradient that is not finite: "
            "the last good model is returned"
        )
    return texts


def _some(members: Any) -> str:
    """Name those meant, of an ensemble or of one model."""
    return f"{np.sum(members):,} of {members.size:,} members" if members.ndim else "the model"


def _recovered(rows: Row, given_up: Any) -> list[str]:
    texts, times = [], _total(rows.recovered)
    if times and not rows.skipped.all():
        back = f"{times:,} time{'s' * (times > 1)}"
        texts.append(
            f"training went back {back} to the last model with a finite loss and gradient, "
            "with cleared moments and steps half as long"
        )
    if given_up.any():
        texts.append(f"{_some(given_up)} was given up within {len(rows.loss):,} updates: {HALVINGS} halvings failed")
    return texts


def _failed(rows: Row) -> list[str]:
    """Samples that failed: a loss that is finite has left them out, the others were not used."""
    failed, unused = _total(rows.failed), _total(rows.failed[rows.skipped])
    if not failed:
        return []
    where = int(np.sum(np.reshape(rows.failed, (len(rows.failed), -1)).any(axis=1)))
    times = f"{failed:,} time{'s' * (failed > 1)}, in {where:,} of {len(rows.failed):,} updates"
    text = f"a solve failed or the data of a sample were not valid {times}; "
    if not unused:
        return [text + "the loss left them out"]
    if unused == failed:
        return [text + "all in updates that were skipped"]
    return [text + f"{unused:,} of them in updates that were skipped, the loss left out the others"]
