"""The derivative of a solve as a linear map: tangents are pushed forward, cotangents are pulled back.

A map has `push(residuals, dots)` and `pull(residuals, bars)` on flat lists; a cotangent that is zero is None. Its
attributes say whether it takes steps (`solves`), whether tangents of outputs may be NaN on purpose (`loses`), whether
recorded states are among its results (`with_history`), and which map is inside (`linear`). A map that takes steps has
`results(residuals)`, the outputs that have tangents, and `outcome(residuals)`; `within(moving)` returns it for use
inside an outer derivative, and `over(residuals, lanes)` for that many times as many lanes.
"""

import enum
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from node_jax import tree
from node_jax.adjoints.parts.boundary import Cotangents, unsupported
from node_jax.engine import rows
from node_jax.engine.each import Each
from node_jax.engine.ensemble import memory, width_of
from node_jax.engine.lane import Outcome, Problem
from node_jax.lanes.ordered import repeated
from node_jax.types import Stats


class Recording(enum.Enum):
    """When a solve records its history."""

    NEVER = enum.auto()
    IF_KEPT = enum.auto()  # unless `vmap` adds so many lanes that fewer states of each fit
    ALWAYS = enum.auto()


def recorder_of(each: Each, adjoint, recording: Recording):
    """Return the recorder of a solve; None if nothing is recorded."""
    return None if recording is Recording.NEVER else adjoint.recorder(each)


def _bytes_of_states(each: Each) -> int:
    """Return the bytes of the states of all lanes."""
    z = jax.eval_shape(lambda leaves: each.replace(leaves=leaves)(lambda inputs, _: inputs.z0)(), each.leaves)
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(z))


class Call(NamedTuple):
    """The static arguments of a solve of some lanes."""

    problem: Problem
    adjoint: Any
    lanes: tuple
    masks: tuple

    def each(self, leaves) -> Each:
        """Return the engine for these leaves."""
        return Each(self.problem, leaves, self.masks, self.lanes)

    def each_of_shapes(self, leaves) -> Each:
        """Return the engine for the shapes of these leaves."""
        return self.each([jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves])

    def shapes(self, leaves, recording: Recording) -> Any:
        """Return the shapes of the outcome, or of outcome and history."""
        return _shapes(self, tuple((x.shape, x.dtype) for x in leaves), recording)

    @property
    def recording(self) -> Recording:
        """When the solve records its history, if it is differentiated."""
        if not self.adjoint.records:
            return Recording.NEVER
        return Recording.ALWAYS if self.adjoint.plain else Recording.IF_KEPT

    def unflatten(self, leaves, flat, recording: Recording) -> Any:
        """Return the outcome, or outcome and history, from the flat outputs of a solve."""
        return jax.tree.unflatten(jax.tree.structure(self.shapes(leaves, recording)), flat)

    def outcome(self, leaves, flat, recording: Recording) -> Outcome:
        """Return the outcome from the flat outputs of a solve."""
        solved = self.unflatten(leaves, flat, recording)
        return solved if recording is Recording.NEVER else solved[0]

    def open(self, leaves, flat) -> tuple[Outcome, Any]:
        """Return outcome and history of a solve that is differentiated."""
        if not self.adjoint.records:
            return self.outcome(leaves, flat, Recording.NEVER), ()
        outcome, history = self.unflatten(leaves, flat, self.recording)
        return outcome, history.opened()

    def width(self, leaves, lanes: int = 1) -> int | float:
        """Return how many lanes step together at most in a derivative of this call, mapped over `lanes` entries.

        On an accelerator its memory decides, by what the adjoint stores for each lane.
        """
        width, problem = width_of(self.problem), self.problem
        if width < math.inf or problem.lane_width is not None:
            return width
        each = self.each_of_shapes(leaves)
        inputs = each.inputs
        limit = inputs.steps.trials(problem.max_steps)
        if limit is None:
            return width
        count, sizes = math.prod(self.lanes), 0 if inputs.steps.exact_times else limit * inputs.t0.dtype.itemsize
        state = _bytes_of_states(each) // count
        count *= lanes
        while count > 1 and self.adjoint.stored(limit, count * state, count * sizes) > memory():
            count = -(-count // 2)
        return count

    def keeps(self, leaves, lanes: int) -> bool:
        """Whether `lanes` times as many lanes step together and record as many states of each as one alone.

        Only then has the mapped history the shape that JAX expects: that of one entry and a lane axis.
        """
        each = self.each_of_shapes(leaves)
        together = math.prod(self.lanes) * lanes <= self.width(leaves, lanes)
        return together and self.adjoint.recorder(each).fits(_bytes_of_states(each), lanes)

    def blank(self, leaves) -> list:
        """Return a history with a negative number of steps, which says that none was recorded."""
        history = self.shapes(leaves, Recording.ALWAYS)[1]
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), history)
        return jax.tree.leaves(zeros._replace(n=zeros.n - 1))

    def again(self, leaves, outcome: Outcome, solve: Callable) -> tuple["Call", list, Outcome, Any]:
        """Solve again and record; return the call, its leaves, the outcome and the history."""
        each = repeated(self.each(leaves), outcome)
        call = self._replace(problem=each.problem, masks=tuple(each.masks))
        return call, list(each.leaves), *call.open(each.leaves, solve(call, each.leaves))


