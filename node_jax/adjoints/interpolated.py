"""The continuous adjoint along the dense output of the forward solve."""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax import tree
from node_jax.adjoints.defaults import AdjointDefaults
from node_jax.adjoints.parts.backward import back_over_steps
from node_jax.adjoints.parts.boundary import Cotangents, Ends
from node_jax.adjoints.parts.continuous import (
    Points,
    between_nodes,
    check_steps,
    engine,
    refuse_moving_nodes,
    steps_back,
    sweep,
    tightened,
)
from node_jax.adjoints.parts.history import History, Slots, recorder_of, stored_bytes
from node_jax.adjoints.parts.pullback import Pullback, pullback_of_steps
from node_jax.adjoints.parts.transition import Retraced, Start, pull_crossing, retrace
from node_jax.control import Adaptive
from node_jax.engine.each import Each
from node_jax.engine.lane import Outcome
from node_jax.events import Window, window, within
from node_jax.methods import tsit5
from node_jax.methods.polynomial import gauss, horner
from node_jax.protocols import Method
from node_jax.save import SaveEnd
from node_jax.types import Inputs, PyTree, Trial, VectorField, is_count


class Interpolated(eqx.Module, AdjointDefaults):
    """Integrate the adjoint `da/dt = -a df/dz` backwards, along the dense output of the forward solve.

    States are kept as by `Checkpointed`. Each step is taken again for its dense output, and the adjoint is integrated
    over it with its own error control. The integral for the parameters is a Gauss quadrature along the accepted steps
    of the adjoint, as in the GaussAdjoint of SciMLSensitivity: it does not enter the error control, and shared
    parameters are summed over lanes on the way. The state is never integrated backwards, so this is stable where
    trajectories contract and `Backsolve` is not. The error of the gradient is of the order of the tolerance.
    `Checkpointed` needs fewer evaluations and gives the gradient of the steps; this is the gradient of the flow, which
    differs at the limit of stability.

    Args:
        steps: an `Adaptive` of Python numbers for the adjoint; default: that of the forward solve. With `Fixed`,
            `Grid`, and a policy of your own without `anew`, it is `Adaptive()`, whatever their tolerance.
        method: method with dense output for the adjoint; default: that of the forward solve, or `tsit5`.
        memory: budget for the states that are kept, in bytes; default as with `Checkpointed`.

    Raises:
        TypeError: if `steps` is not an `Adaptive` of Python numbers.
        ValueError: if `memory` is not positive, or the method of the solve has no dense output.
        NotImplementedError: in forward mode.

    Example:
        >>> import jax, node_jax as nj
        >>> def decayed(rate):
        ...     return nj.odesolve(nj.testing.decay, 1.0, 0.0, 1.0, rate, adjoint=Interpolated()).z1
        >>> bool(abs(jax.grad(decayed)(1.0) + 0.36788) < 1e-5)
        True
    """

    steps: Adaptive | None = eqx.field(static=True, default=None)
    method: Method | None = eqx.field(static=True, default=None)
    memory: int | None = eqx.field(static=True, default=None)

    remedy = "use adjoint=Checkpointed() for forward mode and forward over reverse, Direct() for the rest"

    def __check_init__(self):
        """Refuse options of a wrong type or value, and methods without dense output."""
        check_steps(self, self.steps)
        if self.memory is not None and not is_count(self.memory):
            raise ValueError(f"Interpolated(memory=...) must be a positive integer, got {self.memory!r}")
        if self.method is not None and not _usable(self.method):
            raise ValueError(
                f"Interpolated(method=...) must have an error estimate and dense output without more slopes, "
                f"got {self.method!r}"
            )

    def recorder(self, each: Each) -> Slots:
        """Return the recorder of step sizes and states."""
        if not each.problem.method.degree:
            raise ValueError(f"method={each.problem.method!r} has no dense output, which {self!r} reads")
        return recorder_of(self, each, self.memory, states=True)

    def stored(self, limit: int, state: int, sizes: int) -> int:
        """Return the bytes kept for `limit` steps: states have `state` bytes each, step sizes `sizes` in all."""
        return sizes + stored_bytes(self.memory, None, limit, state)

    def backward(self, each: Each, outcome: Outcome, history: History, bar: Cotangents) -> list[Any]:
        """Integrate the adjoint back over the recorded steps, the last first."""
        moves = each.problem.unflatten(each.shifted)
        refuse_moving_nodes(self, each, moves)
        ends, bar = Ends.of(each, outcome, bar, moves)
        late, bar = ends.pull_arrival(bar)
        inner = between_nodes(ends.each)
        pullback = _pullback(self, inner)
        z_bar, along = back_over_steps(ends, inner, history, bar, pullback, self.recorder(each), exact=False)
        return ends.total(late, along, ends.pull_departure(bar, z_bar))

    def tighter(self, factor: float) -> "Interpolated":
        """Return the strategy with smaller tolerances for the adjoint."""
        return tightened(self, factor)


