"""The exact gradient of a reversible scheme: states are found again algebraically instead of being kept."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax import marks, tree
from node_jax.adjoints.parts.backward import lane_of, of_leaves, unwind, within_steps
from node_jax.adjoints.parts.boundary import Cotangents, moving_times, pull_crossing, pull_solve, unsupported
from node_jax.adjoints.parts.history import History, Slots
from node_jax.adjoints.parts.pullback import Retraced, Start, pullback_of_steps, retrace, times_of
from node_jax.adjoints.parts.replay import Row, at_nodes, recorder_of, start_of
from node_jax.adjoints.parts.segments import down_rows
from node_jax.engine.each import Each
from node_jax.engine.lane import Inputs, Outcome, Problem, at_stages
from node_jax.engine.loops import write_row
from node_jax.methods import Coupled, ExplicitRK, coupled
from node_jax.save import Trial
from node_jax.types import PyTree, Time, is_count


class Reversible(eqx.Module):
    """Solve by a reversible scheme around the method, and differentiate it exactly in memory for few states.

    Two states are carried, coupled such that a step can be undone (McCallum and Foster, 2024; see
    `node_jax.methods.Coupled`). It is a scheme as well as an adjoint: a step costs twice the evaluations, and `z1` is
    another one within the tolerance. The way back undoes the steps; of each only the time and size are kept (16 bytes,
    nothing under `Fixed`), and two states for each restart. Undoing amplifies rounding by `coupling**-n` over `n` steps
    and by what the flow contracts: hence the restarts. `restart=None` is for problems that hardly contract, and
    `check_gradient` says whether the first state was found again. `Checkpointed` is faster wherever its slots fit.

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

    records = True
    plain = False
    remedy = "use adjoint=Checkpointed() for forward mode and forward over reverse, Direct() for the rest"

    def __check_init__(self):
        """Refuse a coupling that is not one."""
        if not 0.0 < self.coupling < 1.0:
            raise ValueError(f"Reversible(coupling=...) must lie between 0 and 1, got {self.coupling!r}")
        if self.restart is not None and not is_count(self.restart):
            raise ValueError(f"Reversible(restart=...) must be a positive integer or None, got {self.restart!r}")

    def scheme(self, method: ExplicitRK) -> Coupled:
        """Return the method that the solve takes steps with."""
        return coupled(method, self.coupling, self.restart)

    def recorder(self, each: Each) -> "Pairs":
        """Return what writes the history of a solve."""
        inputs = each.inputs
        if inputs.save.wants_slopes and each.problem.method.c_dense:
            raise ValueError(f"adjoint={self!r} does not support save={inputs.save!r} with {each.problem.method!r}")
        timed = not inputs.steps.exact_times and (each.problem.timed or inputs.save.wants_slopes)
        return Pairs(recorder_of(self, each), timed, self.restart)

    def stored(self, limit: int, state: int, sizes: int) -> int:
        """Return the bytes kept along `limit` steps, of states of `state` bytes and step sizes of `sizes` in all."""
        return 2 * sizes + 2 * Pairs.rows(self.restart, limit) * state

    def replay(self, each: Each, outcome: Outcome, history: History, shifted) -> tuple:
        """Refuse."""
        raise unsupported(self, "forward mode")

    def backward(self, each: Each, outcome: Outcome, history: History, bar: Cotangents, moving, shifted) -> list:
        """Return cotangents of the leaves that are `moving` (one bool for each leaf), None for the others."""
        each, chosen = within_steps(each, moving, shifted)
        exact = each.inputs.steps.exact_times

        def between(each, bar, lane_ok):
            carry = undo_all(each, (outcome, history), bar, lane_ok, chosen)
            return carry.y_bar, of_leaves(each, chosen, carry, lane_ok, exact)

        return pull_solve(each, outcome, bar, moving, moving_times(each, shifted), between)