@functools.lru_cache(maxsize=64)
def _shapes(call: Call, kinds: tuple, recording: Recording) -> Any:
    """Return the shapes of the outputs of a solve, without tracing the field."""
    each = call.each([jax.ShapeDtypeStruct(*kind) for kind in kinds])
    recorder = recorder_of(each, call.adjoint, recording)

    def all_lanes(leaves):
        some = each.replace(leaves=leaves)
        z, t, count, ok = some(lambda inputs, _: (inputs.z0, inputs.t0, jnp.zeros((), jnp.int32), jnp.array(True)))()
        saved = rows.finish(some, rows.blank(some, z, ok), z)
        outcome = Outcome(z, saved, count, t, Stats(count, count, count, count, count, count))
        return outcome, () if recorder is None else recorder.blank(z, t).closed()

    outcome, history = jax.eval_shape(all_lanes, each.leaves)
    return outcome if recorder is None else (outcome, history)


def ends_of(outcome: Outcome) -> tuple:
    """Return the outputs that have tangents: the state at `t1`, and the saved rows."""
    return outcome.z1, outcome.saved.rows


class Wanted(NamedTuple):
    """Which leaves of the inputs move, a bool for each: in this derivative, and in this or an outer one."""

    moving: Sequence[bool]
    shifted: Sequence[bool]

    def longer(self, count: int) -> "Wanted":
        """Return the same for `count` leaves, of which the additional ones do not move."""
        more = (False,) * (count - len(self.moving))
        return Wanted((*self.moving, *more), (*self.shifted, *more))

    def of(self, each: Each) -> Each:
        """Return the engine with these leaves moving; leaves that were added to it do not move."""
        return each.replace(**self.longer(len(each.leaves))._asdict())


