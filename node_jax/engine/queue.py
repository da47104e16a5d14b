"""The queue: an ensemble with more solves than lanes, where a lane that is done takes the next solve.

One lane after the other writes its result and is refilled, which copies columns of tables. The assignment of solves
to lanes changes the order of work only, so results are those of lockstep.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from node_jax import marks, tree
from node_jax.engine.each import Each
from node_jax.engine.ensemble import Plan, column, merged, put_column, restored
from node_jax.engine.lane import Outcome, Progress, begin
from node_jax.engine.lockstep import advance, concluded
from node_jax.engine.loops import Packing
from node_jax.engine.rows import Saved, blank
from node_jax.types import RUNNING, PyTree, Status, Time


class Waiting(NamedTuple):
    """The start of each waiting solve: its leaves, and the parts of its first progress that these do not determine."""

    shared: list  # the time and the leaves of the state at the start that are not among `leaves`
    memory: PyTree
    control: PyTree
    status: jax.Array
    counts: PyTree
    leaves: list


class Lanes(NamedTuple):
    """The contents of the lanes that step together."""

    p: Progress
    counts: tuple  # what is saved, without the rows
    leaves: list  # those that differ between solves
    who: jax.Array  # index of the solve
    since: jax.Array  # turn in which it was loaded; -1: the lane had none yet
    owes: jax.Array  # whether its result is not written yet


class State(NamedTuple):
    """The carry of the loops; `taken` counts the solves that left each queue, `turn` the trials of the batch."""

    lanes: Lanes
    tables: PyTree
    done: PyTree
    taken: jax.Array
    turn: jax.Array


class Queue(NamedTuple):
    """An ensemble queued along its first lane axis; each index of the other axes has a queue of its own."""

    each: Each
    width: int  # lanes of each queue
    begun: Progress  # of all solves
    start: Waiting
    order: jax.Array | None  # solves as they are loaded, one queue after the other; None: in their own order

    @classmethod
    def of(cls, each: Each, width: int, p: Progress, counts: PyTree) -> "Queue":
        """Build the queue of solves that start with this progress and these cursors and counts."""
        own = [mask[0] for mask in each.masks]
        shared = [x for x, i in zip([p.t.high, *jax.tree.leaves(p.z)], _places(each), strict=True) if not own[i]]
        start = Waiting(shared, p.memory, p.control, p.status, counts, tree.picked(each.leaves, own))
        return cls(each, width, p, start, _order(each))

    @property
    def own(self) -> list[bool]:
        """Say for each leaf whether it differs between the solves of a queue."""
        return [mask[0] for mask in self.each.masks]

    @property
    def total(self) -> int:
        """The number of solves in each queue."""
        return self.each.lanes[0]

    @property
    def lanes(self) -> tuple[int, ...]:
        """The lane axes of the solves that step together."""
        return self.width, *self.each.lanes[1:]

    def empty(self, tables: PyTree) -> State:
        """Return lanes that hold no solves yet; no two of them write the same column of a table."""
        shape = (*reversed(self.lanes[1:]), self.width)
        number = self.begun.status
        solves = (self.begun, self.start.counts, self.start.leaves)
        zeros = jax.tree.map(lambda x: jnp.zeros((*x.shape[: x.ndim - len(shape)], *shape), x.dtype), solves)
        lanes = Lanes(
            p=zeros[0]._replace(status=jnp.full(shape, Status.SUCCESS, jnp.int32)),
            counts=zeros[1],
            leaves=zeros[2],
            who=jnp.broadcast_to(jnp.arange(self.width, dtype=jnp.int32), shape),
            since=jnp.full(shape, -1, jnp.int32),
            owes=jnp.zeros(shape, bool),
        )
        done = jax.tree.map(jnp.zeros_like, results(self.begun, self.start.counts, number))
        return State(lanes, tables, done, jnp.zeros(math.prod(shape[:-1]), jnp.int32), jnp.zeros((), jnp.int32))

    def of_lane(self, values: PyTree, i: jax.Array) -> PyTree:
        """Return the values of lane `i`, all lane axes flattened into one."""
        return column(values, i, len(self.lanes))

    def with_lane(self, values: PyTree, some: PyTree, i: jax.Array) -> PyTree:
        """Replace the values of lane `i` by `some`."""
        return put_column(values, some, i, len(self.lanes))

    def running(self, state: State) -> jax.Array:
        """Say for each lane, shape `(queues, width)`, whether it is live."""
        return (state.lanes.p.status == RUNNING).reshape(-1, self.width)

    def free(self, state: State) -> jax.Array:
        """Say for each lane whether it is done and solves wait in its queue."""
        return ~self.running(state) & (state.taken < self.total)[:, None]

    def unserved(self, state: State) -> jax.Array:
        """Say for each lane whether it is free, or is done and its result is not written yet."""
        return self.free(state) | ~self.running(state) & state.lanes.owes.reshape(-1, self.width)

    def served(self, state: State) -> State:
        """Let one lane write its result and take the next solve of its queue, if any; lanes without a solve come first.

        Such a lane writes a meaningless result, which is overwritten: no solve ends before all lanes have one.
        """
        new = (state.lanes.since < 0).reshape(-1)
        i = jnp.argmax(self.unserved(state).reshape(-1).astype(jnp.int32) + new).astype(jnp.int32)
        first = i // self.width * self.total
        lane = self.of_lane(state.lanes, i)
        idle = state.turn - lane.since - lane.p.accepted - lane.p.rejected
        done = self.with_lane(state.done, results(lane.p, lane.counts, idle), first + lane.who)

        place = column(state.taken, i // self.width, 1)
        more = place < self.total
        following = self.loaded(first, jnp.minimum(place, self.total - 1), state.turn)
        following = tree.where(more, following, lane)._replace(owes=more)
        lanes = self.with_lane(state.lanes, following, i)
        return state._replace(lanes=lanes, done=done, taken=put_column(state.taken, place + more, i // self.width, 1))

    def loaded(self, first: jax.Array, place: jax.Array, turn: jax.Array) -> Lanes:
        """Return a lane with the solve at this place of the queue whose columns begin at `first`."""
        who = place if self.order is None else column(self.order, first + place, 1)
        start: Waiting = self.of_lane(self.start, first + who)
        leaves, shared = tree.replaced(self.each.leaves, self.own, start.leaves), iter(start.shared)
        t, *z = (leaves[i] if self.own[i] else next(shared) for i in _places(self.each))
        zero = jax.tree.map(lambda x: jnp.zeros((), x.dtype), self.begun._replace(z=(), memory=(), control=()))
        p = zero._replace(
            t=Time(t, jnp.zeros_like(t)),
            z=jax.tree.unflatten(jax.tree.structure(self.begun.z), z),
            memory=start.memory,
            control=start.control,
            status=start.status,
        )
        return Lanes(p, start.counts, start.leaves, who, turn, jnp.array(True))

    def march(self, state: State) -> State:
        """Try steps until a lane is free or none is live."""
        now = self.together(state.lanes)
        step = advance(now)
        packing = Packing.of(now.lanes, state.lanes.p, now.emitted(state.lanes.p))

        def opened(carry) -> State:
            packed, counts, tables, turn = carry
            lanes = state.lanes._replace(p=packing.opened(packed), counts=counts)
            return state._replace(lanes=lanes, tables=tables, turn=turn)

        def body(carry):
            packed, counts, tables, turn = carry
            p, saved = step(packing.opened(packed), Saved(tables, *counts))
            return packing.closed(p), saved[1:], saved.rows, turn + 1

        def goes_on(carry):
            now = opened(carry)
            return jnp.any(self.running(now)) & ~jnp.any(self.free(now))

        carry = (packing.closed(state.lanes.p), state.lanes.counts, state.tables, state.turn)
        return opened(lax.while_loop(goes_on, body, carry))

    def together(self, lanes: Lanes) -> Each:
        """Return the engine of the solves that are in the lanes."""
        who = lanes.who.reshape(-1, self.width)
        first = jnp.arange(who.shape[0], dtype=jnp.int32) * self.total
        leaves = tree.replaced(self.each.leaves, self.own, lanes.leaves)
        return self.each.replace(leaves=leaves, lanes=self.lanes, columns=(first[:, None] + who).reshape(-1))

    def through(self, state: State) -> State:
        """Run all solves; the loop is marked to be compiled as one function if the field allows it."""
        whole = self.together(state.lanes).emitted(state.lanes.p)

        def fill(state: State) -> State:
            return lax.while_loop(lambda state: jnp.any(self.unserved(state)), self.served, state)

        def turn(state: State) -> State:
            return self.march(fill(state) if whole else marks.whole(fill, state))

        def unfinished(state: State) -> jax.Array:
            return jnp.any(self.running(state) | self.unserved(state))

        def loop(state: State) -> State:
            return lax.while_loop(unfinished, turn, state)

        return marks.whole(loop, state) if whole else loop(state)


def results(p: Progress, counts: PyTree, idle: jax.Array) -> tuple:
    """Return what is kept of a solve that is done."""
    return p._replace(memory=(), control=()), counts, idle


def solve(each: Each, plan: Plan) -> Outcome:
    """Solve an ensemble as planned."""
    one = merged(each, plan)
    return restored(concluded(one, *run(one, plan.width)), each.lanes, plan)


def run(each: Each, width: int) -> tuple[Progress, Saved, jax.Array]:
    """Solve an ensemble whose first lane axis is queued; return progress, what was saved, and idle trials."""
    p = _begun(each, width)
    saved = blank(each, p.z, p.status == Status.SUCCESS)
    queue = Queue.of(each, width, p, saved[1:])
    state = queue.through(queue.empty(saved.rows))
    p, counts, idle = state.done
    return p, Saved(state.tables, *counts), idle


def _places(each: Each) -> list[int]:
    """Return the indices of the leaves for the time and the state at which a solve starts."""
    inputs: Any = each.places
    return [inputs.t0, *jax.tree.leaves(inputs.z0)]


def _order(each: Each) -> jax.Array | None:
    """Return the solves of each queue in the order in which lanes take them; None: in the order of the ensemble."""
    hint = each.inputs.expected_cost
    if hint is None:
        return None
    costs = each(lambda inputs, _: inputs.expected_cost)()
    return jnp.argsort(-costs, axis=-1, stable=True).astype(jnp.int32).reshape(-1)


def _begun(each: Each, width: int) -> Progress:
    """Choose the first step of every solve, for as many at a time as step together."""
    total, own = each.lanes[0], [mask[0] for mask in each.masks]

    @jax.jit  # traced once
    def some(leaves):
        part = each.replace(leaves=leaves, lanes=(width, *each.lanes[1:]))
        return part(lambda inputs, _: begin(each.problem, inputs))()

    def part(i, progress):
        at = jnp.minimum(i * width, total - width)
        return jax.tree.map(lambda x, y: lax.dynamic_update_slice_in_dim(x, y, at, axis=-1), progress, some(cut(at)))

    def cut(at):
        return [
            lax.dynamic_slice_in_dim(x, at, width, axis=-1) if yes else x
            for x, yes in zip(each.leaves, own, strict=True)
        ]

    like = jax.eval_shape(lambda: some(cut(0)))
    blank = jax.tree.map(lambda x: jnp.zeros((*x.shape[:-1], total), x.dtype), like)
    return lax.fori_loop(0, -(-total // width), part, blank)
