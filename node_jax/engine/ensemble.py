"""The layout of an ensemble for a queue: which lane axes are merged into one, and how values are reordered for that."""

import contextlib
import contextvars
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from node_jax.backends.cpu import during
from node_jax.engine.each import Each
from node_jax.engine.lane import Problem
from node_jax.placement import is_symbolic
from node_jax.types import PyTree

NARROW, WIDE = 64, 256  # most lanes on a CPU, in a loop that is one function and in others (docs/performance.md, Loops)
MEMORY = 4 * 2**30  # bytes that a gradient may keep on a device that does not report its memory

_for_cpu: contextvars.ContextVar[bool | None] = contextvars.ContextVar("for_cpu", default=None)


def lowered_for(cpu: bool) -> contextlib.AbstractContextManager:
    """Within this context, let `on_cpu` know whether the program is lowered for a CPU."""
    return during(_for_cpu, cpu)


def on_cpu() -> bool:
    """Whether the program is for a CPU: until it is lowered, whether the default backend is one."""
    known = _for_cpu.get()
    return jax.default_backend() == "cpu" if known is None else known


def width_of(problem: Problem) -> int | float:
    """Return the largest number of solves that step together (docs/performance.md, Loops)."""
    if problem.lane_width is not None:
        return problem.lane_width
    if not on_cpu():
        return math.inf
    return min(problem.room, NARROW) if problem.room else WIDE


def memory() -> int:
    """Return the bytes that a gradient may keep on an accelerator: half of its memory."""
    stats = None if jax.default_backend() == "cpu" else jax.local_devices()[0].memory_stats()
    return stats["bytes_limit"] // 2 if stats and "bytes_limit" in stats else MEMORY


class Plan(NamedTuple):
    """How an ensemble is queued: along which axes; the other axes, with a queue for each index; lanes of a queue."""

    queued: tuple[int, ...]
    kept: tuple[int, ...]
    width: int


def plan(each: Each, limit: int | float, outer: int | None = None) -> Plan | None:
    """Plan the queue of an ensemble; None if at most `limit` solves are to step together and all do.

    An ensemble of symbolic size is not queued.
    A leaf larger than a state stays shared if it lacks a lane axis: then only such axes are queued. At most the `outer`
    outermost axes may be queued; None: all.
    """
    size = math.prod(each.lanes)
    if is_symbolic(size) or size <= limit:
        return None
    inputs, axes = each.places, range(len(each.lanes))

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
    """Merge the queued lane axes into one, the outermost; a leaf with any of them is broadcast to all lane axes."""
    count = math.prod(each.lanes[k] for k in plan.queued)
    lanes = (count, *(each.lanes[k] for k in plan.kept))
    queued = [any(mask[k] for k in plan.queued) for mask in each.masks]
    masks = [(has, *(has or mask[k] for k in plan.kept)) for has, mask in zip(queued, each.masks, strict=True)]
    leaves = [merged_leaf(x, mask, each.lanes, plan) for x, mask in zip(each.leaves, each.masks, strict=True)]
    return each.replace(leaves=leaves, masks=masks, lanes=lanes)


def merged_leaf(x: jax.Array, mask: Sequence[bool], lanes: Sequence[int], plan: Plan) -> jax.Array:
    """Merge the queued lane axes of one leaf."""
    if not any(mask[k] for k in plan.queued):
        return x
    entry = x.shape[: x.ndim - sum(mask)]
    own = [k for k, has in reversed(list(enumerate(mask))) if has]
    missing = [k for k, has in enumerate(mask) if not has]
    x = jnp.broadcast_to(x.reshape(*x.shape, *[1] * len(missing)), (*x.shape, *(lanes[k] for k in missing)))
    now, wanted = [*own, *missing], [*reversed(plan.kept), *reversed(plan.queued)]
    x = x.transpose(*range(len(entry)), *(len(entry) + now.index(k) for k in wanted))
    count = math.prod(lanes[k] for k in plan.queued)  # -1 would be ambiguous for an entry of size 0
    return x.reshape(*x.shape[: x.ndim - len(plan.queued)], count)


def merged_values(values: PyTree, lanes: Sequence[int], plan: Plan) -> PyTree:
    """Merge the queued lane axes of values that have all lane axes."""
    return jax.tree.map(lambda x: merged_leaf(x, (True,) * len(lanes), lanes, plan), values)


def restored(values: PyTree, lanes: Sequence[int], plan: Plan) -> PyTree:
    """Invert `merged_values`."""
    order = [*reversed(plan.kept), *reversed(plan.queued)]

    def leaf(x):
        shape = x.shape[: x.ndim - 1 - len(plan.kept)]
        x = x.reshape(*x.shape[:-1], *(lanes[k] for k in reversed(plan.queued)))
        back = [order.index(k) + len(shape) for k in reversed(range(len(lanes)))]
        return x.transpose(*range(len(shape)), *back)

    return jax.tree.map(leaf, values)


def column(values: PyTree, i: jax.Array, axes: int) -> PyTree:
    """Return entry `i` of the last `axes` axes of every leaf, flattened into one."""
    return jax.tree.map(lambda x: lax.dynamic_index_in_dim(_flat(x, axes), i, axis=-1, keepdims=False), values)


def put_column(values: PyTree, some: PyTree, i: jax.Array, axes: int) -> PyTree:
    """Replace entry `i` of the last `axes` axes of every leaf, flattened into one, by `some`."""

    def leaf(x, y):
        return lax.dynamic_update_index_in_dim(_flat(x, axes), y, i, axis=-1).reshape(x.shape)

    return jax.tree.map(leaf, values, some)


def _flat(x: jax.Array, axes: int) -> jax.Array:
    shape = x.shape[: x.ndim - axes]
    return x.reshape(*shape, math.prod(x.shape[len(shape) :]))
