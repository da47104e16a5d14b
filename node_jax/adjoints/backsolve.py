"""The continuous adjoint: one augmented solve backwards in time (Chen et al., 2018, Algorithms 1 and 2)."""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from node_jax import tree
from node_jax.adjoints.defaults import AdjointDefaults
from node_jax.adjoints.parts.boundary import Cotangents, Ends
from node_jax.adjoints.parts.continuous import (
    Points,
    Sweep,
    between_nodes,
    check_steps,
    engine,
    refuse_moving_nodes,
    steps_back,
    sweep,
    tightened,
)
from node_jax.adjoints.parts.observations import Observations, at_time, observed
from node_jax.adjoints.parts.transition import pull_crossing
from node_jax.control import Adaptive
from node_jax.engine.each import Each
from node_jax.engine.lane import Outcome, Problem, Progress, restart
from node_jax.engine.lockstep import integrate
from node_jax.events import Window, has_breakpoints, next_to, window
from node_jax.methods import tsit5
from node_jax.protocols import Method
from node_jax.save import SaveEnd
from node_jax.types import Inputs, PyTree, Stats, Trial, direction


class Backsolve(eqx.Module, AdjointDefaults):
    """Integrate the adjoint `da/dt = -a df/dz` backwards together with the state; steps add nothing to the memory.

    At each output time the cotangent jumps and the state restarts from the saved one (Algorithm 2 of Chen et al.,
    2018). The integral for the parameters is a quadrature over accepted steps, so that it enters neither the state nor
    the error control, and shared parameters are summed over lanes on the way. The error of the gradient is of the order
    of the tolerance times the factor by which the backward solve amplifies errors. Where trajectories contract, the
    state cannot be reconstructed, and the gradient can be wrong without any sign of it: `check_gradient` shows that,
    and `Checkpointed` avoids it.

    Args:
        steps: an `Adaptive` of Python numbers for the backward solve; default: that of the forward solve. With
            `Fixed`, `Grid`, and a policy of your own without `anew`, it is `Adaptive()`, whatever their tolerance.
        method: method for the backward solve; default: that of the forward solve.

    Raises:
        TypeError: if `steps` is not an `Adaptive` of Python numbers.
        NotImplementedError: in forward mode.

    Example:
        >>> import jax, node_jax as nj
        >>> def decayed(rate):
        ...     return nj.odesolve(nj.testing.decay, 1.0, 0.0, 1.0, rate, adjoint=Backsolve()).z1
        >>> bool(abs(jax.grad(decayed)(1.0) + 0.36788) < 1e-5)
        True
    """

    steps: Adaptive | None = eqx.field(static=True, default=None)
    method: Method | None = eqx.field(static=True, default=None)

    records = False
    remedy = "use adjoint=Checkpointed() for forward mode and forward over reverse, Direct() for the rest"

    def __check_init__(self):
        """Refuse steps that cannot be constants of a compiled program."""
        check_steps(self, self.steps)

    def stored(self, limit: int, state: int, sizes: int) -> int:
        """Return the bytes kept along the steps: none."""
        return 0

    def backward(self, each: Each, outcome: Outcome, history: tuple[Any, ...], bar: Cotangents) -> list[Any]:
        """Solve the augmented system backwards."""
        moves = each.problem.unflatten(each.shifted)
        refuse_moving_nodes(self, each, moves)
        ends, bar = Ends.of(each, outcome, bar, moves)
        late, bar = ends.pull_arrival(bar)
        # a lane whose steps do not contribute has nothing to solve
        taken = jnp.where(ends.contribution.steps, outcome.stats.accepted, 0)
        counted = outcome._replace(stats=outcome.stats._replace(accepted=taken))
        back = way_back(self, ends.each, counted, bar)
        return ends.total(late, back.theta_bar, ends.pull_departure(bar, back.z_bar))

    def reconstruct(self, each: Each, z1_bar: PyTree) -> tuple[PyTree, jax.Array]:
        """Return the state at `t0` at which the augmented solve ends, and its field evaluations."""
        each = each.replace(moving=[False] * len(each.leaves))
        back = way_back(self, each, integrate(each, None)[0], Cotangents(z1_bar, ()))
        return back.z0, back.stats.nfe

    def tighter(self, factor: float) -> "Backsolve":
        """Return the strategy with smaller tolerances for the backward solve."""
        return tightened(self, factor)


class WayBack(NamedTuple):
    """The result of the augmented solve: cotangents of `z0` and of leaves, the state at `t0`, status and counts."""

    z_bar: PyTree
    theta_bar: list[Any]
    z0: PyTree
    status: jax.Array
    stats: Stats


