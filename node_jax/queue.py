"""The lane engine fed from a queue: an ensemble larger than the lane width goes through lanes that refill.

A lane that is done waits until a few others are, then all of them write down their results and take the next
trajectories. When none is left and few lanes live, these go on in a narrower loop. Which trajectory a lane holds
decides nothing but the order of work, so results are those of lockstep.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from node_jax import tree
from node_jax.ensemble import Packed, Plan, merged, restored
from node_jax.fused import fused
from node_jax.integrate import Each, Packing, advance, concluded
from node_jax.problem import Outcome, Progress, begin
from node_jax.types import RUNNING, PyTree, Status

WAITING = 16  # the part of the lanes that wait before they are refilled: each refill costs about two trials
NARROWER, NARROWEST, LOOPS = 4, 16, 3  # loops shrink by that factor once as few lanes live; each is compiled


class Lanes(NamedTuple):
    """What each lane holds: progress, what its save counts, its trajectory, and the turn in which it was loaded."""

    p: Progress
    counts: PyTree
    who: jax.Array
    since: jax.Array


class State(NamedTuple):
    """The carry of the loops; `taken` trajectories have left each queue, `turn` counts trials of all lanes."""

    lanes: Lanes
    leaves: list  # those of the lanes
    tables: PyTree
    done: Packed
    taken: jax.Array
    turn: jax.Array


class Queue(NamedTuple):
    """An ensemble whose first lane axis waits for a lane."""

    each: Each
    waiting: Packed  # first progress, counts and leaves of all trajectories
    first: tuple  # their structure
    order: jax.Array  # trajectories as they are loaded, shape (*kept, total)

    @property
    def total(self) -> int:
        """Trajectories in each queue."""
        return self.each.lanes[0]

    @property
    def own(self) -> list[bool]:
        """Say for each leaf whether it differs between trajectories."""
        return [mask[0] for mask in self.each.masks]

    def load(self, who: jax.Array, turn: jax.Array) -> tuple[Lanes, list]:
        """Return lanes that hold these trajectories, at their start."""
        p, counts, leaves = self.waiting.take(who).unpack(self.first, len(self.each.lanes))
        p = p._replace(t=p.t._replace(low=jnp.zeros_like(p.t.high)))
        return Lanes(p, counts, who, jnp.full_like(who, turn)), tree.replaced(self.each.leaves, self.own, leaves)

    def results(self, p: Progress, counts: PyTree, idle: jax.Array) -> tuple:
        """Return what is kept of a trajectory."""
        return p._replace(memory=(), control=()), counts, idle

    def written(self, state: State) -> Packed:
        """Write down how far every lane has come."""
        p, counts, who, since = state.lanes
        idle = state.turn - since - p.accepted - p.rejected
        return state.done.put(who, Packed.of(self.results(p, counts, idle), len(self.each.lanes)))

    def refilled(self, state: State) -> State:
        """Let lanes that are done write down their results and take the next trajectories."""
        idle = ~_live(state.lanes.p)
        place = state.taken[..., None] + jnp.cumsum(idle, axis=-1, dtype=jnp.int32) - 1
        loads = idle & (place < self.total)
        following = jnp.take_along_axis(self.order, jnp.minimum(place, self.total - 1), axis=-1)
        who = jnp.where(loads, following, state.lanes.who)
        lanes, leaves = self.load(who, state.turn)
        lanes = tree.where(loads, lanes, state.lanes)
        leaves = [
            tree.where(loads, new, old) if yes else old
            for new, old, yes in zip(leaves, state.leaves, self.own, strict=True)
        ]
        taken = state.taken + jnp.sum(loads, axis=-1, dtype=jnp.int32)
        return state._replace(lanes=lanes, leaves=leaves, done=self.written(state), taken=taken)

    def march(self, state: State, go_on: Callable) -> State:
        """Try steps as long as the lanes that live, a mask, say so."""
        kept, who = self.each.lanes[1:], state.lanes.who
        first = jnp.arange(math.prod(kept), dtype=jnp.int32) * self.total
        columns = (first.reshape(*reversed(kept), 1) + who).reshape(-1)
        now = self.each._replace(leaves=state.leaves, lanes=(who.shape[-1], *kept), columns=columns)
        save, step = now.problem.unflatten(now.leaves).save, advance(now)

        packing = Packing.of(now, state.lanes.p)

        def body(carry):
            packed, counts, tables, turn = carry
            now, out = step(packing.opened(packed), save.joined(tables, counts))
            tables, counts = save.parts(out)
            return packing.closed(now), counts, tables, turn + 1

        def live(carry):
            return go_on(_live(packing.opened(carry[0])))

        carry = (packing.closed(state.lanes.p), state.lanes.counts, state.tables, state.turn)
        packed, counts, tables, turn = fused(lambda carry: lax.while_loop(live, body, carry), carry)
        lanes = state.lanes._replace(p=packing.opened(packed), counts=counts)
        return state._replace(lanes=lanes, tables=tables, turn=turn)

    def compacted(self, state: State, width: int) -> State:
        """Keep the lanes that live, and others up to the width."""
        at = jnp.argsort(~_live(state.lanes.p), axis=-1, stable=True)[..., :width]
        leaves = [tree.take_lanes(x, at) if yes else x for x, yes in zip(state.leaves, self.own, strict=True)]
        lanes = jax.tree.map(lambda x: tree.take_lanes(x, at), state.lanes)
        return state._replace(lanes=lanes, leaves=leaves, done=self.written(state))


def _live(p: Progress) -> jax.Array:
    return p.status == RUNNING


def _most(live: jax.Array) -> jax.Array:
    """Return how many lanes of a queue live, at most."""
    return jnp.max(jnp.sum(live, axis=-1, dtype=jnp.int32))


def solve(each: Each, plan: Plan) -> Outcome:
    """Solve an ensemble as planned."""
    one = merged(each, plan)
    return restored(concluded(one, *run(one, plan.width)), each.lanes, plan)


def run(each: Each, width: int) -> tuple[Progress, PyTree, jax.Array]:
    """Solve an ensemble whose first lane axis is queued; return progress, what was saved, and idle trials."""
    save = each.problem.unflatten(each.leaves).save
    p = _begun(each, width)
    tables, counts = save.parts(save.blank(each, each.problem.method, p.z, p.status == Status.SUCCESS))
    leaves = [x for x, mask in zip(each.leaves, each.masks, strict=True) if mask[0]]
    first = (p._replace(t=p.t._replace(low=None)), counts, leaves)  # all begin at a time that is known exactly
    queue = Queue(each, Packed.of(first, len(each.lanes)), first, _order(each))
    kept = queue.results(p, counts, jnp.zeros_like(p.status))

    turn, taken = jnp.zeros((), jnp.int32), jnp.full(p.status.shape[:-1], width, jnp.int32)
    lanes, leaves = queue.load(queue.order[..., :width], turn)
    state = State(lanes, leaves, tables, Packed.of(kept, len(each.lanes)), taken, turn)
    widths = [width]
    while widths[-1] // NARROWER >= NARROWEST and len(widths) < LOOPS:
        widths.append(widths[-1] // NARROWER)
    floors = [*widths[1:], 0]
    state = _through_queue(queue, state, floors[0])
    for narrower, floor in zip(widths[1:], floors[1:], strict=True):
        state = queue.march(queue.compacted(state, narrower), lambda live, floor=floor: _most(live) > floor)
    p, counts, idle = queue.written(state).unpack(kept, len(each.lanes))
    return p, save.joined(state.tables, counts), idle


def _through_queue(queue: Queue, state: State, floor: int) -> State:
    """Run until the queues are empty and at most `floor` lanes of each live."""
    wait = max(1, state.lanes.who.size // WAITING)

    def fill(state: State) -> State:
        state = queue.refilled(state)
        more = state.taken < queue.total
        least = jnp.where(jnp.any(more), 0, floor)

        def go_on(live):
            return (jnp.sum(~live & more[..., None], dtype=jnp.int32) < wait) & (_most(live) > least)

        return queue.march(state, go_on)

    def unfinished(state: State):
        return jnp.any(state.taken < queue.total) | (_most(_live(state.lanes.p)) > floor)

    return lax.while_loop(unfinished, fill, state)


def _order(each: Each) -> jax.Array:
    """Return the trajectories of each queue in the order in which they are loaded."""
    hint = each.problem.unflatten(each.leaves).order
    shape = (*reversed(each.lanes[1:]), each.lanes[0])
    if hint is None:
        return jnp.broadcast_to(jnp.arange(each.lanes[0], dtype=jnp.int32), shape)
    return jnp.argsort(-each(lambda inputs, _: inputs.order)(), axis=-1, stable=True).astype(jnp.int32)


def _begun(each: Each, width: int) -> Progress:
    """Choose the first step of every trajectory, as many at a time as step together."""
    total = each.lanes[0]
    like = jax.eval_shape(each(lambda inputs, _: begin(each.problem, inputs)))
    blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)

    def part(i, progress):
        at = jnp.minimum(i * width, total - width)
        cut = functools.partial(lax.dynamic_slice_in_dim, start_index=at, slice_size=width, axis=-1)
        leaves = [cut(x) if mask[0] else x for x, mask in zip(each.leaves, each.masks, strict=True)]
        some = each._replace(leaves=leaves, lanes=(width, *each.lanes[1:]))
        begun = some(lambda inputs, _: begin(each.problem, inputs))()
        return jax.tree.map(lambda x, y: lax.dynamic_update_slice_in_dim(x, y, at, axis=-1), progress, begun)

    return lax.fori_loop(0, -(-total // width), part, blank)
