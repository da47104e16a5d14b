"""Which rows of the data each update sees."""

import jax
import numpy as np

from node_jax.train.updates import BATCHES
from node_jax.types import PyTree


def _some(lengths: set[tuple[int, ...]]) -> str:
    """Return the leading axes that data have, with a hint where they are many."""
    hint = "; nj.datasets.pad makes arrays of series of different lengths" if len(lengths) > 1 else ""
    return ", ".join(map(str, sorted(lengths)[:5])) + hint


class Batches:
    """Rows of the data for each update: a permutation an epoch, drawn from the key and the epoch alone."""

    def __init__(self, data: PyTree, batch_size: int | None, key: jax.Array):
        self.size, self.key, self.epoch, self.order = batch_size, key, -1, np.zeros(0, int)
        self.number = 0
        if batch_size is None:
            return
        lengths = {jax.numpy.shape(x)[:1] for x in jax.tree.leaves(data)}
        if len(lengths) != 1 or lengths == {()}:
            raise ValueError(f"batch_size={batch_size}: data needs one leading axis, got {_some(lengths)}")
        ((self.number,),) = lengths
        if batch_size > self.number:
            raise ValueError(f"batch_size must be at most the {self.number} rows of data, got {batch_size}")

    @property
    def in_an_epoch(self) -> int | None:
        """Number of complete batches; None if all of the data are one."""
        return None if self.size is None else self.number // self.size

    def rows(self, update: int) -> np.ndarray | None:
        """Indices of the batch of an update; None for all of the data."""
        if self.size is None:
            return None
        epoch, batch = divmod(update, self.number // self.size)
        if epoch != self.epoch:
            key = jax.random.fold_in(jax.random.fold_in(self.key, BATCHES), epoch)
            self.epoch, self.order = epoch, np.asarray(jax.random.permutation(key, self.number))
        return self.order[batch * self.size : (batch + 1) * self.size]
