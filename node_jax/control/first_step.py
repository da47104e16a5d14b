"""The size of the first step, after Hairer, Norsett and Wanner, Solving ODEs I, section II.4."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from node_jax import marks, norms, tree
from node_jax.types import PyTree, direction

FEW = 1024  # up to so many components the displacement is a constant, and computed when the solve is traced


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
    """Choose the first step from the norms of the state, its slope and the change of the slope; one evaluation.

    Return also the time in which a displacement of the state changes by its own size, as the evaluation saw it (NaN if
    it could not), and whether the state is at rest: whether its slope moves it by less than the tolerance. For a state
    at rest, whose slope carries no information, the state is displaced by the tolerance before the field is evaluated.
    If that evaluation is not finite, the first step is the trial step `h0`. The result is zero only if `t0 == t1`.
    """
    span, sign = jnp.abs(t1 - t0), direction(t0, t1)

    def size_of(z: PyTree) -> jax.Array:
        """Return the norm of the controlled part in units of the tolerance, such that no square overflows."""
        return norm(norms.bounded(tree.divide(part(z), tolerance))).astype(t0.dtype)

    tolerance = marks.once(tolerance)
    d0, d1 = size_of(z0), size_of(slope)
    h0 = jnp.minimum(jnp.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1), span)
    h0 = jnp.where(h0 > 0, h0, float(jnp.finfo(t0.dtype).eps) * span)
    rests = h0 * d1 < 1
    seen, whole = jax.vjp(part, z0)
    (nudge,) = whole(_nudge(tolerance, seen))  # zero in components that are not controlled
    nudge = tree.where(rests, nudge, tree.full_like(z0, 0.0))
    moved = tree.combine(nudge, sign * h0, (1.0,), (slope,))
    change = tree.subtract(field(tree.add(z0, moved), t0 + sign * h0), slope)
    d2 = size_of(change) / h0
    steepest = jnp.maximum(d1, d2)
    h1 = jnp.where(steepest <= 1e-15, jnp.maximum(1e-6, 1e-3 * h0), (0.01 / steepest) ** (1.0 / order))
    size = jnp.where(jnp.isfinite(h1) & (h1 > 0), jnp.minimum(100 * h0, h1), h0)
    tangent = jnp.maximum(d1, 1 / h0) / d2
    # a longer step may be one at which the error estimate vanishes: that of bosh3 does for z' = -z and h = 1
    return jnp.minimum(jnp.fmin(size, 0.2 * tangent), span), tangent, rests


def _nudge(tolerance: PyTree, z: PyTree) -> PyTree:
    """Return a displacement of 0.5 to 1.5 tolerances for each component, different for neighbours."""

    def leaf(unit, x):
        # few operations in a small solve (docs/performance.md, Calls)
        xp, number = (np, np.arange(x.size)) if x.size <= FEW else (jnp, lax.iota(jnp.float32, x.size))
        tolerances = xp.reshape(0.5 + (0.618034 * number) % 1.0, x.shape).astype(unit.dtype)
        return (tolerances * unit).astype(x.dtype)

    return jax.tree.map(leaf, tolerance, z)
