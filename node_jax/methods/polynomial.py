"""Polynomials along one step: the evaluation of dense output, and quadrature on it."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from node_jax import tree
from node_jax.types import PyTree

# points and weights of the Gauss-Legendre quadrature on [0, 1] with three points, of order 6
GAUSS = (0.5 - 0.15**0.5, 0.5, 0.5 + 0.15**0.5), (5 / 18, 8 / 18, 5 / 18)


def horner(q: tuple[PyTree, ...], x: jax.Array) -> PyTree:
    """Evaluate `sum_j q_j x**j`."""
    value = q[-1]
    for term in reversed(q[:-1]):
        value = tree.combine(term, x, (1.0,), (value,))
    return value


def weight(row: tuple[float, ...], x: jax.Array) -> Any:
    """Evaluate `sum_j row[j] x**(j + 1)`; return the number 0 if the row holds only zeros."""
    if not any(row):
        return 0.0
    value = jnp.zeros_like(x)
    for number in reversed(row):
        value = (value + number) * x
    return value


def proper(h: jax.Array) -> jax.Array:
    """Return the length of a step for the evaluation of its polynomial: 1 for a step of size 0.

    At size 0 all slopes are equal, and the polynomial of any length has the slope of the field.
    """
    return jnp.where(h == 0, jnp.ones_like(h), h)


def gauss(method: Any, z: PyTree, h: jax.Array, dense: tuple) -> tuple[Sequence, Sequence, Sequence]:
    """Return states at Gauss-Legendre points along a step, read from its dense output, with places and weights."""
    points, weights = GAUSS
    return [method.at(z, h, dense, jnp.full_like(h, x)) for x in points], points, weights
