"""The order of the backward pass: recorded steps from last to first, with segments replayed between kept states."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from node_jax import tree
from node_jax.adjoints.parts.history import History, Slots, buffers
from node_jax.adjoints.parts.transition import AllLanes, RecordedStep, retake
from node_jax.engine.each import Each
from node_jax.engine.loops import down, down_rows
from node_jax.types import PyTree


class Stack(NamedTuple):
    """Kept states on the way to the step that is undone next; one more entry takes what need not be kept."""

    rows: PyTree
    steps: jax.Array  # the recorded step that starts there
    depths: jax.Array  # how often the segment that it belongs to was divided
    count: jax.Array

    def pushed(self, row: PyTree, step: jax.Array, depth: jax.Array, due: jax.Array) -> "Stack":
        """Return the stack with one more entry, if that is due."""
        rows, steps, depths = tree.put(self[:3], (row, step, depth), self.count)
        return Stack(rows, steps, depths, self.count + due)

    def popped(self, step: jax.Array) -> "Stack":
        """Return the stack without its last entry, if `step` starts there."""
        return self._replace(count=self.count - ((self.count > 0) & (tree.entry(self.steps, self.count - 1) == step)))


class Segments(NamedTuple):
    """Recorded steps of which only some states are kept: those of the slots, and on the way back those of a stack."""

    each: Each
    history: History
    lanes: AllLanes
    sizes: list[int]  # of the buffers in the stack, in states, the coarsest first

    def empty(self) -> Stack:
        """Return a stack without states."""
        numbers = jnp.zeros(sum(self.sizes) + 1, jnp.int32)
        like = tree.entry((self.history.t, self.history.z), 0)
        return Stack(tree.buffer(like, len(numbers)), numbers, numbers, jnp.zeros((), jnp.int32))

    def step(self, i: jax.Array, state: tuple[Any, PyTree]) -> RecordedStep:
        """Return recorded step `i` that starts at this time and state."""
        return RecordedStep(tree.entry(self.history.h, i), *state)

    def nearest(self, i: jax.Array, stack: Stack) -> tuple[tuple[Any, PyTree], jax.Array, jax.Array]:
        """Return the last kept state before step `i`, the step there, and how often its segment was divided."""
        slot, last = i // self.history.stride, stack.count - 1
        kept, found = (self.history.t, self.history.z), stack.count > 0
        state = lax.cond(found, lambda: tree.entry(stack.rows, last), lambda: tree.entry(kept, slot))
        step = jnp.where(found, tree.entry(stack.steps, last), slot * self.history.stride)
        return state, step, jnp.where(found, tree.entry(stack.depths, last), 0)

    def spacing(self, first: jax.Array, i: jax.Array, depth: jax.Array) -> jax.Array:
        """Return the number of steps between states to be kept on the way from step `first` to `i`."""
        size = tree.entry(jnp.array(self.sizes, jnp.int32), jnp.minimum(depth, len(self.sizes) - 1))
        return (i - first + size) // size

    def restored(self, i: jax.Array, stack: Stack) -> tuple[tuple[Any, PyTree], Stack]:
        """Return the state at which step `i` starts, and the stack with states kept on the way there."""

        def further(carry):
            state, at, first, depth, stack = carry
            state, at = retake(self.each, self.lanes, at, self.step(at, state), self.lanes.accepted)[2:], at + 1
            length = self.spacing(first, i, depth)
            due = (at - first) % length == 0
            stack = stack.pushed(state, at, depth + 1, due)
            closer = due & (i - at < length)
            return state, at, jnp.where(closer, at, first), depth + closer, stack

        state, first, depth = self.nearest(i, stack)
        state, *_, stack = lax.while_loop(lambda carry: carry[1] < i, further, (state, first, first, depth, stack))
        return state, stack


def go_back(each: Each, history: History, lanes: AllLanes, recorder: Slots, undo: Callable, carry: PyTree) -> PyTree:
    """Run `undo(i, recorded, carry)` for every recorded step, from the last to the first."""
    recorder = recorder.of(history)
    if not recorder.thinned(lanes.z0):
        return down_rows(history.n, RecordedStep(history.h, history.t, history.z), undo, carry)
    segments = Segments(each, history, lanes, buffers(recorder.limit, recorder.count(lanes.z0)))

    def back(i, carry):
        stack, undone = carry
        state, stack = segments.restored(i, stack)
        return stack.popped(i), undo(i, segments.step(i, state), undone)

    return down(history.n, back, (segments.empty(), carry))[1]
