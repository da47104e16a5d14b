"""Half widths of two-sided intervals in standard errors."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

HALVINGS = 50
WIDEST = 20.0  # logarithm of the largest quantile looked for


def half_width(level: float, freedom: Any, gaussian: bool, dtype: Any) -> jax.Array:
    """Return the quantile `q` with `P(|T| < q) = level`.

    Args:
        level: probability inside.
        freedom: degrees of freedom of Student's distribution, an array of any shape.
        gaussian: whether `T` has that distribution; if not, it is normal.
        dtype: of the result.

    Returns:
        Quantiles of the shape of `freedom`; NaN without a degree of freedom.

    Raises:
        ValueError: if `level` is not between 0 and 1.

    Example:
        >>> float(half_width(0.95, 8, True, float)), float(half_width(0.95, 8, False, float))
        (2.306, 1.960)
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be between 0 and 1, got {level!r}")
    freedom = jnp.asarray(freedom, dtype)
    if not gaussian:
        return jnp.full(freedom.shape, jax.scipy.special.ndtri(0.5 + 0.5 * level), dtype)

    def outside(q):
        return jax.scipy.special.betainc(0.5 * jnp.maximum(freedom, 1), 0.5, freedom / (freedom + q**2))

    def halve(_, ends):
        low, high = ends
        middle = 0.5 * (low + high)
        wide = outside(jnp.exp(middle)) < 1 - level
        return jnp.where(wide, low, middle), jnp.where(wide, middle, high)

    ends = (jnp.full(freedom.shape, -WIDEST, dtype), jnp.full(freedom.shape, WIDEST, dtype))
    low, high = lax.fori_loop(0, HALVINGS, halve, ends)
    return jnp.where(freedom > 0, jnp.exp(0.5 * (low + high)), jnp.nan)
