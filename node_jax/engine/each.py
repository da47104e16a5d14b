"""Map functions of one lane over all lanes of a solve."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax

from node_jax import tree
from node_jax.backends.cpu import is_emitted
from node_jax.engine.lane import Problem, Progress
from node_jax.engine.loops import write_rows
from node_jax.placement import is_symbolic
from node_jax.types import Inputs, PyTree, Size


def lift(fn, masks: Sequence[Sequence[bool]], lanes: Sequence[Size]):
    """Map `fn(leaves, rest)` of one lane over every lane axis.

    The last axes of leaf `i` of `leaves` are the lane axes that `masks[i]` names; `rest` and the result have all lane
    axes, the outermost last. Nothing is repeated over an axis that it lacks.
    """
    for k in reversed(range(len(lanes))):
        axes = [-1 if mask[k] else None for mask in masks]
        fn = jax.vmap(fn, in_axes=(axes, -1), out_axes=-1, axis_size=lanes[k])
    return fn


@dataclasses.dataclass(frozen=True, eq=False)
class Each:
    """The engine of a solve: a problem and the inputs of all lanes.

    `each(fn)(rest)` maps `fn(inputs, rest)` of one lane over all lanes.
    """

    problem: Problem
    leaves: Sequence[Any]  # of the inputs, in a chunk with residuals behind them: arrays, or their shapes
    masks: Sequence[Sequence[bool]]
    lanes: Sequence[Size]
    columns: Any = None  # column of a table for each lane; None: the lanes in their order
    moving: Sequence[bool] = ()  # the leaves in which a derivative is taken; empty outside of one
    shifted: Sequence[bool] = ()  # the leaves that move in it or in an outer derivative

    def __call__(self, fn: Callable) -> Callable:
        """Map `fn(inputs, rest)` over the lanes; return a function of `rest`."""
        lifted = lift(lambda leaves, rest: fn(self.problem.unflatten(leaves), rest), self.masks, self.lanes)
        return lambda rest=(): lifted(list(self.leaves), rest)

    @functools.cached_property
    def inputs(self) -> Inputs:
        """The inputs of all lanes."""
        return self.problem.unflatten(self.leaves)

    @functools.cached_property
    def places(self) -> Any:
        """A tree like the inputs, which holds the index of each leaf in `leaves`."""
        return self.problem.unflatten(range(len(self.leaves)))

    def emitted(self, p: Progress) -> bool:
        """Whether a loop around the field of all lanes can be compiled as one function."""
        count = math.prod(self.lanes)
        if is_symbolic(count):
            return False
        if self.problem.room is not None:
            return self.problem.room >= count
        return is_emitted(self(lambda inputs, p: self.problem.field(p.z, p.t.high, inputs.theta)), p)

    def replace(self, **changes: Any) -> "Each":
        """Return the engine with some attributes replaced."""
        return dataclasses.replace(self, **changes)

    def vjp(self, fn: Callable, at: PyTree = (), rest: PyTree = ()) -> tuple[PyTree, Callable]:
        """Return `fn(inputs, at, rest)` of all lanes, and its transpose.

        The transpose maps cotangents of the result to those of the moving leaves and of `at`. That of a leaf which
        lanes share is the sum of theirs.
        """

        def moved(some, at):
            each = self.replace(leaves=tree.replaced(self.leaves, self.moving, some))
            return each(lambda inputs, both: fn(inputs, *both))((at, rest))

        return jax.vjp(moved, tree.picked(self.leaves, self.moving), at)

    def zeros(self) -> list:
        """Return cotangents of the moving leaves that are zero."""
        return tree.full_like(tree.picked(self.leaves, self.moving), 0.0)

    def of_all(self, bars: Sequence) -> list:
        """Return cotangents of the moving leaves as a list for all leaves, with None for the others."""
        return tree.replaced([None] * len(self.moving), self.moving, bars)

    def write(self, rows: PyTree, values: PyTree, i: jax.Array) -> PyTree:
        """Write values of shape `(m, *shape, *lanes)` at rows `i` of a table, where each lane has its own `i`."""
        return write_rows(rows, values, i, self.columns)
