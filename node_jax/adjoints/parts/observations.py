"""The saved rows of a solve as states observed at times, with cotangents: the form in which `Backsolve` reads them."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from node_jax import tree
from node_jax.adjoints.parts.boundary import Cotangents
from node_jax.engine.each import Each
from node_jax.engine.lane import Outcome, Problem, at_stages
from node_jax.methods.polynomial import proper
from node_jax.save import Dense, Interpolant, SaveAt, SaveSteps
from node_jax.times import between
from node_jax.types import Inputs, PyTree


class Observations(NamedTuple):
    """Output times, states and cotangents of one lane, in the order of the forward solve.

    The first `count` times were reached; the others are set to the last of these. Cotangents of equal times are summed
    at the first of them.
    """

    ts: Any
    zs: PyTree
    bars: PyTree
    count: jax.Array


def observed(each: Each, outcome: Outcome, bar: Cotangents) -> tuple[Observations | None, list[Any]]:
    """Return the observations of a solve, if any, and the cotangents of rows that go to the leaves directly."""
    if not each.inputs.save.size:
        return None, each.zeros()
    return observe(each.inputs.save, each, outcome, bar)


@functools.singledispatch
def observe(save: Any, each: Each, outcome: Outcome, bar: Cotangents) -> tuple[Any, ...]:
    """Do that for one kind of save; `observe.register(kind)` adds another."""
    raise NotImplementedError(f"adjoint=Backsolve() does not know at which times save={save!r} observes the state")


@observe.register
def _times(save: SaveAt, each, outcome, bar):
    return each(_at_times)((outcome, bar)), each.zeros()


@observe.register
def _ends(save: SaveSteps, each, outcome, bar):
    return each(_at_ends)((outcome, bar)), each.zeros()


@observe.register
def _starts(save: Dense, each, outcome, bar):
    """Observe the starts of steps, and pull cotangents of polynomials back to them."""
    starts = each(_at_starts)(outcome)

    def polynomials(inputs, zs, rest):
        saved, count = rest
        return _polynomials(each.problem, inputs, saved, count, zs)

    theta_bar, bars = each.vjp(polynomials, starts.zs, (outcome.saved.rows, starts.count))[1](bar.rows.q)
    bars = each(lambda inputs, rest: _at_first(inputs.sign, *rest))((starts.ts, bars))
    return starts._replace(bars=bars), theta_bar


def _at_times(inputs: Inputs, rest: tuple[Outcome, Cotangents]) -> Observations:
    outcome, bar = rest
    ts = between(inputs.save.ts, inputs.t0, inputs.t1)
    count = jnp.where(outcome.ok | (outcome.stats.accepted > 0), outcome.saved.cursor.count, 0)
    return Observations(ts, outcome.saved.rows, _at_first(inputs.sign, ts, bar.rows), count)


def _at_ends(inputs: Inputs, rest: tuple[Outcome, Cotangents]) -> Observations:
    """Observe the ends of all steps."""
    outcome, bar = rest
    ts, zs = outcome.saved.rows
    ts = _filled(ts, outcome.stats.accepted, inputs.t0)
    return Observations(ts, zs, _at_first(inputs.sign, ts, bar.rows.zs), outcome.stats.accepted)


def _at_starts(inputs: Inputs, outcome: Outcome) -> Observations:
    """Observe the starts of all steps, without cotangents."""
    ts, _, q = outcome.saved.rows
    constant = jax.tree.map(lambda x, z0: jnp.broadcast_to(z0, x.shape), q[0], inputs.z0)
    zs = tree.where_rows(jnp.arange(ts.shape[0]) < outcome.stats.accepted, q[0], constant)
    return Observations(_filled(ts, outcome.stats.accepted, inputs.t0), zs, (), outcome.stats.accepted)


def _at_first(sign: jax.Array, ts: jax.Array, bars: PyTree) -> PyTree:
    """Sum the cotangents of equal times at the first of them."""
    first = jnp.searchsorted(sign * ts, sign * ts)
    return jax.tree.map(lambda g: jnp.zeros_like(g).at[first].add(g), bars)


def _filled(ts: jax.Array, count: jax.Array, t0: jax.Array) -> jax.Array:
    last = jnp.where(count > 0, ts[jnp.maximum(count - 1, 0)], t0)
    return jnp.where(jnp.arange(ts.shape[0]) < count, ts, last)


def _polynomials(problem: Problem, inputs: Inputs, saved: Interpolant, count: jax.Array, zs: PyTree) -> tuple[Any, ...]:
    """Return the polynomials of all steps of one lane as functions of their starts."""
    taken = jnp.arange(saved.t.shape[0]) < count

    def one(taken, t, h, z):
        t, h = (jnp.where(taken, x, other) for x, other in ((t, inputs.t0), (h, 0.0)))
        field = at_stages(problem, inputs, t)
        dense = problem.method.replay(field, t, z, h, inputs.theta, True)[1]
        return problem.method.polynomial(z, proper(h), dense)

    return jax.vmap(one)(taken, saved.t, saved.h, zs)


def at_time(sign: jax.Array, seen: Observations, t: jax.Array) -> tuple[jax.Array, PyTree, PyTree]:
    """Return whether `t` is an output time, the state saved there and its cotangent."""
    i = jnp.minimum(jnp.searchsorted(sign * seen.ts, sign * t), seen.ts.shape[0] - 1)
    return seen.ts[i] == t, tree.entry(seen.zs, i), tree.entry(seen.bars, i)
