"""Fields whose every layer sees the time: the layers of FFJORD (Grathwohl et al., 2019)."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax.nn.shapes import check_sizes, check_widths, context, shaped_state
from node_jax.types import AnyArray


class ConcatLayer(eqx.Module):
    """The affine layer `W x + b + C s` of an input `x` and a context `s`."""

    linear: eqx.nn.Linear
    shift: eqx.nn.Linear

    def __init__(self, inputs: int, outputs: int, context: int, *, key: jax.Array):
        first, second = jax.random.split(key)
        self.linear = eqx.nn.Linear(inputs, outputs, key=first)
        self.shift = eqx.nn.Linear(context, outputs, use_bias=False, key=second)

    def __call__(self, x: jax.Array, s: jax.Array) -> jax.Array:
        """Return the outputs `(outputs,)`."""
        return self.linear(x) + self.shift(s)


class ConcatSquashLayer(eqx.Module):
    """The gated layer `(W x + b) * sigmoid(G s + h) + C s` of an input `x` and a context `s`."""

    linear: eqx.nn.Linear
    gate: eqx.nn.Linear
    shift: eqx.nn.Linear

    def __init__(self, inputs: int, outputs: int, context: int, *, key: jax.Array):
        first, second, third = jax.random.split(key, 3)
        self.linear = eqx.nn.Linear(inputs, outputs, key=first)
        self.gate = eqx.nn.Linear(context, outputs, key=second)
        self.shift = eqx.nn.Linear(context, outputs, use_bias=False, key=third)

    def __call__(self, x: jax.Array, s: jax.Array) -> jax.Array:
        """Return the outputs `(outputs,)`."""
        return self.linear(x) * jax.nn.sigmoid(self.gate(s)) + self.shift(s)


class _Layered(eqx.Module):
    """What both fields are: layers of a state and a context of time and condition, with activations between."""

    layers: tuple[Any, ...]
    size: int = eqx.field(static=True)
    condition_size: int = eqx.field(static=True)
    activation: Callable[..., Any] = eqx.field(static=True)

    def __init__(
        self,
        layer: type,
        size: int,
        widths: Any,
        key: Any,
        activation: Callable[..., Any],
        condition_size: int,
    ):
        check_sizes(size=size)
        check_sizes(0, condition_size=condition_size)
        check_widths(widths)
        self.size, self.condition_size, self.activation = size, condition_size, activation
        sizes = (size, *widths, size)
        keys = jax.random.split(key, len(sizes) - 1)
        self.layers = tuple(layer(sizes[i], sizes[i + 1], 1 + condition_size, key=each) for i, each in enumerate(keys))

    def __call__(self, z: AnyArray, t: Any, theta: Any = None) -> jax.Array:
        """Return the slope at `(z, t)`.

        Args:
            z: state of shape `(size,)`.
            t: time, scalar.
            theta: condition of shape `(condition_size,)`; ignored if that is 0.

        Returns:
            Slope of shape `(size,)`, of the dtype of `z`.

        Raises:
            ValueError: if `z` or `theta` has another shape.
        """
        z = shaped_state("z", z, (self.size,))
        s = jnp.concatenate(context(t, theta, self.condition_size, z.dtype))
        x = z
        for i, layer in enumerate(self.layers):
            x = layer(x, s) if i == 0 else layer(self.activation(x), s)
        return x.astype(z.dtype)


class ConcatField(_Layered):
    """A field of layers `W x + b + C s`, where the context `s` is the time and the condition.

    Args:
        size: number of components of the state.
        widths: units of each hidden layer, such as `(64, 64)`.
        key: JAX random key for the initial weights.
        activation: elementwise function between layers; a module-level function.
        condition_size: number of components of `theta`; 0: `theta` is ignored.

    Raises:
        ValueError: if a size is not a positive integer.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> ConcatField(2, (16, 16), key=jax.random.key(0))(jnp.zeros(2), 0.5).shape
        (2,)
    """

    def __init__(
        self,
        size: int,
        widths: Any,
        *,
        key: jax.Array,
        activation: Callable[..., Any] = jax.nn.tanh,
        condition_size: int = 0,
    ):
        super().__init__(ConcatLayer, size, widths, key, activation, condition_size)


class ConcatSquashField(_Layered):
    """A field of layers `(W x + b) * sigmoid(G s + h) + C s`, where `s` is the time and the condition.

    The default field of FFJORD (Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud, 2019).

    Args:
        size: number of components of the state.
        widths: units of each hidden layer, such as `(64, 64)`.
        key: JAX random key for the initial weights.
        activation: elementwise function between layers; a module-level function.
        condition_size: number of components of `theta`; 0: `theta` is ignored.

    Raises:
        ValueError: if a size is not a positive integer.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> ConcatSquashField(2, (16, 16), key=jax.random.key(0))(jnp.zeros(2), 0.5).shape
        (2,)
    """

    def __init__(
        self,
        size: int,
        widths: Any,
        *,
        key: jax.Array,
        activation: Callable[..., Any] = jax.nn.tanh,
        condition_size: int = 0,
    ):
        super().__init__(ConcatSquashLayer, size, widths, key, activation, condition_size)