class Pairs(NamedTuple):
    """Write time and size of every step, and both states at the end of every stretch between restarts."""

    sizes: Slots
    timed: bool
    restart: int | None

    @staticmethod
    def rows(restart: int | None, limit: int) -> int:
        """Stretches of `limit` steps."""
        return 1 if restart is None else -(-limit // restart)

    def fits(self, size: int, lanes: int) -> bool:
        """Whether more lanes keep as many states of each: they do."""
        return True

    def blank(self, z: PyTree, t: jax.Array) -> History:
        """Set the buffers apart; one row more takes what need not be kept."""
        limit = self.sizes.limit
        high = tree.buffer(t, limit) if self.timed else None
        pairs = tree.buffer((z, z), self.rows(self.restart, limit) + 1)
        return self.sizes.blank(z, t)._replace(t=Time(high, None), z=pairs)

    def write(self, history: History, t: Time, z: PyTree, trial: Trial, rounds: jax.Array, memory=()) -> History:
        """Record one trial; the row of a stretch is written again by each of its steps."""
        after = self.sizes.write(history, t, z, trial, rounds)
        high = tree.put(history.t.high, t.high, history.n) if self.timed else None
        spare = self.rows(self.restart, self.sizes.limit)
        row = jnp.where(trial.accepted, trial.index // (self.restart or self.sizes.limit), spare)
        pairs = write_row(history.z, (trial.z1, memory.z), row)
        return after._replace(t=Time(high, None), z=pairs)


class Undone(NamedTuple):
    """The carry of the way back: both states and their cotangents; `left` counts steps that are not yet undone."""

    y: PyTree
    z: PyTree
    y_bar: PyTree
    z_bar: PyTree
    leaves: list
    save: PyTree
    left: jax.Array


def undo_all(each: Each, solved: tuple[Outcome, History], bar: Cotangents, lane_ok: jax.Array, chosen) -> Undone:
    """Undo every step of every lane, and transpose it."""
    problem, (outcome, history) = each.problem, solved
    method: Any = problem.method  # a `Coupled`
    inside, lane = at_nodes(each), lane_of(each, outcome, lane_ok)
    saved, exact = each.inputs.save, problem.unflatten(each.leaves).steps.exact_times
    uncrossed = each._replace(problem=problem._replace(crosses=False))
    forth, back = (pullback_of_steps(uncrossed, chosen, step) for step in (retrace, _step_back))
    stretch = method.restart or jnp.iinfo(jnp.int32).max

    def undo(i, row: Row, carry: Undone) -> Undone:
        active, start = start_of(lane, i, row._replace(z=carry.y))
        index = jnp.maximum(carry.left - 1, 0)
        stored = each(lambda inputs, rest: tree.row(*rest))((history.z, index // stretch))
        fresh = method.restarts(carry.left) | (carry.left == lane.accepted)
        y1, z1 = tree.where(active, tree.where(fresh, stored, (carry.y, carry.z)), (lane.z0, lane.z0))

        ahead, pull_back = back(start._replace(z=y1))
        z = tree.subtract(tree.add(z1, ahead.z1), y1)
        behind, pull_forth = forth(start._replace(z=z))
        y = method.undone(y1, z, tree.subtract(behind.z1, z))

        time = start.t._replace(high=behind.t)
        trial = Trial(active, index, time, behind.h, time.high, y, y1, behind.slopes)
        save, into = saved.pull(inside, method, carry.save, trial, tree.row(history.rounds, i))
        y_bar, z_bar = tree.where(active, (carry.y_bar, carry.z_bar), tree.full_like((y, z), 0.0))
        y_bar = tree.add(y_bar, into.z1)
        at_end = tree.add(y_bar, z_bar)
        nothing = tree.full_like(into.t, 0.0)
        late, more = pull_back(Retraced(tree.scaled(-1.0, z_bar), (), nothing, nothing))
        y_bar = tree.add(at_end, more)
        early, more = pull_forth(Retraced(y_bar, into.slopes, into.t, into.h))
        passed = tree.scaled(method.coupling, y_bar)
        y_bar, z_bar = tree.add(passed, into.z), tree.add(tree.subtract(z_bar, passed), more)
        leaves_bar = tree.add(tree.add(carry.leaves, late), early)
        if problem.crosses:
            leaves_bar = tree.add(leaves_bar, pull_crossing(each, chosen, behind.t + behind.h, behind.h, y1, at_end))
        together = tree.add(y_bar, z_bar), tree.full_like(z_bar, 0.0)
        bars = tree.where(method.restarts(index), together, (y_bar, z_bar))
        y, z, y_bar, z_bar = tree.where(active, (y, z, *bars), (carry.y, carry.z, carry.y_bar, carry.z_bar))
        return Undone(y, z, y_bar, z_bar, leaves_bar, save, carry.left - active)

    leaves_bar = tree.full_like(tree.picked(each.leaves, chosen), 0.0)
    zero = tree.full_like(bar.z1, 0.0)
    saves_bar = unwind(each, outcome, bar, exact)
    carry = Undone(lane.z0, lane.z0, bar.z1, zero, leaves_bar, saves_bar, lane.accepted)
    return marks.whole(lambda carry: down_rows(history.n, Row(history.h, history.t, ()), undo, carry), carry)


def _step_back(problem: Problem, inputs: Inputs, start: Start) -> Retraced:
    """Take the step of the base method from the end of a recorded step to its start, from the state in `start`."""
    t, h = times_of(inputs, start)
    field = at_stages(problem, inputs, t)
    return Retraced(problem.method.advance(field, t + h, start.z, -h, inputs.theta), (), t, h)
