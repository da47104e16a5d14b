"""Linear maps around linear maps: mapped by `vmap`, differentiated once more, or as the parameter of a primitive.

The map inside is the attribute `linear`. The residuals of the innermost map come first in all of them.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from node_jax import tree
from node_jax.adjoints.parts.boundary import unsupported
from node_jax.engine.each import Each, lift
from node_jax.engine.ensemble import Plan, merged, merged_leaf, plan, restored
from node_jax.lanes.linear import Recording, SolveMap
from node_jax.lanes.ordered import Ordered
from node_jax.lanes.taken import Taken, unused


class Mapped(NamedTuple):
    """A linear map under `vmap`; all tangents and cotangents have the mapped axis first."""

    linear: Any
    dims: tuple
    size: int

    def push(self, residuals, dots) -> list:
        """Push the tangents of every entry."""
        return self._every("push", residuals, dots)

    def pull(self, residuals, bars) -> list:
        """Pull the cotangents of every entry."""
        return self._every("pull", residuals, bars)

    def _every(self, way: str, residuals: Sequence, some: Sequence) -> list:
        """Apply the map to all entries: together, or in chunks if they have more lanes than step together."""
        nest = Nest.of(self)
        planned = nest.planned(residuals)
        if planned is not None:
            return nest.in_chunks(planned, way, residuals, some)
        together = jax.vmap(getattr(self.linear, way), (list(self.dims), 0), axis_size=self.size)
        return together(list(residuals), list(some))


class Applied(NamedTuple):
    """A linear map applied to one flat list: residuals, then tangents or cotangents without those that are `zeros`.

    It is a parameter of a primitive, and not callable, because some versions of JAX hold callables by weak references.
    """

    linear: Any
    count: int
    zeros: tuple[bool, ...] | None = None  # for pull; None: push

    def apply(self, *args) -> list:
        """Push or pull."""
        residuals, some = args[: self.count], args[self.count :]
        if self.zeros is None:
            return self.linear.push(residuals, some)
        known = [not zero for zero in self.zeros]
        return self.linear.pull(residuals, tree.replaced([None] * len(known), known, some))

    def over(self, args: Sequence, dims: Sequence, size: int) -> "Applied":
        """Decide, before `vmap` adds an axis of this size, whether the residuals still hold a usable history."""
        if not innermost(self).solves:
            return self
        nest = Nest.of(self._replace(linear=Mapped(self.linear, tuple(dims[: self.count]), size)))
        one = [nest.one_entry(x, i) for i, x in enumerate(args[: nest.count])]
        return rebuilt(self, lambda solve_map: solve_map.over(one, math.prod(nest.lanes)))


class Derivative(NamedTuple):
    """The derivative of a linear map with respect to its residuals too; it cannot be transposed."""

    linear: Applied
    moving: tuple[bool, ...]

    solves = False
    loses = False

    def push(self, primals, dots) -> list:
        """Push tangents by forward mode."""
        fn = rebuilt(self.linear, lambda linear: linear.within(self.moving))
        chosen = tuple(tree.picked(primals, self.moving))
        return jax.jvp(lambda *some: fn.apply(*tree.replaced(primals, self.moving, some)), chosen, tuple(dots))[1]

    def pull(self, primals, bars) -> list:
        """Raise NotImplementedError."""
        mode = "reverse over forward" if self.linear.zeros is None else "reverse over reverse"
        raise unsupported(innermost(self).call.adjoint, mode)


def chain(linear) -> list:
    """Return a map and all maps inside it, the innermost last."""
    maps = [linear]
    while maps[-1].linear is not None:
        maps.append(maps[-1].linear)
    return maps


def innermost(linear) -> Any:
    """Return the map inside all others."""
    return chain(linear)[-1]


def one_entry(linear) -> Any:
    """Return the map inside the outermost levels of `vmap`."""
    return next(inner for inner in chain(linear) if not isinstance(inner, Mapped))


def rebuilt(linear, change: Callable):
    """Replace the innermost map by `change` of it."""
    if linear.linear is not None:
        return linear._replace(linear=rebuilt(linear.linear, change))
    return change(linear)


class Nest(NamedTuple):
    """All levels of `vmap` around a solve, the outermost first; the first `outer` are outside of every other map.

    A level is a lane axis if its entries are different solves. Of other levels, such as the rows of a Jacobian, only
    tangents have the axis.
    """

    solve_map: Any  # the innermost map
    levels: list[Mapped]
    outer: int
    count: int  # residuals of the innermost map, which come first

    @classmethod
    def of(cls, linear) -> "Nest":
        """Collect the levels of a map."""
        *around, solve_map = chain(linear)
        levels = [level for level in around if isinstance(level, Mapped)]
        last = around[-1]
        count = last.count if isinstance(last, Applied) else len(last.dims)
        return cls(solve_map, levels, len(chain(linear)) - len(chain(one_entry(linear))), count)

    @property
    def own(self) -> list[bool]:
        """Say for each level whether it is a lane axis."""
        return [any(d is not None for d in level.dims[: self.count]) for level in self.levels]

    @property
    def lanes(self) -> list[int]:
        """The sizes of the lane axes."""
        return [level.size for level in tree.picked(self.levels, self.own)]

    def mask(self, i: int) -> tuple[bool, ...]:
        """Say which lane axes residual `i` of the innermost map has."""
        return tuple(level.dims[i] is not None for level in tree.picked(self.levels, self.own))

    def one_entry(self, x: jax.Array, i: int) -> jax.ShapeDtypeStruct:
        """Return the shape of one entry of residual `i` of the innermost map."""
        shape = list(x.shape)
        for level in self.levels:
            if level.dims[i] is not None:
                del shape[level.dims[i]]
        return jax.ShapeDtypeStruct(tuple(shape), x.dtype)

    def planned(self, residuals: Sequence) -> Plan | None:
        """Plan the chunks in which the entries of the outer levels go; None if all go together."""
        lanes = sum(self.own[: self.outer])
        if not (lanes and self.solve_map.solves):
            return None
        call = self.solve_map.call
        masks = [(*self.mask(i), *mask) for i, mask in enumerate(call.masks)]
        limit = call.width([self.one_entry(x, i) for i, x in enumerate(residuals[: len(masks)])], math.prod(self.lanes))
        return plan(Each(call.problem, residuals[: len(masks)], masks, [*self.lanes, *call.lanes]), limit, lanes)

    def in_chunks(self, planned: Plan, way: str, residuals: Sequence, some: Sequence) -> list:
        """Push or pull the entries of the outer levels chunk by chunk."""
        levels, own = self.levels[: self.outer], self.own[: self.outer]
        lanes = [level.size for level in tree.picked(levels, own)]
        planned = planned._replace(kept=tuple(k for k in planned.kept if k < len(lanes)))
        places = [[level.dims[i] for level in levels] for i in range(len(residuals))]
        masks = [tuple(d is not None for d in tree.picked(dims, own)) for dims in places]
        leaves = [_lanes_last(x, dims, own) for x, dims in zip(residuals, places, strict=True)]
        each = merged(Each(self.solve_map.call.problem, leaves, masks, lanes), planned)
        one = [self.one_entry(x, i) for i, x in enumerate(residuals[: self.count])]
        chunks = Ordered.of(each, self._trials(one, each), planned.width)
        inside = Inside(levels[-1].linear, one, tree.picked(levels, [not yes for yes in own]))

        def queued(x):
            x = _lanes_last(x, [0] * len(levels), own)
            return merged_leaf(x, (True,) * len(lanes), lanes, planned)

        some = jax.tree.map(queued, list(some))

        def chunk(buffers, c):
            return inside.apply(way, chunks.part(c), chunks.cut(c, some), buffers)

        buffers = inside.buffers(chunks)
        rows = lax.scan(chunk, buffers, chunks.chunks)[1]
        return [_levels_first(x, own) for x in restored(chunks.joined(rows), lanes, planned)]

    def _trials(self, one: Sequence, each: Each) -> jax.Array:
        """Return the number of trials of every entry; `one` holds the shapes of the residuals of one entry."""
        leaves = len(self.solve_map.call.masks)
        stats = self.solve_map.outcome([*one[:leaves], *range(leaves, self.count)]).stats
        counts = [stats.accepted, stats.rejected]
        total = lift(lambda some, _: jnp.max(some[0] + some[1]), [each.masks[i] for i in counts], each.lanes)
        return total([each.leaves[i] for i in counts], ())


class Inside(NamedTuple):
    """The map inside of the outer levels, applied to a chunk of entries at a time.

    A solve of which nothing is recorded is repeated. Their history is written into buffers that go from chunk to
    chunk.
    """

    linear: Any
    one: Sequence  # shapes of the residuals of one entry
    others: Sequence[Mapped]  # outer levels that are no lane axes

    @property
    def again(self) -> bool:
        """Whether the steps of a chunk are taken again."""
        solve_map = self.linear
        return isinstance(solve_map, SolveMap) and solve_map.recorded is Recording.NEVER and not solve_map.with_history

    def buffers(self, chunks: Ordered) -> Any:
        """Return buffers for the history of a chunk."""
        return unused(self.linear, chunks.part(jnp.zeros((), jnp.int32))) if self.again else ()

    def apply(self, way: str, part: Each, some: Sequence, buffers: Any) -> tuple[Any, list]:
        """Push or pull the entries of a chunk; return the buffers of their history, too."""
        if not self.again:
            return buffers, _applied(part, getattr(self._mapped(self.linear), way), some)
        taken = Taken.of(self.linear, self.one, part, buffers)
        moving = tree.picked(part.masks[: len(self.linear.wanted.moving)], self.linear.wanted.moving)
        if way == "pull" and not self.others and all(map(all, moving)):
            return taken.history, taken.pulled(some)
        part, linear = taken.residuals(), taken.solve_map()
        return taken.history, _applied(part, getattr(self._mapped(linear, len(part.leaves)), way), some)

    def _mapped(self, linear: Any, shared: int | None = None) -> Any:
        """Return a map under the levels that are no lane axes, of which as many residuals as `shared` have none."""
        for level in reversed(self.others):
            dims = [None if d is None else 0 for d in level.dims] if shared is None else [None] * shared
            linear = Mapped(linear, tuple(dims), level.size)
        return linear


def _applied(part: Each, fn: Callable, some: Sequence) -> list:
    """Apply a function to the entries of a chunk; to a single entry without `vmap`, which would batch its loops."""
    if part.lanes[0] > 1:
        return lift(fn, part.masks, part.lanes)(part.leaves, some)
    leaves = [x[..., 0] if mask[0] else x for x, mask in zip(part.leaves, part.masks, strict=True)]
    masks = [mask[1:] for mask in part.masks]
    outs = lift(fn, masks, part.lanes[1:])(leaves, jax.tree.map(lambda x: x[..., 0], some))
    return [x[..., None] for x in outs]


def _lanes_last(x: jax.Array, dims: Sequence, own: Sequence[bool]) -> jax.Array:
    """Move lane axes to the end, the outermost last, and the axes of other levels to the front.

    `dims` give the position of the axis of each level after those of the levels before are removed; None: it has none.
    """
    kinds = [yes for d, yes in zip(dims, own, strict=True) if d is not None]
    for count, d in enumerate(d for d in dims if d is not None):
        x = jnp.moveaxis(x, d + count, count)
    lanes = [k for k, yes in enumerate(kinds) if yes]
    others = [k for k, yes in enumerate(kinds) if not yes]
    return x.transpose(*others, *range(len(kinds), x.ndim), *reversed(lanes))


def _levels_first(x: jax.Array, own: Sequence[bool]) -> jax.Array:
    """Invert `_lanes_last` for a value that has the axes of all levels; they come first."""
    lanes = sum(own)
    last, others = iter(reversed(range(x.ndim - lanes, x.ndim))), iter(range(len(own) - lanes))
    return x.transpose(*(next(last if yes else others) for yes in own), *range(len(own) - lanes, x.ndim - lanes))
