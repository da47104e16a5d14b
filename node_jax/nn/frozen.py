"""A mark for arrays of a model that are not trained."""

from typing import Any

import equinox as eqx
import jax

from node_jax.types import PyTree


class Frozen(eqx.Module):
    """Arrays of a model that are not trained: `fit` leaves them as they are, and derivatives of `value` are zero.

    Args:
        value: pytree of arrays.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> float(jax.grad(lambda x: Frozen(x).value ** 2)(3.0))
        0.0
    """

    held: PyTree

    def __init__(self, value: Any):
        self.held = value

    @property
    def value(self) -> PyTree:
        """The arrays."""
        arrays, rest = eqx.partition(self.held, eqx.is_array_like)
        return eqx.combine(jax.lax.stop_gradient(arrays), rest)