class SolveMap(NamedTuple):
    """The linear map of the steps that were taken.

    Residuals are the leaves of the inputs and the flat outputs of the solve. It maps tangents of the moving leaves to
    those of the state at `t1`, the saved rows and, with `with_history`, the recorded states. `solve(call, leaves)`
    returns the flat outputs of a solve that records, and JAX can differentiate it.
    """

    call: Call
    wanted: Wanted
    with_history: bool
    solve: Callable
    recorded: Recording  # whether the residuals hold a history; NEVER: the solve is repeated to record one

    linear = None
    solves = True
    loses = False

    def outcome(self, residuals) -> Outcome:
        """Return the outcome of the solve."""
        leaves, flat = residuals[: len(self.wanted.moving)], residuals[len(self.wanted.moving) :]
        return self.call.outcome(leaves, flat, self.call.recording)

    def results(self, residuals) -> tuple:
        """Return the outputs whose tangents are the results."""
        _, outcome, history = self._open(residuals)
        return *ends_of(outcome), history.z if self.with_history else ()

    def push(self, residuals, dots) -> list:
        """Push tangents along the steps, which are taken again."""
        opened = self._open(residuals)
        ends, blank = ends_of(opened[1]), opened[2]
        call, leaves, outcome, history = self._solved(*opened)
        wanted = self.wanted.longer(len(leaves))

        def replay(*some):
            each = wanted.of(call.each(tree.replaced(leaves, wanted.moving, some)))
            z1, rows, states = call.adjoint.replay(each, outcome, history)
            states = blank.z if self.recorded is Recording.NEVER else states
            return jax.tree.leaves((z1, rows, states if self.with_history else ()))

        pushed = jax.jvp(replay, tuple(tree.picked(leaves, wanted.moving)), tuple(dots))[1]
        count = len(jax.tree.leaves(ends))
        return [*self._spoiled(history, pushed[:count]), *pushed[count:]]

    def pull(self, residuals, bars) -> list:
        """Pull cotangents back over the steps, by the adjoint."""
        opened = self._open(residuals)
        outs, structure = jax.tree.flatten(ends_of(opened[1]))
        if self.call.adjoint.plain:  # under `shard_map` only; elsewhere JAX transposes `replay` itself
            leaves = list(residuals[: len(self.wanted.moving)])
            zeros = tree.full_like(tree.picked(leaves, self.wanted.moving), 0.0)
            transposed = jax.linear_transpose(lambda *dots: self.push(residuals, dots), *zeros)
            return list(transposed(filled(bars, outs)))
        if any(bar is not None for bar in bars[len(outs) :]):
            raise unsupported(self.call.adjoint, "reverse over reverse")
        call, leaves, outcome, history = self._solved(*opened)
        each = self.wanted.of(call.each(leaves))
        bar = Cotangents(*jax.tree.unflatten(structure, filled(bars[: len(outs)], outs)))
        pulled = call.adjoint.backward(each, outcome, history, bar)
        return self._spoiled(history, tree.picked(pulled, each.moving))

    def within(self, moving: Sequence[bool]) -> "SolveMap":
        """Add the leaves that move in an outer derivative; leaves are the first arguments."""
        shifted = tuple(a or b for a, b in zip(self.wanted.shifted, moving, strict=False))
        return self._replace(wanted=self.wanted._replace(shifted=shifted))

    def over(self, residuals, lanes: int) -> "SolveMap":
        """Return the map for `lanes` times as many lanes; `residuals` are those of one entry."""
        if self.recorded is Recording.IF_KEPT and not self.call.keeps(residuals[: len(self.wanted.moving)], lanes):
            return self._replace(recorded=Recording.NEVER)
        return self

    def _open(self, residuals) -> tuple[list, Outcome, Any]:
        leaves, flat = residuals[: len(self.wanted.moving)], residuals[len(self.wanted.moving) :]
        return list(leaves), *self.call.open(leaves, flat)

    def _solved(self, leaves: list, outcome: Outcome, history: Any) -> tuple[Call, list, Outcome, Any]:
        if self.recorded is Recording.NEVER:
            return self.call.again(leaves, outcome, self.solve)
        return self.call, leaves, outcome, history

    def _spoiled(self, history: Any, values: Sequence) -> list:
        """Return the values, or NaN if they need a history that was not recorded as `vmap` added too many lanes."""
        if self.recorded is not Recording.IF_KEPT:
            return list(values)
        return [jnp.where(history.n < 0, jnp.full_like(x, jnp.nan), x) for x in values]


def filled(bars: Sequence, like: Sequence) -> list:
    """Replace None by zeros like the entries of `like`."""
    return [jnp.zeros_like(x) if bar is None else bar for bar, x in zip(bars, like, strict=True)]
