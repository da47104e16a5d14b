"""A multilayer perceptron as vector field."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax.nn.shapes import check_sizes, context, shaped_state
from node_jax.types import AnyArray


class MLPField(eqx.Module):
    """A multilayer perceptron as vector field `f(z, t, theta)`, for states of shape `(size,)`.

    Args:
        size: number of components of the state.
        width: units of each hidden layer.
        depth: number of hidden layers; 0 gives an affine field.
        key: JAX random key for the initial weights.
        time_dependent: whether `t` is a further input.
        activation: elementwise function between layers; a module-level function.
        condition_size: number of components of `theta`, which are further inputs; 0: `theta` is ignored.

    Raises:
        ValueError: if `size` or `width` is not a positive integer, or `depth` or `condition_size` is not a
            non-negative one.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> field = MLPField(2, 16, 1, key=jax.random.key(0))
        >>> field(jnp.zeros(2), 0.0).shape
        (2,)
    """

    mlp: eqx.nn.MLP
    size: int = eqx.field(static=True)
    time_dependent: bool = eqx.field(static=True)
    condition_size: int = eqx.field(static=True)

    def __init__(
        self,
        size: int,
        width: int,
        depth: int,
        *,
        key: jax.Array,
        time_dependent: bool = False,
        activation: Callable[..., Any] = jax.nn.tanh,
        condition_size: int = 0,
    ):
        check_sizes(size=size, width=width)
        check_sizes(0, depth=depth, condition_size=condition_size)
        self.size, self.time_dependent, self.condition_size = size, time_dependent, condition_size
        inputs = size + int(time_dependent) + condition_size
        self.mlp = eqx.nn.MLP(inputs, size, width, depth, activation, key=key)

    def __call__(self, z: AnyArray, t: Any, theta: Any = None) -> jax.Array:
        """Return the slope at `(z, t)`.

        Args:
            z: state of shape `(size,)`.
            t: time, scalar; ignored unless `time_dependent`.
            theta: condition of shape `(condition_size,)`; ignored if that is 0.

        Returns:
            Slope of shape `(size,)`, of the dtype of `z`.

        Raises:
            ValueError: if `z` or `theta` has another shape.
        """
        z = shaped_state("z", z, (self.size,))
        more = context(t, theta, self.condition_size, z.dtype, self.time_dependent)
        return self.mlp(jnp.concatenate([z, *more]) if more else z).astype(z.dtype)
