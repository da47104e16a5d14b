"""A mark for arrays of a model that are not trained."""

from typing import Any

import equinox as eqx
import jax

from node_jax.types import PyTree


class Frozen(eqx.Module):
    """A part of a model that is not trained: `fit` leaves it as it is, and derivatives in it are zero.

    Args:
        value: pytree of arrays, or a module. A frozen module is called as the module is.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import node_jax as nj
        >>> field = nj.nn.MLPField(2, 8, 1, key=jax.random.key(0))
        >>> model = nj.NeuralODE(Frozen(field))
        >>> bool(jnp.all(model(jnp.ones(2)) == nj.NeuralODE(field)(jnp.ones(2))))
        True
    """

    held: PyTree

    def __init__(self, value: Any):
        self.held = value

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call what is frozen."""
        return self.value(*args, **options)

    @property
    def value(self) -> PyTree:
        """The arrays."""
        arrays, rest = eqx.partition(self.held, eqx.is_array_like)
        return eqx.combine(jax.lax.stop_gradient(arrays), rest)
