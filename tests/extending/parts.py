"""Parts of a user's own, one of each kind, made from `node_jax.extending` alone; `docs/extending.md` shows them."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from node_jax import extending as ext


@dataclasses.dataclass(frozen=True)
class Rosenbrock(ext.MethodDefaults):
    """Rodas3: four stages, L-stable, of order 3 (Sandu et al., Atmospheric Environment 31, 1997)."""

    order: int = 3
    degree: int = 3
    dense_size: int = 3

    def step(self, field, t, z, h, theta, memory):
        y, unravel = ravel_pytree(z)
        h = h.astype(y.dtype)  # times may have more digits than the state

        def f(y, t):
            return ravel_pytree(field(unravel(y), t, theta))[0]

        slope, bend = jax.jvp(lambda t: f(y, t), (t,), (jnp.ones_like(t),))
        half, bend = h / 2, h * h / 2 * bend
        factors = jax.scipy.linalg.lu_factor(jnp.eye(y.size, dtype=y.dtype) - half * jax.jacfwd(f)(y, t))

        def solved(right):
            return jax.scipy.linalg.lu_solve(factors, right)

        u = solved(half * slope + bend / 2)
        v = solved(half * slope + 2 * u + 3 * bend / 2)
        w = solved(half * f(y + 2 * u, t + h) + (u - v) / 2)
        x = solved(half * f(y + 2 * u + w, t + h) + (u - v - 8 / 3 * w) / 2)
        z1 = unravel(y + 2 * u + w + x)
        dense = (unravel(slope), field(z1, t + h, theta), z1)
        return ext.Step(z1, (unravel(x),), dense, memory, work=jnp.int32(y.size + 5))

    def polynomial(self, z, h, dense):
        """Return the cubic with the states and slopes of both ends (Hermite)."""

        def cubic(z, k0, k1, z1):
            k0, k1 = h.astype(z.dtype) * k0, h.astype(z.dtype) * k1
            return z, k0, 3 * (z1 - z) - 2 * k0 - k1, 2 * (z - z1) + k0 + k1

        return jax.tree.transpose(jax.tree.structure(z), jax.tree.structure((0,) * 4), jax.tree.map(cubic, z, *dense))


class Doubling(eqx.Module, ext.StepsDefaults):
    """Halve a step whose error is too large, and double one whose error is small."""

    tolerance: Any = 1e-6
    size: Any = 0.01

    def first(self, method, field, z0, t0, t1, theta, limit):
        return jnp.asarray(self.size, t0.dtype), method.start(field, t0, z0, theta)

    def propose(self, size, t, done, t0, t1):
        left = (t1 - t.high) - t.low
        arrives = size >= jnp.abs(left)
        h = jnp.where(arrives, left, ext.direction(t0, t1) * size)
        end = jax.tree.map(lambda at_t1, other: jnp.where(arrives, at_t1, other), ext.Time(t1, 0 * t1), t.plus(h))
        return ext.Proposal(h, end, arrives, jnp.array(False))

    def judge(self, method, step, z, t, proposal, size, t0, t1):
        error = jnp.max(jnp.abs(ravel_pytree(step.error[0])[0])).astype(size.dtype) / self.tolerance
        accepted, no = (error <= 1.0) & step.ok, jnp.array(False)
        factor = jnp.where(accepted, jnp.where(error < 0.5**method.order, 2.0, 1.0), 0.5)
        lost = ~accepted & (t.high + size == t.high)
        failure = jnp.where(lost, ext.Status.STEP_UNDERFLOW, ext.Status.SUCCESS)
        return ext.Verdict(accepted, no, no, size * factor, failure)


class Largest(NamedTuple):
    """The largest value so far, and the step that ended with it."""

    value: jax.Array
    step: jax.Array


class RunningMaximum(eqx.Module, ext.SaveDefaults):
    """Keep the state at which a function of it was largest, among the ends of steps."""

    of: Callable[[Any], jax.Array] = eqx.field(static=True)

    size = 1

    def start(self, inputs):
        return Largest(jnp.full_like(inputs.t0, -jnp.inf), jnp.full((), -1, jnp.int32))

    def blank(self, method, inputs, z, still):
        return jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), z)

    def due(self, inputs, trial, cursor):
        return trial.accepted & (self.of(trial.z1) > cursor.value)

    def place(self, trial, cursor):
        return jnp.zeros_like(trial.index)

    def row(self, method, inputs, trial, cursor):
        return trial.z1

    def passed(self, inputs, trial, cursor, due):
        reached = Largest(self.of(trial.z1).astype(cursor.value.dtype), trial.index)
        return jax.tree.map(lambda new, old: jnp.where(due, new, old), reached, cursor)

    def undone(self, inputs, trial, cursor):
        return trial.accepted & (trial.index == cursor.step), cursor

    def count(self, cursor, accepted, ok):
        return (cursor.step >= 0).astype(jnp.int32)


class Truncated(eqx.Module, ext.AdjointDefaults):
    """Differentiate only steps that start in the last `window` units of time: truncated backpropagation."""

    window: float = eqx.field(static=True)

    def recorder(self, each):
        return ext.recorder_of(self, each, None, states=True, timed=True)

    def stored(self, limit, state, sizes):
        return sizes + limit * state

    def backward(self, each, outcome, history, bar):
        ends, bar = ext.Ends.of(each, outcome, bar, ext.moving_times(each))
        late, bar = ends.pull_arrival(bar)
        inner = ext.within_steps(ends.each)
        whole, t1 = ext.pullback_of_steps(inner), each(lambda inputs, _: inputs.t1)()

        def pullback(start):
            step, pull = whole(start)
            near = jnp.abs(t1 - step.t) <= self.window  # t1 may lie before t0
            return step, lambda bar: pull(jax.tree.map(lambda g: jnp.where(near, g, 0.0), bar))

        z_bar, along = ext.back_over_steps(ends, inner, history, bar, pullback, self.recorder(each), exact=False)
        return ends.total(late, along, ends.pull_departure(bar, z_bar))
