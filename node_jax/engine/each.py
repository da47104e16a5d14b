"""All lanes of a solve: a function of one lane is mapped over them."""

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
from node_jax.types import Inputs, PyTree


def lift(fn, masks: Sequence[Sequence[bool]], lanes: Sequence[int]):
    """Map `fn(leaves, rest)` of one lane over every lane axis.

    Leaf `i` of `leaves` has at its end the axes that `masks[i]` names, `rest` and the result have all of them there,
    the outermost last. Nothing is repeated over an axis that it does not depend on, and the same component of all
    lanes is contiguous.
    """
    for k in reversed(range(len(lanes))):
        axes = [-1 if mask[k] else None for mask in masks]
        fn = jax.vmap(fn, in_axes=(axes, -1), out_axes=-1, axis_size=lanes[k])
    return fn


@dataclasses.dataclass(frozen=True, eq=False)
class Each:
    """Map a function of one lane over the lanes: `each(fn)(rest)` calls `fn(inputs, rest)`."""

    problem: Problem
    leaves: Sequence[Any]  # arrays, or their shapes
    masks: Sequence[Sequence[bool]]
    lanes: Sequence[int]
    columns: Any = None  # of tables that these lanes write; None: each lane its own

    def __call__(self, fn: Callable) -> Callable:
        """Lift `fn(inputs, rest)`."""
        lifted = lift(lambda leaves, rest: fn(self.problem.unflatten(leaves), rest), self.masks, self.lanes)
        return lambda rest=(): lifted(list(self.leaves), rest)

    @functools.cached_property
    def inputs(self) -> Inputs:
        """The inputs of all lanes."""
        return self.problem.unflatten(self.leaves)

    @functools.cached_property
    def places(self) -> Any:
        """The inputs with the place among the leaves in the place of each."""
        return self.problem.unflatten(range(len(self.leaves)))

    def emitted(self, p: Progress) -> bool:
        """Whether a loop around the field of all lanes would be one function on a CPU."""
        if self.problem.room is not None:
            return self.problem.room >= math.prod(self.lanes)
        return is_emitted(self(lambda inputs, p: self.problem.field(p.z, p.t.high, inputs.theta)), p)

    def replace(self, **changes: Any) -> "Each":
        """Return the engine with other parts."""
        return dataclasses.replace(self, **changes)

    def put(self, chosen: Sequence[bool], some: Sequence) -> "Each":
        """Put `some` in the place of the leaves that are chosen."""
        return self.replace(leaves=tree.replaced(self.leaves, chosen, some))

    def write(self, rows: PyTree, values: PyTree, i: jax.Array) -> PyTree:
        """Write values of shape `(m, *shape, *lanes)` at rows `i` of a table, of each lane its own `i`."""
        return write_rows(rows, values, i, self.columns)
