"""Polynomials along one step: of dense output, and the points of a quadrature on them."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from node_jax import tree
from node_jax.types import PyTree

# Gauss and Legendre: three points on [0, 1], of order 6
GAUSS = (0.5 - 0.15**0.5, 0.5, 0.5 + 0.15**0.5), (5 / 18, 8 / 18, 5 / 18)


def horner(q: tuple[PyTree, ...], x: jax.Array) -> PyTree:
    """Evaluate `sum_j q_j x**j`."""
    value = q[-1]
    for term in reversed(q[:-1]):
        value = tree.combine(term, x, (1.0,), (value,))
    return value


def weight(row: tuple[float, ...], x: jax.Array) -> Any:
    """Evaluate `sum_j row[j] x**(j + 1)`; the number 0 if the row holds nothing else."""
    if not any(row):
        return 0.0
    value = jnp.zeros_like(x)
    for number in reversed(row):
        value = (value + number) * x
    return value


def proper(h: jax.Array) -> jax.Array:
    """Return the length of the step that the polynomial of a step of size `h` is taken for: 1 if that is 0.

    There all slopes are equal, and so is the polynomial of any length: it has the slope of the field.
    """
    return jnp.where(h == 0, jnp.ones_like(h), h)


def gauss(method: Any, z: PyTree, h: jax.Array, dense: tuple) -> tuple[Sequence, Sequence, Sequence]:
    """Return the states at the points of a quadrature along a step, read from its dense output."""
    points, weights = GAUSS
    return [method.at(z, h, dense, jnp.full_like(h, x)) for x in points], points, weights
