"""Chunks of an ensemble: solves that are known to take about equal numbers of steps go together."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from node_jax import axes, tree
from node_jax.control import Adaptive, Repeated
from node_jax.engine.each import Each
from node_jax.engine.lane import Outcome
from node_jax.types import Inputs, PyTree


class Ordered(NamedTuple):
    """An ensemble with one queued axis, and the order of its solves by their number of trials."""

    each: Each
    order: jax.Array  # shape (*kept, total)
    width: int

    @classmethod
    def of(cls, each: Each, trials: jax.Array, width: int) -> "Ordered":
        """Order the solves, those with most trials first."""
        return cls(each, jnp.argsort(-trials, axis=-1), width)

    @property
    def chunks(self) -> jax.Array:
        """The numbers of the chunks."""
        return jnp.arange(-(-self.each.lanes[0] // self.width))

    def cut(self, c: jax.Array, values: PyTree, own: Sequence[bool] | None = None) -> PyTree:
        """Return the entries of a chunk: of all values, or only of those that `own` says differ between solves."""
        at = lax.dynamic_slice_in_dim(self.order, self._start(c), self.width, axis=-1)

        if own is None:
            return axes.take_lanes(values, at)
        return tree.replaced(values, own, axes.take_lanes(tree.picked(values, own), at))

    def part(self, c: jax.Array) -> Each:
        """Return the engine of a chunk."""
        leaves = self.cut(c, self.each.leaves, [mask[0] for mask in self.each.masks])
        return self.each.replace(leaves=leaves, lanes=(self.width, *self.each.lanes[1:]))

    def new(self, c: jax.Array) -> jax.Array:
        """Say which solves of a chunk were not in the one before; the last chunk may repeat some."""
        return jnp.arange(self.width) >= c * self.width - self._start(c)

    def joined(self, rows: PyTree) -> PyTree:
        """Reorder what the chunks return, stacked, to the order of the ensemble."""
        total, size = self.each.lanes[0], len(self.chunks) * self.width
        place = jnp.argsort(self.order, axis=-1)
        place = jnp.where(place < size - self.width, place, place + size - total)

        flat = jax.tree.map(lambda x: jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:-1], size), rows)
        return axes.take_lanes(flat, place)

    def _start(self, c: jax.Array) -> jax.Array:
        return jnp.minimum(c * self.width, self.each.lanes[0] - self.width)


def repeated(each: Each, outcome: Outcome) -> Each:
    """Return the engine that takes the same steps again, if rows belong to steps; their ends are an additional leaf."""
    inputs = each.inputs
    ends = each(lambda inputs, outcome: inputs.save.ends(outcome.saved.rows))(outcome)
    if ends is None or type(inputs.steps) not in (Adaptive, Repeated):  # others are taken to choose the same steps
        return each
    problem = each.problem._replace(unflatten=_Repeating(each.problem.unflatten))
    return each.replace(
        problem=problem, leaves=[*each.leaves, lax.stop_gradient(ends)], masks=[*each.masks, (True,) * len(each.lanes)]
    )


class _Repeating(NamedTuple):
    """Unflatten inputs whose last leaf holds the ends of steps."""

    unflatten: Callable

    def __call__(self, leaves: Sequence) -> Inputs:
        *own, ends = leaves
        inputs = self.unflatten(own)
        return inputs._replace(steps=Repeated.of(inputs.steps, ends))
