"""The history that the forward pass records for the backward pass, in a fixed number of slots."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from node_jax import tree
from node_jax.engine.each import Each
from node_jax.types import PyTree, Time, Trial

MOST, FILLED, FEW = 256 * 2**20, 16 * 2**20, 256  # bytes, bytes, states: the default budget of `count_slots`


class History(NamedTuple):
    """Sizes of all recorded steps (zero for a lane that did not step), and times and states of some.

    `rounds`, `n` and `stride` have no lane axes. What the backward pass does not need is None: sizes and times of
    prescribed steps, and times if the field does not depend on them.
    """

    h: Any
    t: Time
    z: PyTree
    rounds: Any
    n: jax.Array
    stride: jax.Array

    def cleared(self) -> "History":
        """Return an empty history in the same buffers."""
        return self._replace(n=jnp.zeros_like(self.n), stride=jnp.ones_like(self.stride))

    def closed(self) -> "History":
        """Replace times that were not recorded by arrays without rows.

        Whether they are recorded depends on the number of lanes, and `vmap` must not change the leaves of a result.
        Loops carry no such arrays (docs/performance.md, Loops).
        """
        if self.h is None or not jax.tree.leaves(self.z):
            return self
        return self._replace(t=Time(*(self.h[:0] if x is None else x for x in self.t)))

    def opened(self) -> "History":
        """Invert `closed`."""
        return self._replace(t=Time(*(None if x is None or not x.shape[0] else x for x in self.t)))

    def has_lanes(self) -> list[bool]:
        """Say for each leaf whether it has lane axes."""
        own = jax.tree.map(lambda _: True, self)
        return jax.tree.leaves(own._replace(rounds=None if self.rounds is None else False, n=False, stride=False))


def count_slots(memory: int | None, checkpoints: int | None, limit: int, size: int) -> int:
    """Return the number of slots for states of `size` bytes, all lanes together; an even number if fewer than `limit`.

    Without a budget: 16 MiB, or 256 states if these are more, at most 256 MiB, as slots have to be filled with zeros
    (docs/performance.md, Why the code looks as it does).
    """
    budget = min(MOST, max(FILLED, FEW * size)) if memory is None else memory
    wanted = checkpoints or budget // max(1, size)
    return limit if wanted >= limit - 1 else max(2, wanted - wanted % 2)  # with the additional row below the limit


def buffers(limit: int, slots: int) -> list[int]:
    """Return the sizes, in states, of the buffers that the backward pass fills between two slots, the coarsest first.

    Each costs at most one replay of the steps, and none if those before it hold every state.
    """
    length, sizes = 1 << (-(-limit // slots) - 1).bit_length(), []  # strides of the slots double
    while length > 1:
        sizes.append(min(slots, length))
        length = -(-length // slots)
    return sizes or [1]


def stored_bytes(memory: int | None, checkpoints: int | None, limit: int, size: int) -> int:
    """Return the largest number of bytes of states that are kept at one time, each of `size` bytes."""
    slots = count_slots(memory, checkpoints, limit, size)
    return size * (slots if slots == limit else slots + sum(buffers(limit, slots)))


class Slots(NamedTuple):
    """The recorder of a history with a fixed number of slots."""

    memory: int | None
    checkpoints: int | None
    limit: int
    prescribed: bool
    timed: bool
    precise: bool
    rounds: bool = True
    states: bool = True  # whether times and states are kept at all
    slots: int | None = None  # known from a history; None: as many as fit the budget

    def of(self, history: History) -> "Slots":
        """Return the recorder with the slots of a history; under `vmap` the state of one lane does not tell them."""
        rows = max((x.shape[0] for x in jax.tree.leaves(history.z)), default=self.limit)
        return self._replace(slots=rows if rows == self.limit else rows - 1) if self.states else self

    def count(self, z: PyTree) -> int:
        """Return the number of slots for states shaped like `z`."""
        if self.slots is not None:
            return self.slots
        size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(z))
        return count_slots(self.memory, self.checkpoints, self.limit, size)

    def fits(self, size: int, lanes: int) -> bool:
        """Whether `lanes` times as many lanes, whose states now have `size` bytes, keep as many states of each."""
        kept = [count_slots(self.memory, self.checkpoints, self.limit, size * n) for n in (1, lanes)]
        return not self.states or kept[0] == kept[1]

    def thinned(self, z: PyTree) -> bool:
        """Whether there are fewer slots than steps."""
        return self.states and self.count(z) < self.limit

    def _times(self, t: Time, z: PyTree) -> Time:
        """Return a time without the parts that are not recorded."""
        if self.prescribed or not self.states or not (self.timed or self.thinned(z)):
            return Time(None, None)
        return t if self.precise or self.thinned(z) else Time(t.high, None)

    def blank(self, z: PyTree, t: jax.Array) -> History:
        """Allocate the buffers; one more slot takes what need not be kept."""
        count = self.count(z)
        rows = count + self.thinned(z)
        h = None if self.prescribed else tree.buffer(t, self.limit)
        zero = jnp.zeros((), jnp.int32)
        rounds = jnp.zeros(self.limit, jnp.int32) if self.rounds else None
        return History(
            h,
            tree.buffer(self._times(Time(t, t), z), rows),
            tree.buffer(z, rows) if self.states else (),
            rounds,
            zero,
            zero + 1,
        )

    def write(
        self, history: History, before_t: Time, before_z: PyTree, trial: Trial, rounds: jax.Array, memory=()
    ) -> History:
        """Record one trial; the index advances if any lane accepted it."""
        h, t, z, _, n, stride = history
        count = self.count(before_z)
        slot = jnp.where(n % stride == 0, n // stride, count) if self.thinned(before_z) else n
        if h is not None:
            h = tree.put(h, jnp.where(trial.accepted, trial.h, 0.0), n)
        if self.states:
            t, z = tree.put((t, z), (self._times(before_t, before_z), before_z), slot)
        n = n + jnp.any(trial.accepted)
        if self.thinned(before_z):
            (t, z), stride = _thin((t, z), (n >= count * stride) & (n < self.limit), stride, count)
        return History(h, t, z, tree.put(history.rounds, rounds if self.rounds else None, history.n), n, stride)


def recorder_of(
    adjoint, each: Each, memory: int | None = None, checkpoints=None, states: bool = False, timed: bool = False
) -> Slots:
    """Return the recorder of a solve: of step sizes, and of states if `states`.

    Times are recorded with the states where the field or the save looks at them, and if `timed`.
    """
    problem, inputs = each.problem, each.inputs
    limit = inputs.steps.trials(problem.max_steps)
    if limit is None:
        raise ValueError(
            f"max_steps=None: adjoint={adjoint!r} needs a bound on the steps it records; pass max_steps=4096"
        )
    prescribed, dense = inputs.steps.exact_times, inputs.save.reads_dense
    timed = timed or problem.timed or dense
    return Slots(memory, checkpoints, limit, prescribed, timed, dense, inputs.save.repeats, states)


def _thin(slots: PyTree, full: jax.Array, stride: jax.Array, count: int) -> tuple[PyTree, jax.Array]:
    """Drop every second state and double the stride, if the slots are full and more steps may come."""
    # a loop of no turns instead of a conditional (docs/performance.md, Loops)
    slots = lax.fori_loop(0, jnp.where(full, count // 2, 0), lambda j, s: tree.put(s, tree.entry(s, 2 * j), j), slots)
    return slots, jnp.where(full, 2 * stride, stride)
