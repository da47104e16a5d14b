"""What a solve wrote down, as its way back meets it: cotangents at times."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from node_jax import tree
from node_jax.adjoints.parts.boundary import Cotangents
from node_jax.engine.each import Each
from node_jax.engine.lane import Inputs, Outcome, Problem, visible
from node_jax.methods.polynomial import coefficients, whole
from node_jax.save import Interpolant, SaveAt, SaveEnd, SaveSteps
from node_jax.times import between
from node_jax.types import PyTree


class Observations(NamedTuple):
    """Output times of one lane in the order of the forward solve; cotangents of equal times stand at the first.

    The first `count` were reached; the others stand where the last of these does.
    """

    ts: Any
    zs: PyTree
    bars: PyTree
    count: jax.Array


def observed(each: Each, outcome: Outcome, bar: Cotangents, chosen: Sequence[bool]) -> tuple[Observations | None, list]:
    """Return what was saved as observations, and what of its cotangents goes to the leaves directly."""
    save, theta_bar = each.inputs.save, tree.full_like(tree.picked(each.leaves, chosen), 0.0)
    if isinstance(save, SaveEnd) or (isinstance(save, SaveAt) and not save.ts.shape[0]):
        return None, theta_bar
    if isinstance(save, SaveAt):
        return each(_at_times)((outcome, bar)), theta_bar
    if isinstance(save, SaveSteps):
        return each(_at_ends)((outcome, bar)), theta_bar
    starts = each(_at_starts)(outcome)

    def polynomials(some, zs):
        put = each.put(chosen, some)
        return put(lambda inputs, rest: _polynomials(each.problem, inputs, *rest))((outcome.out, starts.count, zs))

    _, vjp = jax.vjp(polynomials, tree.picked(each.leaves, chosen), starts.zs)
    theta_bar, bars = vjp(bar.rows.q)
    bars = each(lambda inputs, rest: _at_first(inputs.sign, *rest))((starts.ts, bars))
    return starts._replace(bars=bars), theta_bar


def _at_times(inputs: Inputs, rest: tuple[Outcome, Cotangents]) -> Observations:
    outcome, bar = rest
    ts = between(inputs.save.ts, inputs.t0, inputs.t1)
    count = jnp.where(outcome.ok | (outcome.stats.accepted > 0), outcome.out.cursor, 0)
    return Observations(ts, outcome.out.zs, _at_first(inputs.sign, ts, bar.rows), count)


def _at_ends(inputs: Inputs, rest: tuple[Outcome, Cotangents]) -> Observations:
    """Observe the ends of all steps."""
    outcome, bar = rest
    ts, zs = outcome.out
    ts = _filled(ts, outcome.stats.accepted, inputs.t0)
    return Observations(ts, zs, _at_first(inputs.sign, ts, bar.rows.zs), outcome.stats.accepted)


def _at_starts(inputs: Inputs, outcome: Outcome) -> Observations:
    """Observe the starts of all steps; cotangents are missing."""
    ts, _, q = outcome.out
    constant = jax.tree.map(lambda x, z0: jnp.broadcast_to(z0, x.shape), q[0], inputs.z0)
    zs = tree.where_rows(jnp.arange(ts.shape[0]) < outcome.stats.accepted, q[0], constant)
    return Observations(_filled(ts, outcome.stats.accepted, inputs.t0), zs, (), outcome.stats.accepted)


def _at_first(sign: jax.Array, ts: jax.Array, bars: PyTree) -> PyTree:
    """Add up the cotangents of equal times at the first of them."""
    first = jnp.searchsorted(sign * ts, sign * ts)
    return jax.tree.map(lambda g: jnp.zeros_like(g).at[first].add(g), bars)


def _filled(ts: jax.Array, count: jax.Array, t0: jax.Array) -> jax.Array:
    last = jnp.where(count > 0, ts[jnp.maximum(count - 1, 0)], t0)
    return jnp.where(jnp.arange(ts.shape[0]) < count, ts, last)


def _polynomials(problem: Problem, inputs: Inputs, saved: Interpolant, count: jax.Array, zs: PyTree) -> tuple:
    """Return the polynomials of all steps of one lane as functions of their starts."""
    taken = jnp.arange(saved.t.shape[0]) < count

    def one(taken, t, h, z):
        t, h = (jnp.where(taken, x, other) for x, other in ((t, inputs.t0), (h, 0.0)))
        field = visible(problem.field, inputs.steps, t, inputs.sign)
        slopes = problem.method.stages(field, t, z, h, inputs.theta)
        slopes = problem.method.dense_slopes(field, t, z, h, inputs.theta, slopes)
        return coefficients(problem.method, z, whole(h), slopes)

    return jax.vmap(one)(taken, saved.t, saved.h, zs)


def at_time(sign: jax.Array, seen: Observations, t: jax.Array) -> tuple[jax.Array, PyTree, PyTree]:
    """Say whether `t` is an output time, and what was saved there and its cotangent."""
    i = jnp.minimum(jnp.searchsorted(sign * seen.ts, sign * t), seen.ts.shape[0] - 1)
    return seen.ts[i] == t, tree.row(seen.zs, i), tree.row(seen.bars, i)