class Segment(NamedTuple):
    """The dense output of one step, `z(t + s) = sum_j q[j] (s / h)**j`, and the window of times for the field."""

    t: Any
    h: Any
    q: tuple[PyTree, ...]
    window: Window | None

    def at(self, s: jax.Array) -> PyTree:
        """Return the state at a distance `s` from the start of the step."""
        return horner(self.q, s / jnp.where(self.h == 0, 1.0, self.h))


class _Adjoint(NamedTuple):
    """The field of the adjoint within one step; its time is the distance from the start of that step."""

    field: VectorField

    def __call__(self, a, s, parts):
        theta, segment = parts
        field = within(self.field, segment.window)
        _, vjp = jax.vjp(lambda z: field(z, segment.t + s, theta), segment.at(s))
        return tree.subtract(tree.full_like(a, 0.0), vjp(a)[0])


def _usable(method: Method) -> bool:
    return method.has_error and method.degree > 0 and not method.dense_evaluations


def _pullback(adjoint: Interpolated, each: Each) -> Pullback:
    """Pull the end of a step back by the adjoint equation, and cotangents of its dense output by `jax.vjp`."""
    problem = each.problem
    reads = each.inputs.save.reads_dense
    discrete = pullback_of_steps(each)

    def pullback(start: Start):
        if reads:
            y, pull_dense = discrete(start)
        else:
            y, pull_dense = each(lambda inputs, start: retrace(problem, inputs, start, dense=True))(start), None

        def pull(bar: Retraced):
            def polynomial(inputs, rest):
                start, y = rest
                q = problem.method.polynomial(start.z, y.h, y.dense)
                return Segment(y.t, y.h, q, window(inputs.steps, y.t, inputs.sign))

            leaves_bar, a = _sweep(adjoint, each, each(polynomial)((start, y)), bar.z1)
            if problem.crosses:
                leaves_bar = tree.add(leaves_bar, pull_crossing(each, y.t + y.h, y.h, y.z1, bar.z1))
            if pull_dense is None:
                return leaves_bar, a
            more = pull_dense(tree.full_like(bar, 0.0)._replace(dense=bar.dense))
            return tree.add((leaves_bar, a), more)

        return y, pull

    return pullback


def _sweep(adjoint: Interpolated, each: Each, segment: Segment, a1: PyTree) -> tuple[list[Any], PyTree]:
    """Integrate the adjoint over one step of every lane; return cotangents of the leaves and of the first state."""
    problem, inputs = each.problem, each.inputs
    method = adjoint.method or (problem.method if _usable(problem.method) else tsit5)
    whole = jnp.where(segment.h == 0, 1.0, jnp.abs(segment.h))
    steps = dataclasses.replace(steps_back(each, adjoint.steps), first_step=whole, breakpoints=None)
    parts = (inputs.theta, segment)
    back = Inputs(a1, segment.h, jnp.zeros_like(segment.h), parts, steps, SaveEnd())
    reverse = engine(each, _Adjoint(problem.field), method, back)

    def points(inputs: Inputs, trial: Trial) -> Points:
        return _gauss(method, inputs.theta[1], trial)

    ended, theta_bar = sweep(each, reverse, each.zeros(), points, lambda carry, landed: carry)
    return theta_bar, ended.z1


def _gauss(method: Method, segment: Segment, trial: Trial) -> Points:
    """Return the quadrature points along one step of the adjoint; those of a rejected one have no weight."""
    h = jnp.where(trial.accepted, trial.h, 0.0)
    states, fractions, weights = gauss(method, trial.z, trial.h, trial.dense)
    a = tree.where(trial.accepted, states, [trial.z] * len(states))
    s = jnp.stack([trial.t.high + x * h for x in fractions])
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *a)
    weights = jnp.stack([-w * h for w in weights])
    return Points(jax.vmap(segment.at)(s), stacked, segment.t + s, weights, segment.window)
