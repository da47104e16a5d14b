"""All lanes of a solve: a function of one lane is mapped over them."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from node_jax import axes, tree
from node_jax.backends.cpu import is_emitted
from node_jax.engine.lane import Inputs, Problem, Progress
from node_jax.engine.loops import write_rows
from node_jax.types import PyTree


class Each(NamedTuple):
    """Map a function of one lane over the lanes: `each(fn)(rest)` calls `fn(inputs, rest)`."""

    problem: Problem
    leaves: Sequence[Any]  # arrays, or their shapes
    masks: Sequence[Sequence[bool]]
    lanes: Sequence[int]
    columns: Any = None  # of tables that these lanes write; None: each lane its own

    def __call__(self, fn):
        """Lift `fn(inputs, rest)`."""
        lifted = axes.lift(lambda leaves, rest: fn(self.problem.unflatten(leaves), rest), self.masks, self.lanes)
        return lambda rest=(): lifted(list(self.leaves), rest)

    @property
    def inputs(self) -> Inputs:
        """The inputs of all lanes."""
        return self.problem.unflatten(self.leaves)

    @property
    def places(self) -> Any:
        """The inputs with the place among the leaves in the place of each."""
        return self.problem.unflatten(range(len(self.leaves)))

    def emitted(self, p: Progress) -> bool:
        """Whether a loop around the field of all lanes would be one function on a CPU."""
        if self.problem.room is not None:
            return self.problem.room >= math.prod(self.lanes)
        return is_emitted(self(lambda inputs, p: self.problem.field(p.z, p.t.high, inputs.theta)), p)

    def put(self, chosen: Sequence[bool], some: Sequence) -> "Each":
        """Put `some` in the place of the leaves that are chosen."""
        return self._replace(leaves=tree.replaced(self.leaves, chosen, some))

    def write(self, rows: PyTree, values: PyTree, i: jax.Array) -> PyTree:
        """Write values of shape `(m, *shape, *lanes)` at rows `i` of a table, of each lane its own `i`."""
        return write_rows(rows, values, i, self.columns)
