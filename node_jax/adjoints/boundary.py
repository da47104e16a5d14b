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
    save = each.problem.unflatten(each.leaves).save
    ok = outcome.status == Status.SUCCESS
    written = each(lambda inputs, rest: inputs.save.written(*rest))((outcome.out, outcome.stats.accepted, ok))
    poison = _lost(ok, bar.z1, ok.ndim)
    z1 = tree.where(ok, bar.z1, tree.full_like(bar.z1, 0.0))
    rows = tree.where(written, bar.rows, tree.full_like(bar.rows, 0.0)) if jax.tree.leaves(bar.rows) else bar.rows
    if jax.tree.leaves(bar.rows):
        poison |= _lost(written, bar.rows, ok.ndim)
    steps_count = (outcome.stats.accepted > 0) & (ok if not jax.tree.leaves(save.rows(outcome.out)) else True)
    leaves = [_donate(x, mask, steps_count) for x, mask in zip(each.leaves, each.masks, strict=True)]
    return each._replace(leaves=leaves), Cotangents(z1, rows), steps_count, poison


def _lost(kept: jax.Array, bar: PyTree, lanes: int) -> jax.Array:
    """Whether any cotangent of an output that does not exist is not zero, lane by lane."""
    lost = tree.where(kept, tree.full_like(bar, 0.0), bar)
    flags = [jnp.any(x != 0, axis=tuple(range(lanes, x.ndim))) for x in jax.tree.leaves(lost)]
    return jax.tree.reduce(jnp.logical_or, flags, jnp.zeros(kept.shape[:lanes], bool))


def _donate(leaf: jax.Array, mask, good: jax.Array) -> jax.Array:
    """Replace the entries of a leaf that only idle lanes use by one that another lane uses."""
    if not any(mask):
        return leaf
    used = jnp.any(good, axis=tuple(k for k, mapped in enumerate(mask) if not mapped))
    flat = leaf.reshape((used.size, *leaf.shape[used.ndim :]))
    donor = flat[jnp.argmax(used.reshape(-1))]
    return jnp.where(used.reshape(used.shape + (1,) * (leaf.ndim - used.ndim)), leaf, donor)


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
    return [
        _total(*each_leaf, poison)
        for each_leaf in zip(each.leaves, each.masks, by_lane, loop_bars, strict=True)
    ]


def _total(leaf: jax.Array, mask, by_lane, looped, poison: jax.Array):
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return None
    g = jnp.zeros_like(leaf)
    if looped is not None:
        g = looped
    elif by_lane is not None:
        g = tree.sum_missing(by_lane, mask).astype(leaf.dtype)
    lost = jnp.any(poison, axis=tuple(k for k, mapped in enumerate(mask) if not mapped))
    return tree.where(lost, jnp.full_like(g, jnp.nan), g)


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
