"""One chunk of solves under `vmap`, solved again in lockstep with what its derivative needs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from node_jax import tree
from node_jax.adjoints.parts.boundary import Cotangents
from node_jax.engine.each import Each
from node_jax.engine.lane import Outcome
from node_jax.engine.lockstep import integrate
from node_jax.lanes.linear import Recording, SolveMap, ends_of, filled
from node_jax.lanes.ordered import repeated
from node_jax.types import PyTree


def unused(solve_map: SolveMap, part: Each) -> PyTree:
    """Return the empty buffers of a history for a chunk."""
    each = _whole(solve_map, part)
    z, t = each(lambda inputs, _: (inputs.z0, inputs.t0))()
    return solve_map.call.adjoint.recorder(each).blank(z, t)


class Taken(NamedTuple):
    """The entries of a chunk after they were solved again."""

    before: SolveMap  # the map without history
    part: Each
    each: Each  # of all lanes of all entries
    outcome: Outcome
    history: Any

    @classmethod
    def of(cls, solve_map: SolveMap, one: Sequence, part: Each, used: PyTree) -> "Taken":
        """Solve the entries again and record over the buffers `used`; `one` has the residual shapes of one entry."""
        count = len(solve_map.wanted.moving)
        each = repeated(_whole(solve_map, part), solve_map.outcome([*one[:count], *part.leaves[count:]]))
        return cls(solve_map, part, each, *integrate(each, solve_map.call.adjoint.recorder(each), used))

    def pulled(self, bars: Sequence) -> list:
        """Pull cotangents back through all entries as one ensemble, if they share no moving leaf."""
        outs, structure = jax.tree.flatten(ends_of(self.outcome))
        bar = Cotangents(*jax.tree.unflatten(structure, filled(bars, outs)))
        each = self.before.wanted.of(self.each)
        found = self.before.call.adjoint.backward(each, self.outcome, self.history, bar)
        return tree.picked(found, each.moving)

    def solve_map(self) -> SolveMap:
        """Return the linear map, whose residuals hold the history now."""
        call, ends = self.before.call, len(self.each.leaves) - len(self.before.wanted.moving)
        call = call._replace(problem=self.each.problem, masks=(*call.masks, *[(True,) * len(call.lanes)] * ends))
        wanted = self.before.wanted.longer(len(self.each.leaves))
        return self.before._replace(call=call, wanted=wanted, recorded=Recording.ALWAYS)

    def residuals(self) -> Each:
        """Return the residuals of that map, with masks, as an engine."""
        count, outer = len(self.before.wanted.moving), len(self.part.lanes)
        ends = self.each.leaves[count:]
        flat, closed = jax.tree.leaves(self.outcome), self.history.closed()
        has_lanes = [True] * (len(ends) + len(flat)) + closed.has_lanes()
        return self.part.replace(
            leaves=[*self.part.leaves[:count], *ends, *flat, *jax.tree.leaves(closed)],
            masks=[*self.part.masks[:count], *((yes,) * outer for yes in has_lanes)],
        )


def _whole(solve_map: SolveMap, part: Each) -> Each:
    """Return the engine of all lanes of a chunk: the axes of its entries, then those of the call."""
    call = solve_map.call
    leaves = part.leaves[: len(call.masks)]
    masks = [(*own, *mask) for own, mask in zip(part.masks, call.masks, strict=False)]
    return Each(call.problem, leaves, masks, (*part.lanes, *call.lanes))
