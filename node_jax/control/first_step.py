"""The size of the first step: Hairer, Norsett and Wanner, Solving ODEs I, section II.4."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from node_jax import tree
from node_jax.control.records import direction
from node_jax.types import PyTree


def first_step(
    field: Callable,
    norm: Callable,
    tolerance: PyTree,
    order: int,
    z0: PyTree,
    slope: PyTree,
    t0: jax.Array,
    t1: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Guess a step from the size of the state, its slope and the change of its slope; one evaluation.

    Return also the time in which a displacement of the state changes by its own size, as the probe saw it (NaN if it
    could not), and whether the state is at rest: its slope moves it by less than the tolerance. Then the probe is a
    displacement by the tolerance, since the slope says nothing. A probe that leaves the domain of the field leaves the
    guess at that of the probe itself. The guess is never zero on a way that is not.
    """
    span, sign = jnp.abs(t1 - t0), direction(t0, t1)

    def size_of(z: PyTree, norm: Callable = norm) -> jax.Array:
        """Return a norm whose squares do not overflow."""
        most = tree.largest(z, tree.real_dtype(z))
        unit = jnp.where((most > 0) & jnp.isfinite(most), most, 1.0)
        return (unit * norm(tree.divide(z, jax.tree.map(lambda _: unit, z)))).astype(t0.dtype)

    d0, d1 = (size_of(tree.divide(x, tolerance)) for x in (z0, slope))
    h0 = jnp.minimum(jnp.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1), span)
    h0 = jnp.where(jnp.isfinite(h0) & (h0 > 0), h0, float(jnp.finfo(t0.dtype).eps) * span)
    moved = tree.scale(sign * h0, (1.0,), (slope,))
    nudged = tree.add(moved, _nudge(z0, tolerance))
    rests = h0 * d1 < 1
    moved = tree.where(rests, nudged, moved)
    change = tree.subtract(field(tree.add(z0, moved), t0 + sign * h0), slope)
    steepest = jnp.maximum(d1, size_of(tree.divide(change, tolerance)) / h0)
    h1 = jnp.where(steepest <= 1e-15, jnp.maximum(1e-6, 1e-3 * h0), (0.01 / steepest) ** (1.0 / order))
    size = jnp.where(jnp.isfinite(h1) & (h1 > 0), jnp.minimum(100 * h0, h1), h0)
    rate = size_of(change, tree.rms) / size_of(moved, tree.rms)
    # At a longer step the estimate of a method can be zero: that of bosh3 is for z' = -z and a step of 1.
    return jnp.minimum(jnp.fmin(size, 0.2 / rate), span), 1 / rate, rests


def _nudge(z: PyTree, tolerance: PyTree) -> PyTree:
    """Return half to one and a half tolerances for each component, away from zero and never two alike in a row."""

    def leaf(x, unit):
        number = lax.iota(jnp.float32, x.size).reshape(x.shape)
        amount = (0.5 + (0.618034 * (number + 1)) % 1.0).astype(unit.dtype) * unit
        return jnp.where(x.real < 0, -amount, amount).astype(x.dtype)

    return jax.tree.map(leaf, z, tolerance)
