"""Dense output of one step, of the method's own order."""

import jax
import jax.numpy as jnp

from node_jax import tree
from node_jax.methods.explicit import ExplicitRK
from node_jax.types import PyTree


def at_fraction(method: ExplicitRK, z: PyTree, h: jax.Array, slopes: tuple[PyTree, ...], x: jax.Array) -> PyTree:
    """Return the state at `t + x h` of a step from `z` with these slopes."""
    return tree.combine(z, h, [_polynomial(row, x) for row in method.dense], slopes)


def whole(h: jax.Array) -> jax.Array:
    """Return the length of the step that the polynomial of a step of size `h` is taken for: 1 if that is 0.

    There all slopes are equal, and so is the polynomial of any length: it has the slope of the field.
    """
    return jnp.where(h == 0, jnp.ones_like(h), h)


def coefficients(method: ExplicitRK, z: PyTree, h: jax.Array, slopes: tuple[PyTree, ...]) -> tuple[PyTree, ...]:
    """Return states `q_j` with `z(t + x h) = sum_j q_j x**j`: `degree + 1` of them."""
    degree = max(map(len, method.dense))
    columns = [[row[j] if j < len(row) else 0.0 for row in method.dense] for j in range(degree)]
    return (z, *(tree.scale(h, column, slopes) for column in columns))


def horner(q: tuple[PyTree, ...], x: jax.Array) -> PyTree:
    """Evaluate `sum_j q_j x**j`."""
    value = q[-1]
    for term in reversed(q[:-1]):
        value = tree.combine(term, x, (1.0,), (value,))
    return value


def _polynomial(row: tuple[float, ...], x: jax.Array):
    if not any(row):
        return 0.0
    value = jnp.zeros_like(x)
    for number in reversed(row):
        value = (value + number) * x
    return value
