"""Identities around a derivative, whose transposes decide which cotangents of lanes count.

`Guard` stands at the outputs of a derivative, unless it goes through chunks, whose solves have their own. `Gate`, at
the inputs, and `Asked`, at the outputs, stand around code that JAX transposes itself. The adjoints that pull cotangents
back on their own set aside lanes in `adjoints/parts/boundary.py`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp

from node_jax import axes, tree
from node_jax.lanes.linear import SolveMap

SHARED = 64  # largest size of a shared leaf that is broadcast to all lanes


def with_own(solve_map: SolveMap, residuals: Sequence, dots: list) -> tuple[SolveMap, list, list]:
    """Broadcast small shared leaves to the lanes, so that the gate can stop what single lanes contribute."""
    call, moving = solve_map.call, solve_map.wanted.moving
    count = len(moving)

    def own(x, mask):
        shape = x.shape[: x.ndim - sum(mask)]
        apart = jnp.expand_dims(x, [len(shape) + len(mask) - 1 - k for k, has in enumerate(mask) if not has])
        return jnp.broadcast_to(apart, (*shape, *reversed(call.lanes)))

    leaves = residuals[:count]
    small = [moves and x.size <= SHARED for moves, x in zip(moving, leaves, strict=True)]
    masks = [(True,) * len(mask) if yes else mask for mask, yes in zip(call.masks, small, strict=True)]
    leaves = [own(x, mask) if yes else x for x, mask, yes in zip(leaves, call.masks, small, strict=True)]
    pairs = zip(dots, tree.picked(call.masks, moving), tree.picked(small, moving), strict=True)
    dots = [own(t, mask) if yes else t for t, mask, yes in pairs]
    return solve_map._replace(call=call._replace(masks=tuple(masks))), [*leaves, *residuals[count:]], dots


class Guard(NamedTuple):
    """The identity, except that tangents of lost outputs and nonzero cotangents of them become NaN."""

    linear = None
    solves = False
    loses = True
    with_history = False

    def push(self, lost, dots) -> list:
        """Make tangents of lost outputs NaN."""
        return [jnp.where(no, jnp.nan, t) for no, t in zip(lost, dots, strict=True)]

    def pull(self, lost, bars) -> list:
        """Make nonzero cotangents of lost outputs NaN."""
        return [g if g is None else jnp.where(no & (g != 0), jnp.nan, g) for no, g in zip(lost, bars, strict=True)]


class Gate(NamedTuple):
    """The identity, except that cotangents of inputs that no lane used become zero, even if they are NaN.

    Residuals say which lanes succeeded and which took a step. A lane that failed counts only if its outputs have
    nonzero cotangents, and those of lost outputs are NaN. `Gate` takes and returns one more tangent, zero for each
    lane, which ends in `Asked`. Its cotangent is how `Asked` tells the gate which lanes have nonzero cotangents.
    """

    masks: tuple

    linear = None
    solves = False
    loses = False
    with_history = False

    def push(self, lanes, dots) -> list:
        """Return the tangents."""
        return list(dots)

    def pull(self, lanes, bars) -> list:
        """Set the cotangents of unused inputs to zero."""
        (ok, taken), (*bars, asked) = lanes, bars
        counts = ok | (taken & (asked != 0))
        pairs = zip(bars, self.masks, strict=True)
        some = [g if g is None else axes.contributed(g, counts, jnp.isnan(asked), mask) for g, mask in pairs]
        return [*some, jnp.zeros_like(asked)]


class Asked(NamedTuple):
    """The identity, except that a last tangent ends here; its cotangent says which lanes have nonzero or NaN ones."""

    lanes: int

    linear = None
    solves = False
    loses = False
    with_history = False

    def push(self, _, dots) -> list:
        """Drop the last tangent."""
        return list(dots[:-1])

    def pull(self, like, bars) -> list:
        """Append, for each lane, the number of cotangents that are not zero, or NaN."""
        asked = jnp.zeros_like(like[0])
        for g in bars:
            if g is not None:
                entry = tuple(range(g.ndim - self.lanes))
                any_here = jnp.any(g != 0, axis=entry).astype(asked.dtype)
                asked = asked + jnp.where(jnp.any(jnp.isnan(g), axis=entry), jnp.nan, any_here)
        return [*bars, asked]
