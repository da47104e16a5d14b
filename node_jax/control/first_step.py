"""The size of the first step: Hairer, Norsett and Wanner, Solving ODEs I, section II.4."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from node_jax import marks, norms, tree
from node_jax.types import PyTree, direction

FEW = 1024  # components: of so many what is the same in every solve is a constant


def first_step(
    field: Callable,
    norm: Callable,
    part: Callable,
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

    def size_of(z: PyTree) -> jax.Array:
        """Return the norm of the part that chooses steps, in units of the tolerance; its squares do not overflow."""
        return norm(norms.bounded(tree.divide(part(z), tolerance))).astype(t0.dtype)

    tolerance = marks.once(tolerance)
    d0, d1 = size_of(z0), size_of(slope)
    h0 = jnp.minimum(jnp.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1), span)
    h0 = jnp.where(h0 > 0, h0, float(jnp.finfo(t0.dtype).eps) * span)
    rests = h0 * d1 < 1
    seen, whole = jax.vjp(part, z0)
    (nudge,) = whole(_nudge(tolerance, seen))  # nothing of what chooses no steps
    nudge = tree.where(rests, nudge, tree.full_like(z0, 0.0))
    moved = tree.combine(nudge, sign * h0, (1.0,), (slope,))
    change = tree.subtract(field(tree.add(z0, moved), t0 + sign * h0), slope)
    d2 = size_of(change) / h0
    steepest = jnp.maximum(d1, d2)
    h1 = jnp.where(steepest <= 1e-15, jnp.maximum(1e-6, 1e-3 * h0), (0.01 / steepest) ** (1.0 / order))
    size = jnp.where(jnp.isfinite(h1) & (h1 > 0), jnp.minimum(100 * h0, h1), h0)
    tangent = jnp.maximum(d1, 1 / h0) / d2
    # At a longer step the estimate of a method can be zero: that of bosh3 is for z' = -z and a step of 1.
    return jnp.minimum(jnp.fmin(size, 0.2 * tangent), span), tangent, rests


def _nudge(tolerance: PyTree, z: PyTree) -> PyTree:
    """Return half to one and a half tolerances for each component, never two alike in a row."""

    def leaf(unit, x):
        # a small solve has no operations to spare
        xp, number = (np, np.arange(x.size)) if x.size <= FEW else (jnp, lax.iota(jnp.float32, x.size))
        tolerances = xp.reshape(0.5 + (0.618034 * number) % 1.0, x.shape).astype(unit.dtype)
        return (tolerances * unit).astype(x.dtype)

    return jax.tree.map(leaf, tolerance, z)
