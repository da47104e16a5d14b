"""What every adjoint does at its two ends: failures, and derivatives with respect to times.

Nodes are constants of the gradient of an adaptive solve; the times enter through three terms, the same for every
adjoint: `dL/dt1 = a(t1) f(z1, t1)`, `dL/dt0 = -a(t0) f(z0, t0)`, `dL/dts_i = g_i f(z_i, t_i)`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from node_jax import tree
from node_jax.integrate import Each, Inputs, Outcome, visible
from node_jax.types import PyTree, Status


class Cotangents(NamedTuple):
    """Cotangents of what a solve returns: the state at `t1`, and the saved rows."""

    z1: PyTree
    rows: PyTree


def split(each: Each, outcome: Outcome, bar: Cotangents) -> tuple[Each, Cotangents, jax.Array, jax.Array]:
    """Separate what a failed lane may contribute from what it may not.

    Returns the engine with the inputs of lanes that contribute no step replaced by those of a lane that does (its
    pullback is known to be finite), the cotangents without those of NaN outputs, which lanes contribute steps, and
    which lanes had a cotangent on a NaN output.
    """
    bar, counts, poison = each(_split)((outcome, bar))
    leaves = [_donate(x, mask, counts) for x, mask in zip(each.leaves, each.masks, strict=True)]
    return each._replace(leaves=leaves), bar, counts, poison


def _split(inputs: Inputs, rest: tuple[Outcome, Cotangents]) -> tuple[Cotangents, jax.Array, jax.Array]:
    outcome, bar = rest
    ok = outcome.status == Status.SUCCESS
    written = inputs.save.written(outcome.out, outcome.stats.accepted, ok)
    zeros = tree.full_like(bar, 0.0)
    kept = Cotangents(tree.where(ok, bar.z1, zeros.z1), tree.where_rows(written, bar.rows, zeros.rows))
    lost = Cotangents(tree.where(ok, zeros.z1, bar.z1), tree.where_rows(written, zeros.rows, bar.rows))
    poison = jax.tree.reduce(jnp.logical_or, jax.tree.map(lambda x: jnp.any(x != 0), lost), jnp.array(False))
    saves_more = bool(jax.tree.leaves(bar.rows))
    return kept, (outcome.stats.accepted > 0) & (ok | saves_more), poison


def _donate(leaf: jax.Array, mask, counts: jax.Array) -> jax.Array:
    """Replace the entries of a leaf that only idle lanes use by one that another lane uses."""
    if not any(mask):
        return leaf
    used = tree.any_missing(counts, mask)
    flat = leaf.reshape((*leaf.shape[: leaf.ndim - used.ndim], used.size))
    donor = jnp.expand_dims(flat[..., jnp.argmax(used.reshape(-1))], [*range(flat.ndim - 1, leaf.ndim)])
    return tree.where(used, leaf, jnp.broadcast_to(donor, leaf.shape))


def departure_slope(each: Each, inputs: Inputs) -> PyTree:
    """Return the slope of one lane at `t0`, seen from inside."""
    field = visible(each.problem, inputs, inputs.t0, inputs.t1 - inputs.t0)
    return field(inputs.z0, inputs.t0, inputs.theta)


def arrival_slope(each: Each, inputs: Inputs, z1: PyTree) -> PyTree:
    """Return the slope of one lane at `t1`, seen from inside."""
    field = visible(each.problem, inputs, inputs.t1, inputs.t0 - inputs.t1)
    return field(z1, inputs.t1, inputs.theta)


def settle(each: Each, outcome: Outcome, bar: Cotangents, z_bar: PyTree, ts_bar, loop_bars: list, poison) -> list:
    """Return a cotangent for each leaf of the inputs, None for leaves without one.

    `z_bar` is the cotangent of the state at `t0` and `ts_bar` that of the output times, lane by lane; `loop_bars` are
    those that were summed on the way back, leaf by leaf, None elsewhere.
    """
    inputs = each.problem.unflatten(each.leaves)
    ends = each(lambda inputs, rest: _ends(each, inputs, *rest))((outcome, bar, z_bar))
    z0, t0, t1, ts = ends
    if inputs.steps.exact_times:
        t0, t1, ts = None, None, ts_bar
    between = len(jax.tree.leaves((inputs.theta, inputs.steps)))
    by_lane = [*jax.tree.leaves(z0), t0, t1, *[None] * between, *([ts] if hasattr(inputs.save, "ts") else [])]
    return [_total(*each_leaf, poison) for each_leaf in zip(each.leaves, each.masks, by_lane, loop_bars, strict=True)]


def _total(leaf: jax.Array, mask, by_lane, looped, poison: jax.Array):
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return None
    g = jnp.zeros_like(leaf)
    if looped is not None:
        g = looped
    elif by_lane is not None:
        g = tree.sum_missing(by_lane, mask).astype(leaf.dtype)
    return tree.where(tree.any_missing(poison, mask), jnp.full_like(g, jnp.nan), g)


def _ends(each: Each, inputs: Inputs, outcome: Outcome, bar: Cotangents, z_bar: PyTree) -> tuple:
    """Cotangents of one lane with respect to `z0`, `t0`, `t1` and the output times, with the nodes held fixed."""
    dtype, save = inputs.t0.dtype, inputs.save
    ok = outcome.status == Status.SUCCESS
    idle = ok & (outcome.stats.accepted == 0)
    constant = save.constant(bar.rows, z_bar)
    z_bar = tree.add(z_bar, tree.where(idle, constant, tree.full_like(constant, 0.0)))

    t0_bar = -tree.dot(z_bar, departure_slope(each, inputs), dtype)
    z1 = tree.where(ok, outcome.z1, inputs.z0)
    t1_bar = tree.dot(bar.z1, arrival_slope(each, inputs, z1), dtype)
    if not hasattr(save, "ts"):
        return z_bar, t0_bar, t1_bar, ()
    written = save.written(outcome.out, outcome.stats.accepted, ok)

    def at_time(t, z, g, real):
        t, z = jnp.where(real, t, inputs.t0), tree.where(real, z, inputs.z0)
        return tree.dot(g, each.problem.field(z, t, inputs.theta), dtype)

    return z_bar, t0_bar, t1_bar, jax.vmap(at_time)(save.ts, save.rows(outcome.out), bar.rows, written)