def way_back(adjoint: Backsolve, each: Each, outcome: Outcome, bar: Cotangents) -> WayBack:
    """Solve backwards from the last known state of every lane to its `t0`."""
    each = between_nodes(each)
    seen, theta_bar = observed(each, outcome, bar)
    z, t = each(_last_known)((outcome, seen))
    a = each(_first_cotangent)((bar, seen, t))
    reverse = _reversed(adjoint, each, (z, a), t, seen)
    method, lands = reverse.problem.method, reverse.inputs.steps.breakpoints is not None

    def land(carry: Sweep, landed: jax.Array) -> Sweep:
        after, theta_bar = carry
        if each.problem.crosses:
            h = each(lambda inputs, rest: jnp.where(rest[1], _least_step(rest[0], inputs.sign), 0.0))(
                (after.t.high, landed)
            )
            theta_bar = tree.add(theta_bar, pull_crossing(each, after.t.high, h, *after.z))
        if lands:
            jump = reverse(lambda inputs, rest: _jump(reverse.problem, inputs, *rest))
            after = lax.cond(jnp.any(landed), jump, lambda rest: rest[0], (after, landed, seen))
        return Sweep(after, theta_bar)

    def points(inputs: Inputs, trial: Trial) -> Points:
        return _stages(method, trial, window(inputs.steps, trial.t.high, inputs.sign))

    ended, theta_bar = sweep(each, reverse, theta_bar, points, land)
    return WayBack(
        each(_last_cotangent)((ended, seen, outcome.still)),
        each.of_all(theta_bar),
        ended.z1[0],
        ended.status,
        ended.stats,
    )


def _least_step(t: jax.Array, sign: jax.Array) -> jax.Array:
    """Return the smallest step that ends at `t`, so that it passes no other breakpoint."""
    return t - jnp.where(sign > 0, next_to(t, -jnp.inf), next_to(t, jnp.inf))


def _last_known(inputs: Inputs, rest: tuple[Outcome, Observations | None]) -> tuple[PyTree, jax.Array]:
    """Return the last saved state of one lane, from which the backward solve starts, and its time."""
    outcome, seen = rest
    z, t = inputs.z0, inputs.t0
    if seen is not None:
        some, i = seen.count > 0, jnp.maximum(seen.count - 1, 0)
        z, t = tree.where(some, tree.entry(seen.zs, i), z), jnp.where(some, seen.ts[i], t)
    return tree.where(outcome.ok, outcome.z1, z), jnp.where(outcome.ok, inputs.t1, t)


def _first_cotangent(inputs: Inputs, rest) -> PyTree:
    bar, seen, t = rest
    if seen is None:
        return bar.z1
    here, _, g = at_time(inputs.sign, seen, t)
    return tree.add(bar.z1, tree.where(here & (t != inputs.t0), g, tree.full_like(g, 0.0)))


def _last_cotangent(inputs: Inputs, rest) -> PyTree:
    ended, seen, still = rest
    a = ended.z1[1]
    if seen is None:
        return a
    here, _, g = at_time(inputs.sign, seen, inputs.t0)
    # where there was nothing to integrate, `pull_departure` adds the cotangents of the rows
    return tree.add(a, tree.where(here & ~still, g, tree.full_like(g, 0.0)))


def _jump(problem: Problem, inputs: Inputs, p: Progress, landed: jax.Array, seen: Observations | None) -> Progress:
    """At an output time take the saved state and add its cotangent; rebuild the memory of the method."""
    if seen is not None:
        here, z, g = at_time(direction(inputs.t1, inputs.t0), seen, p.t.high)
        jumped = (z, tree.add(p.z[1], g))
        p = p._replace(z=tree.where(landed & here, jumped, p.z))
    return restart(problem, inputs, p, landed)


def _reversed(adjoint: Backsolve, each: Each, start: tuple[Any, ...], t: jax.Array, seen: Observations | None) -> Each:
    """Return the engine of the augmented system, from `t` to `t0`."""
    problem, inputs = each.problem, each.inputs
    steps = steps_back(each, adjoint.steps)
    lands = has_breakpoints(inputs.steps) or seen is not None
    times = each(lambda inputs, seen: _breakpoints(inputs, seen))(seen) if lands else None
    steps = dataclasses.replace(steps.paired(), breakpoints=times)
    method = adjoint.method or (problem.method if problem.method.has_error else tsit5)
    return engine(each, _Augmented(problem.field), method, Inputs(start, t, inputs.t0, inputs.theta, steps, SaveEnd()))


def _breakpoints(inputs: Inputs, seen: Observations | None) -> jax.Array:
    parts = [x for x in (inputs.steps.breakpoints, None if seen is None else seen.ts) if x is not None]
    return jnp.concatenate(parts)


class _Augmented(NamedTuple):
    """The field of state and adjoint."""

    field: Any

    def __call__(self, za, t, theta):
        z, a = za
        slope, vjp = jax.vjp(lambda z: self.field(z, t, theta), z)
        return slope, tree.subtract(tree.full_like(a, 0.0), vjp(a)[0])


def _stages(method: Method, trial: Trial, seen: Window | None) -> Points:
    """Return the quadrature points along one step; those of a rejected one have no weight."""
    h = jnp.where(trial.accepted, trial.h, 0.0)
    states, fractions, weights = method.quadrature(trial.z, trial.h, trial.dense)
    states = tree.where(trial.accepted, states, [trial.z] * len(states))
    z, a = jax.tree.map(lambda *x: jnp.stack(x), *states)
    times = jnp.stack([trial.t.high + x * h for x in fractions])
    return Points(z, a, times, jnp.stack([-w * h for w in weights]), seen)
