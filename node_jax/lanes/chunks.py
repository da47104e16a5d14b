"""The derivative of an ensemble that went through a queue: a linear map, applied chunk by chunk.

The number of trials of every solve is known by then. Solves with about equal numbers form a chunk, which is solved
again in lockstep with what its derivative needs. Only inputs and outputs are stored. Every adjoint works but `Direct`,
which JAX transposes as it stands.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from node_jax import axes, tree
from node_jax.adjoints.parts.boundary import Cotangents
from node_jax.engine.each import Each
from node_jax.engine.ensemble import Plan, merged, merged_leaf, merged_values, on_cpu, restored
from node_jax.engine.lane import Outcome
from node_jax.engine.lockstep import integrate
from node_jax.lanes.linear import Call, Recording, ends_of, filled
from node_jax.lanes.ordered import Ordered, repeated
from node_jax.types import PyTree


class Chunks(NamedTuple):
    """The linear map of the steps that were taken, with residuals, tangents and results of `SolveMap` without history.

    `solve(call, leaves)` returns the flat outcome of a solve, and JAX can differentiate it.
    """

    call: Call
    moving: tuple[bool, ...]
    plan: Plan
    solve: Callable
    outermost: bool = True  # whether no derivative is taken of this one, so that chunks can share their buffers

    linear = None
    solves = True
    loses = True
    with_history = False

    def results(self, residuals) -> tuple:
        """Return the outputs whose tangents are the results."""
        return ends_of(self.outcome(residuals))

    def outcome(self, residuals) -> Outcome:
        """Return the outcome of the solve."""
        leaves, flat = residuals[: len(self.moving)], residuals[len(self.moving) :]
        return self.call.outcome(leaves, flat, Recording.NEVER)

    def push(self, residuals, dots) -> list:
        """Push tangents through every chunk."""
        ensemble, outcome = self._ordered(residuals)
        masks = tree.picked(self.call.masks, self.moving)
        dots = [merged_leaf(x, mask, self.call.lanes, self.plan) for x, mask in zip(dots, masks, strict=True)]
        own = [mask[0] for mask in tree.picked(ensemble.each.masks, self.moving)]

        def chunk(_, c):
            taken, some = self._taken(ensemble.part(c), ensemble.cut(c, outcome))
            return None, jax.jvp(taken, some, tuple(ensemble.cut(c, dots, own)))[1]

        rows = lax.scan(chunk, None, ensemble.chunks)[1]
        return self._restored(ensemble.joined(rows))

    def pull(self, residuals, bars) -> list:
        """Pull cotangents through every chunk; those of shared leaves are summed over chunks."""
        ensemble, outcome = self._ordered(residuals)
        bars = self._merged(filled(bars, jax.tree.leaves(self.results(residuals))))
        own = [mask[0] for mask in tree.picked(ensemble.each.masks, self.moving)]
        shared = [not yes for yes in own]

        def chunk(carry, c):
            total, history = carry
            part, ended, new = ensemble.part(c), ensemble.cut(c, outcome), ensemble.new(c)
            bar = tree.where(new, ensemble.cut(c, bars), tree.full_like(ensemble.cut(c, bars), 0.0))
            if self.outermost:
                pulled, history = self._back(part, ended, bar, history)
            else:
                taken, some = self._taken(part, ended)
                pulled = jax.vjp(taken, *some)[1](bar)
            return (tree.add(total, tree.picked(pulled, shared)), history), tree.picked(pulled, own)

        zeros = tree.full_like(tree.picked(tree.picked(ensemble.each.leaves, self.moving), shared), 0.0)
        (total, _), rows = lax.scan(chunk, (zeros, self._history(ensemble)), ensemble.chunks)
        apart, total = iter(self._restored(ensemble.joined(rows))), iter(total)
        masks = tree.picked(self.call.masks, self.moving)
        return [axes.sum_missing(next(apart), m) if yes else next(total) for m, yes in zip(masks, own, strict=True)]

    def within(self, moving: Sequence[bool]) -> "Chunks":
        """Return the map for use inside an outer derivative."""
        return self._replace(outermost=False)

    def over(self, residuals, lanes: int) -> "Chunks":
        """Return the map unchanged: it works for any number of lanes."""
        return self

    def _ordered(self, residuals) -> tuple[Ordered, Outcome]:
        outcome = self._merged(self.outcome(residuals))
        each = merged(self.call.each(residuals[: len(self.moving)]), self.plan)
        trials = outcome.stats.accepted + outcome.stats.rejected
        return Ordered.of(each, trials, self._width(residuals)), outcome

    def _width(self, residuals) -> int:
        """Return the solves of each queue in a chunk: on a CPU those of the plan, elsewhere all that fit in memory."""
        queued, kept = (math.prod(self.call.lanes[k] for k in axes) for axes in (self.plan.queued, self.plan.kept))
        limit = self.plan.width if on_cpu() else self.call.width(residuals[: len(self.moving)]) // kept
        return int(max(1, min(limit, queued)))

    def _merged(self, values: PyTree) -> PyTree:
        return merged_values(values, self.call.lanes, self.plan)

    def _restored(self, values: PyTree) -> PyTree:
        return restored(values, self.call.lanes, self.plan)

    def _taken(self, part: Each, outcome: Outcome) -> tuple[Callable, tuple]:
        """Return the solve of a chunk as a function of its moving leaves, and these leaves."""
        part = repeated(part, outcome)
        moving = _and_ends(self.moving, part)
        masks = tuple(map(tuple, part.masks))
        problem = part.problem._replace(lane_width=math.inf)
        call = self.call._replace(problem=problem, lanes=part.lanes, masks=masks)

        def taken(*some):
            leaves = tree.replaced(part.leaves, moving, some)
            outcome = call.outcome(leaves, self.solve(call, leaves), Recording.NEVER)
            return jax.tree.leaves(ends_of(outcome))

        return taken, tuple(tree.picked(part.leaves, moving))

    def _history(self, ensemble: Ordered) -> PyTree:
        """Return the buffers of the history that all chunks share."""
        if not (self.call.adjoint.records and self.outermost):
            return ()
        part = ensemble.part(jnp.zeros((), jnp.int32))
        z, t = part(lambda inputs, _: (inputs.z0, inputs.t0))()
        return self.call.adjoint.recorder(part).blank(z, t)

    def _back(self, part: Each, outcome: Outcome, bar: list, history: PyTree) -> tuple[list, PyTree]:
        """Pull cotangents back through one chunk."""
        adjoint = self.call.adjoint
        if adjoint.records:
            part = repeated(part, outcome)
            outcome, history = integrate(part, adjoint.recorder(part), history)
        moving = _and_ends(self.moving, part)
        structure = jax.tree.structure(ends_of(outcome))
        bars = Cotangents(*jax.tree.unflatten(structure, bar))
        pulled = adjoint.backward(part.replace(moving=moving, shifted=moving), outcome, history, bars)
        return tree.picked(pulled, moving), history


def _and_ends(moving: Sequence[bool], part: Each) -> tuple[bool, ...]:
    """Extend `moving` by the leaf that `repeated` adds, if any: it does not move."""
    return (*moving, *[False] * (len(part.leaves) - len(moving)))
