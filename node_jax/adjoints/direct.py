"""Derivatives of any order and mode, by code that JAX differentiates itself."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from node_jax import axes, tree
from node_jax.adjoints.defaults import AdjointDefaults
from node_jax.adjoints.parts.boundary import arrive, depart, moving_times, reached, unsupported, with_donors
from node_jax.adjoints.parts.history import History
from node_jax.adjoints.parts.transition import AllLanes, RecordedStep, Start, at_nodes, crossing, retake, retrace
from node_jax.engine import rows
from node_jax.engine.each import Each
from node_jax.engine.lane import Outcome
from node_jax.methods.polynomial import proper
from node_jax.types import Inputs, PyTree, Time

BLOCK = 16  # steps that are taken, or skipped, together


class Direct(eqx.Module, AdjointDefaults):
    """Differentiate the steps that were taken as plain code: reverse and forward mode, of any order.

    The solve first finds the steps. A bounded loop then takes them again; its cost grows with their number and not with
    `max_steps`. Reverse mode stores one state for every 16 of `max_steps`, and takes each step three times more. Step
    sizes are constants of the derivative under `Adaptive`; derivatives with respect to times are correct up to the 4th.

    Example:
        >>> import jax, node_jax as nj
        >>> def decayed(rate):
        ...     return nj.odesolve(nj.testing.decay, 1.0, 0.0, 1.0, rate, adjoint=Direct(), max_steps=64).z1
        >>> bool(abs(jax.grad(jax.grad(decayed))(1.0) - 0.36788) < 1e-5)
        True
    """

    plain = True
    remedy = ""  # nothing is missing

    def stored(self, limit: int, state: int, sizes: int) -> int:
        """Return the bytes kept along the steps: their sizes, and a state for each block."""
        return sizes + -(-limit // BLOCK) * state

    def replay(self, each: Each, outcome: Outcome, history: History) -> tuple[Any, ...]:
        """Return the state at `t1` and the saved rows, differentiable in the inputs."""
        used = outcome.ok | ((outcome.stats.accepted > 0) & bool(each.inputs.save.size))
        outcome = outcome._replace(stats=outcome.stats._replace(accepted=jnp.where(used, outcome.stats.accepted, 0)))
        every = (True,) * len(each.leaves)
        each = crossing(_held(each, used).replace(shifted=every), every)[0]
        moves = moving_times(each)
        inside, save = at_nodes(each), each.inputs.save
        if save.repeats and save.ts is None:
            raise unsupported(self, f"save={save!r}, of which one step writes several rows")
        limit = each.inputs.steps.trials(each.problem.max_steps)
        z, saved, starts, ends = _take(each, inside, outcome, history, moves, limit)
        if save.repeats:
            states = _read(inside, (outcome, z), history, starts, ends)
        else:
            states = rows.finish(inside, saved, z).rows
        nodes = ((z, states), reached(each, outcome))
        arrived = each(lambda inputs, rest: arrive(each.problem, inputs, rest, moves))(nodes)
        return arrived.z1, arrived.rows, ()


def _held(each: Each, alive: jax.Array) -> Each:
    """Stop gradients of inputs that only lanes without contribution use: derivatives of any order may be NaN there."""
    each = with_donors(each, alive)
    pairs = zip(each.leaves, each.masks, strict=True)
    return each.replace(
        leaves=[tree.where(axes.any_missing(alive, mask), x, lax.stop_gradient(x)) for x, mask in pairs]
    )


class _Carry(NamedTuple):
    t: Time
    z: PyTree
    index: jax.Array
    saved: Any


def _take(each: Each, inside: Each, outcome: Outcome, history: History, moves: Inputs, limit: int) -> tuple[Any, ...]:
    """Take all steps; return the last state, what was saved, and start and end of each step."""
    problem, save = each.problem, each.inputs.save
    z0, t0 = each(lambda inputs, _: (depart(problem, inputs, moves), lax.stop_gradient(inputs.t0)))()
    accepted = outcome.stats.accepted
    lanes = AllLanes(z0, t0, accepted)

    def body(carry: _Carry, step):
        i, h = step
        t, z, index, saved = carry
        start, trial, after, z1 = retake(each, lanes, i, RecordedStep(h, t, z), index)
        if not save.repeats:
            saved, _ = rows.record(inside, saved, trial, lambda trial, _: trial)
        kept = (start, after.high) if save.repeats else None
        return _Carry(after, z1, index + trial.accepted, saved), kept

    saved = () if save.repeats else rows.blank(each, z0, outcome.still)
    carry = _Carry(Time(t0, jnp.zeros_like(t0)), z0, jnp.zeros_like(accepted), saved)
    carry, kept = _bounded(body, carry, history.n, limit, history.h)
    return carry.z, carry.saved, *(kept if kept is not None else (None, None))


def _bounded(body, carry, n: jax.Array, limit: int, h: PyTree):
    """Scan `body` over `limit` steps, of which `n` count, in checkpointed blocks; blocks beyond `n` are skipped."""
    count = -(-limit // BLOCK)
    h = jax.tree.map(lambda x: jnp.pad(x, [(0, -limit % BLOCK)] + [(0, 0)] * (x.ndim - 1)), h)
    blocks = jax.tree.map(lambda x: x.reshape(count, BLOCK, *x.shape[1:]), (jnp.arange(count * BLOCK), h))

    def scan(carry, steps):
        return lax.scan(jax.checkpoint(body), carry, steps)

    first = jax.tree.map(lambda x: x[0], blocks)
    skipped = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(scan, carry, first)[1])

    def block(carry, steps):
        return lax.cond(steps[0][0] < n, scan, lambda carry, _: (carry, skipped), carry, steps)

    carry, kept = lax.scan(jax.checkpoint(block), carry, blocks)
    return carry, jax.tree.map(lambda x: _wanted(x.reshape(count * BLOCK, *x.shape[2:])), kept)


def _wanted(x: jax.Array) -> jax.Array:
    """Return `x` with a cotangent that is always an array, as `lax.scan` needs, even if nothing uses `x`."""
    return lax.optimization_barrier(x) if jnp.issubdtype(x.dtype, jnp.inexact) else x


def _read(inside: Each, ended: tuple[Outcome, PyTree], history: History, starts: Start, ends: jax.Array):
    """Interpolate the states at output times in the steps that contain them; without steps, return the last state."""
    problem, last = inside.problem, history.n - 1

    def read(inputs, rest):
        starts, ends, (outcome, z) = rest
        sign = inputs.sign
        taken = jnp.where(jnp.arange(ends.shape[0]) <= last, sign * ends, jnp.inf)
        final = taken[jnp.maximum(last, 0)]

        def at(time, written):
            i = jnp.searchsorted(taken, jnp.minimum(lax.stop_gradient(sign * time), final))
            start = tree.entry(starts, i)
            t0 = lax.stop_gradient(inputs.t0)  # where nothing was written, the field might not be finite at `start.t`
            still = Start(start.index, Time(t0, jnp.zeros_like(t0)), jnp.zeros_like(start.h), inputs.z0)
            start = tree.where(written, start, still)
            y = retrace(problem, inputs, start)
            left = jnp.where(written, (time - y.t) - start.t.low, 0.0)
            h = proper(y.h)
            return problem.method.at(start.z, h, y.dense, left / h)

        others = jax.tree.map(lambda x: jnp.where(outcome.ok, x, jnp.nan), z)
        written = rows.written(inputs, outcome.saved, outcome.stats.accepted, jnp.array(False))
        return tree.where_rows(written, jax.vmap(at)(inputs.save.ts, written), others)

    return inside(read)((starts, ends, ended))
