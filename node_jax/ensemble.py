"""How an ensemble is laid out for a queue: which of its lane axes become one, and its values as rows of a table."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from node_jax.integrate import Each
from node_jax.types import PyTree

WIDTHS = {"cpu": 256}  # measured, see docs/performance.md
WIDTH = 4096  # of other backends; not measured


def width_of(lane_width: int | float | None) -> int | float:
    """Return the most trajectories that step together."""
    return WIDTHS.get(jax.default_backend(), WIDTH) if lane_width is None else lane_width


class Plan(NamedTuple):
    """Which lane axes are queued, one after the other, and how many trajectories step together.

    Each index of the other axes has a queue of its own.
    """

    queued: tuple[int, ...]
    kept: tuple[int, ...]
    width: int


def plan(each: Each, outer: int | None = None) -> Plan | None:
    """Say how an ensemble is queued; None if all of its trajectories step together.

    A leaf larger than a state stays shared where it lacks a lane axis: then the queue runs along that axis. With
    `outer`, so many of the outermost axes may be queued; default: all.
    """
    size = math.prod(each.lanes)
    limit = width_of(each.problem.lane_width)
    if size <= limit:
        return None
    inputs, axes = each.problem.unflatten(range(len(each.leaves))), range(len(each.lanes))

    def entry(i):
        own = math.prod(n for n, has in zip(each.lanes, each.masks[i], strict=True) if has)
        return each.leaves[i].size // max(1, own)

    state = sum(entry(i) for i in jax.tree.leaves(inputs.z0))
    large = [i for i in jax.tree.leaves(inputs.theta) if entry(i) > state]
    queued = tuple(axes[:outer])
    for i in sorted(large, key=entry, reverse=True):
        shared = tuple(k for k in queued if not each.masks[i][k])
        queued = shared or queued
    kept = tuple(k for k in axes if k not in queued)
    width = max(1, int(limit) // math.prod(each.lanes[k] for k in kept))
    total = math.prod(each.lanes[k] for k in queued)
    return Plan(queued, kept, width) if width < total else None


def merged(each: Each, plan: Plan) -> Each:
    """Make one lane axis, the outermost, of all that are queued; a leaf that has some of them gets all axes."""
    count = math.prod(each.lanes[k] for k in plan.queued)
    lanes = (count, *(each.lanes[k] for k in plan.kept))
    queued = [any(mask[k] for k in plan.queued) for mask in each.masks]
    masks = [(has, *(has or mask[k] for k in plan.kept)) for has, mask in zip(queued, each.masks, strict=True)]
    leaves = [merged_leaf(x, mask, each.lanes, plan) for x, mask in zip(each.leaves, each.masks, strict=True)]
    return each._replace(leaves=leaves, masks=masks, lanes=lanes)


def merged_leaf(x: jax.Array, mask: Sequence[bool], lanes: Sequence[int], plan: Plan) -> jax.Array:
    """Do that for one leaf."""
    if not any(mask[k] for k in plan.queued):
        return x
    entry = x.shape[: x.ndim - sum(mask)]
    own = [k for k, has in reversed(list(enumerate(mask))) if has]
    missing = [k for k, has in enumerate(mask) if not has]
    x = jnp.broadcast_to(x.reshape(*x.shape, *[1] * len(missing)), (*x.shape, *(lanes[k] for k in missing)))
    now, wanted = [*own, *missing], [*reversed(plan.kept), *reversed(plan.queued)]
    x = x.transpose(*range(len(entry)), *(len(entry) + now.index(k) for k in wanted))
    count = math.prod(lanes[k] for k in plan.queued)  # -1 would be ambiguous for an entry without elements
    return x.reshape(*x.shape[: x.ndim - len(plan.queued)], count)


def restored(values: PyTree, lanes: Sequence[int], plan: Plan) -> PyTree:
    """Invert `merged` for values that have all lane axes."""
    order = [*reversed(plan.kept), *reversed(plan.queued)]

    def leaf(x):
        shape = x.shape[: x.ndim - 1 - len(plan.kept)]
        x = x.reshape(*x.shape[:-1], *(lanes[k] for k in reversed(plan.queued)))
        back = [order.index(k) + len(shape) for k in reversed(range(len(lanes)))]
        return x.transpose(*range(len(shape)), *back)

    return jax.tree.map(leaf, values)


class Packed(NamedTuple):
    """Values of all lanes, one array of rows for each dtype: they are moved between lanes by one gather each."""

    rows: list[jax.Array]

    @staticmethod
    def of(values: PyTree, lanes: int) -> "Packed":
        """Pack leaves with that many lane axes at their end."""
        groups: dict = {}
        for x in jax.tree.leaves(values):
            groups.setdefault(x.dtype, []).append(x.reshape(-1, *x.shape[x.ndim - lanes :]))
        return Packed([jnp.concatenate(group) for group in groups.values()])

    def unpack(self, like: PyTree, lanes: int) -> PyTree:
        """Invert `of`; `like` has the structure, the dtypes and the shapes of entries."""
        streams, used = {x.dtype: x for x in self.rows}, dict.fromkeys((x.dtype for x in self.rows), 0)

        def leaf(x):
            shape, first = x.shape[: x.ndim - lanes], used[x.dtype]
            used[x.dtype] += math.prod(shape)
            rows = streams[x.dtype][first : used[x.dtype]]
            return rows.reshape(*shape, *rows.shape[1:])

        return jax.tree.map(leaf, like)

    def take(self, i: jax.Array) -> "Packed":
        """Return the entries `i`, shape `(*kept, width)`, of the last axis."""
        return jax.tree.map(lambda x: jnp.take_along_axis(x, i[None], axis=-1, mode="clip"), self)

    def put(self, i: jax.Array, some: "Packed") -> "Packed":
        """Write entries `i` of the last axis."""

        def write(x, i, y):
            return x.at[:, i].set(y, mode="promise_in_bounds", unique_indices=True)

        for _ in range(i.ndim - 1):
            write = jax.vmap(write, in_axes=(-2, -2, -2), out_axes=-2)
        return jax.tree.map(lambda x, y: write(x, i, y), self, some)
