"""The exact gradient of a reversible scheme, which reconstructs states algebraically instead of keeping them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax import marks, tree
from node_jax.adjoints.defaults import AdjointDefaults
from node_jax.adjoints.parts.backward import lanes_of, of_leaves
from node_jax.adjoints.parts.boundary import Cotangents, Ends, moving_times
from node_jax.adjoints.parts.history import History, Slots, recorder_of
from node_jax.adjoints.parts.pullback import pullback_of_steps
from node_jax.adjoints.parts.transition import (
    AllLanes,
    RecordedStep,
    Retraced,
    Start,
    at_nodes,
    pull_crossing,
    retrace,
    start_of,
    times_of,
    within_steps,
)
from node_jax.engine import rows
from node_jax.engine.each import Each
from node_jax.engine.lane import Outcome, Problem, at_stages
from node_jax.engine.lockstep import integrate
from node_jax.engine.loops import down_rows, write_row
from node_jax.methods import Coupled, coupled
from node_jax.protocols import Method
from node_jax.types import Inputs, PyTree, Time, Trial, is_count


class Reversible(eqx.Module, AdjointDefaults):
    """Solve by a reversible scheme around the method, and differentiate it exactly while keeping few states.

    Two states are carried, coupled such that a step can be undone (McCallum and Foster, 2024; see
    `node_jax.methods.Coupled`). This changes the forward solve: a step costs twice the evaluations, and `z1` differs
    within the tolerance. The backward pass undoes the steps. For each step only its time and size are kept (16 bytes in
    float64, nothing under `Fixed`), and two states for each restart. Undoing amplifies rounding by `coupling**-n` over
    `n` steps and by the contraction of the flow, which the restarts limit. Use `restart=None` only if trajectories
    hardly contract; `check_gradient` says how well the first state is reconstructed. `Checkpointed` is faster wherever
    its slots suffice.

    Args:
        coupling: the number that couples the two states, between 0 and 1.
        restart: accepted steps between restarts; None: never.

    Raises:
        ValueError: for another coupling or restart; for dense output of a method that needs more slopes for it.
        NotImplementedError: in forward mode.

    Example:
        >>> import jax, node_jax as nj
        >>> def decayed(rate):
        ...     return nj.odesolve(nj.testing.decay, 1.0, 0.0, 1.0, rate, adjoint=Reversible()).z1
        >>> bool(abs(jax.grad(decayed)(1.0) + 0.36788) < 1e-5)
        True
    """

    coupling: float = eqx.field(static=True, default=0.999)
    restart: int | None = eqx.field(static=True, default=16)

    remedy = "use adjoint=Checkpointed() for forward mode and forward over reverse, Direct() for the rest"

    def __check_init__(self):
        """Refuse a coupling or a restart out of range."""
        if not 0.0 < self.coupling < 1.0:
            raise ValueError(f"Reversible(coupling=...) must lie between 0 and 1, got {self.coupling!r}")
        if self.restart is not None and not is_count(self.restart):
            raise ValueError(f"Reversible(restart=...) must be a positive integer or None, got {self.restart!r}")

    def scheme(self, method: Method) -> Coupled:
        """Return the reversible scheme around the method."""
        return coupled(method, self.coupling, self.restart)

    def recorder(self, each: Each) -> "Pairs":
        """Return the recorder of times, sizes and pairs of states."""
        inputs = each.inputs
        if inputs.save.reads_dense and each.problem.method.dense_evaluations:
            raise ValueError(f"adjoint={self!r} does not support save={inputs.save!r} with {each.problem.method!r}")
        timed = not inputs.steps.exact_times and (each.problem.timed or inputs.save.reads_dense)
        return Pairs(recorder_of(self, each), timed, self.restart)

    def stored(self, limit: int, state: int, sizes: int) -> int:
        """Return the bytes kept for `limit` steps: states have `state` bytes each, step sizes `sizes` in all."""
        return 2 * sizes + 2 * Pairs.count(self.restart, limit) * state

    def backward(self, each: Each, outcome: Outcome, history: History, bar: Cotangents) -> list[Any]:
        """Undo the recorded steps, the last first, and transpose each."""
        ends, bar = Ends.of(each, outcome, bar, moving_times(each))
        late, bar = ends.pull_arrival(bar)
        inner = within_steps(ends.each)
        carry = undo_all(ends, inner, history, bar)
        return ends.total(late, of_leaves(ends, inner, carry), ends.pull_departure(bar, carry.y_bar))

    def reconstruct(self, each: Each, z1_bar: PyTree) -> tuple[PyTree, jax.Array]:
        """Return the state at `t0` after all steps are undone, and the field evaluations of that."""
        outcome, history = integrate(each, self.recorder(each))
        fixed = [False] * len(each.leaves)
        each = each.replace(moving=fixed)
        ends, bar = Ends.of(each, outcome, Cotangents(z1_bar, ()), each.problem.unflatten(fixed))
        undone = undo_all(ends, ends.each, history, bar)
        method: Any = each.problem.method
        return undone.y, 2 * method.replay_evaluations * outcome.stats.accepted


class Pairs(NamedTuple):
    """Record time and size of every step, and both states at the end of each stretch between restarts."""

    sizes: Slots
    timed: bool
    restart: int | None

    @staticmethod
    def count(restart: int | None, limit: int) -> int:
        """Return the number of stretches in `limit` steps."""
        return 1 if restart is None else -(-limit // restart)

    def fits(self, size: int, lanes: int) -> bool:
        """Return true: the number of recorded states does not depend on the number of lanes."""
        return True

    def blank(self, z: PyTree, t: jax.Array) -> History:
        """Allocate the buffers; one more row takes what need not be kept."""
        limit = self.sizes.limit
        high = tree.buffer(t, limit) if self.timed else None
        pairs = tree.buffer((z, z), self.count(self.restart, limit) + 1)
        return self.sizes.blank(z, t)._replace(t=Time(high, None), z=pairs)

    def write(self, history: History, t: Time, z: PyTree, trial: Trial, rounds: jax.Array, memory=()) -> History:
        """Record one trial; each step of a stretch overwrites its row, so that the last one stays."""
        after = self.sizes.write(history, t, z, trial, rounds)
        high = tree.put(history.t.high, t.high, history.n) if self.timed else None
        spare = self.count(self.restart, self.sizes.limit)
        row = jnp.where(trial.accepted, trial.index // (self.restart or self.sizes.limit), spare)
        pairs = write_row(history.z, (trial.z1, memory.z), row)
        return after._replace(t=Time(high, None), z=pairs)


class Undone(NamedTuple):
    """The carry of the backward pass: both states and their cotangents; `left` counts steps still to be undone."""

    y: PyTree
    z: PyTree
    y_bar: PyTree
    z_bar: PyTree
    leaves: list[Any]
    saved: rows.SavedBar
    left: jax.Array


class Pulls(NamedTuple):
    """The pullbacks of the two increments of a step in state and leaves: `P_h(t, z)`, and `P_-h(t + h, y1)`."""

    forth: Callable
    back: Callable


def undo_all(ends: Ends, each: Each, history: History, bar: Cotangents) -> Undone:
    """Undo every step of every lane, and transpose it."""
    lanes, inside = lanes_of(ends), at_nodes(each)
    problem, exact = each.problem, each.inputs.steps.exact_times
    method: Any = problem.method  # it is a `Coupled`
    uncrossed = each.replace(problem=problem._replace(crosses=False))
    increments = Pulls(*(pullback_of_steps(uncrossed, step) for step in (retrace, _step_back)))

    def undo(i, row: RecordedStep, carry: Undone) -> Undone:
        active, start = start_of(lanes, i, row._replace(z=carry.y))
        index = jnp.maximum(carry.left - 1, 0)
        after = tree.where(active, _pair_after(each, lanes, history, index, carry), (lanes.z0, lanes.z0))
        (y, z), forth, pulls = _pair_before(method, increments, start, *after)

        time = start.t._replace(high=forth.t)
        trial = Trial(active, index, time, forth.h, time.high, y, after[0], forth.dense)
        saved, into = rows.pull(inside, carry.saved, trial, tree.entry(history.rounds, i))
        bars = tree.where(active, (carry.y_bar, carry.z_bar), tree.full_like((y, z), 0.0))
        bars, at_end, (late, early) = _pull_pair(method, pulls, bars, into)
        leaves_bar = tree.add(tree.add(carry.leaves, late), early)
        if problem.crosses:
            more = pull_crossing(each, forth.t + forth.h, forth.h, after[0], at_end)
            leaves_bar = tree.add(leaves_bar, more)
        together = tree.add(*bars), tree.full_like(bars[1], 0.0)  # at a restart, `z` is set to `y`
        bars = tree.where(method.restarts(index), together, bars)
        y, z, y_bar, z_bar = tree.where(active, (y, z, *bars), (carry.y, carry.z, carry.y_bar, carry.z_bar))
        return Undone(y, z, y_bar, z_bar, leaves_bar, saved, carry.left - active)

    zero = tree.full_like(bar.z1, 0.0)
    saved = rows.unwind(each, ends.outcome.saved, bar.rows, exact)
    carry = Undone(lanes.z0, lanes.z0, bar.z1, zero, each.zeros(), saved, lanes.accepted)
    return marks.whole(lambda carry: down_rows(history.n, RecordedStep(history.h, history.t, ()), undo, carry), carry)


def _pair_after(
    each: Each, lanes: AllLanes, history: History, index: jax.Array, carry: Undone
) -> tuple[PyTree, PyTree]:
    """Return both states after step `index`: those recorded if a stretch ends there, else those of the carry."""
    method: Any = each.problem.method
    stretch = method.restart or jnp.iinfo(jnp.int32).max
    stored = each(lambda inputs, rest: tree.entry(*rest))((history.z, index // stretch))
    recorded = method.restarts(carry.left) | (carry.left == lanes.accepted)
    return tree.where(recorded, stored, (carry.y, carry.z))


def _pair_before(method: Any, increments: Pulls, start: Start, y1: PyTree, z1: PyTree) -> tuple[tuple, Retraced, Pulls]:
    """Return both states before a step, the step of the inner method from `z`, and the pullbacks of the increments."""
    back, pull_back = increments.back(start._replace(z=y1))
    z = tree.subtract(tree.add(z1, back.z1), y1)
    forth, pull_forth = increments.forth(start._replace(z=z))
    y = method.undone(y1, z, tree.subtract(forth.z1, z))
    return (y, z), forth, Pulls(pull_forth, pull_back)


def _pull_pair(
    method: Any, pulls: Pulls, bars: tuple[PyTree, PyTree], into: rows.StepBar
) -> tuple[tuple[PyTree, PyTree], PyTree, tuple[PyTree, PyTree]]:
    """Return the cotangents of both states before a step, that of the state at its end, and two parts for the leaves.

    `bars` are the cotangents of both states after the step; `into` are those of what rows read of the step.
    """
    y_bar, z_bar = tree.add(bars[0], into.z1), bars[1]
    at_end = tree.add(y_bar, z_bar)
    nothing = tree.full_like(into.t, 0.0)
    late, more = pulls.back(Retraced(tree.scaled(-1.0, z_bar), (), nothing, nothing))
    y_bar = tree.add(at_end, more)
    early, more = pulls.forth(Retraced(y_bar, into.dense, into.t, into.h))
    passed = tree.scaled(method.coupling, y_bar)
    before = tree.add(passed, into.z), tree.add(tree.subtract(z_bar, passed), more)
    return before, at_end, (late, early)


def _step_back(problem: Problem, inputs: Inputs, start: Start) -> Retraced:
    """Take the step of the inner method from the end of a recorded step to its start, from the state in `start`."""
    t, h = times_of(inputs, start)
    field = at_stages(problem, inputs, t)
    return Retraced(problem.method.replay(field, t + h, start.z, -h, inputs.theta, False)[0], (), t, h)
