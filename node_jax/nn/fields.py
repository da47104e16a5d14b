"""Vector fields with learned weights."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp


class MLPField(eqx.Module):
    """A multilayer perceptron as vector field `f(z, t, theta)`, for states of shape `(size,)`.

    Args:
        size: number of components of the state.
        width: units of each hidden layer.
        depth: number of hidden layers; 0 gives an affine field.
        key: JAX random key for the initial weights.
        time_dependent: whether `t` is a further input.
        activation: elementwise function between layers; a module-level function.

    Raises:
        ValueError: if `size` or `width` is not a positive integer, or `depth` is not a non-negative one.

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

    def __init__(
        self,
        size: int,
        width: int,
        depth: int,
        *,
        key: jax.Array,
        time_dependent: bool = False,
        activation: Callable = jax.nn.tanh,
    ):
        for name, value, least in (("size", size, 1), ("width", width, 1), ("depth", depth, 0)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        self.size, self.time_dependent = size, time_dependent
        self.mlp = eqx.nn.MLP(size + int(time_dependent), size, width, depth, activation, key=key)

    def __call__(self, z: jax.Array, t: Any, theta: Any = None) -> jax.Array:
        """Return the slope at `(z, t)`.

        Args:
            z: state of shape `(size,)`.
            t: time, scalar; ignored unless `time_dependent`.
            theta: ignored, so that the module is a field for `odesolve`.

        Returns:
            Slope of shape `(size,)`, of the dtype of `z`.

        Raises:
            ValueError: if `z` is not of shape `(size,)`.
        """
        if jnp.shape(z) != (self.size,):
            raise ValueError(f"z must have shape ({self.size},), got {jnp.shape(z)}; use jax.vmap for a batch")
        inputs = jnp.append(z, jnp.asarray(t, z.dtype)) if self.time_dependent else z
        return self.mlp(inputs).astype(z.dtype)
