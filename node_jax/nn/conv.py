"""A convolutional field, and the layer it is made of."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from node_jax.nn.shapes import check_sizes
from node_jax.types import AnyArray


class ConcatConv(eqx.Module):
    """A convolution of an image to which the time is appended as one more channel; the size of the image stays."""

    conv: eqx.nn.Conv2d

    def __init__(self, inputs: int, outputs: int, kernel: int, *, key: jax.Array):
        self.conv = eqx.nn.Conv2d(inputs + 1, outputs, kernel, padding=kernel // 2, key=key)

    def __call__(self, x: jax.Array, t: Any) -> jax.Array:
        """Return the image `(outputs, height, width)` of `x` `(inputs, height, width)`."""
        x = jnp.concatenate([x, jnp.full((1, *x.shape[1:]), t, x.dtype)])
        weight, bias = (jnp.asarray(part, x.dtype) for part in (self.conv.weight, self.conv.bias))
        return lax.platform_dependent(x, weight, cpu=_by_product, default=_by_convolution) + bias


def _by_convolution(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Convolve `x` `(inputs, height, width)` with `weight` `(outputs, inputs, kernel, kernel)`; the size stays."""
    return lax.conv_general_dilated(x[None], weight, (1, 1), "SAME")[0]


def _by_product(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Do the same by one product of matrices.

    Inside a loop XLA has no fast convolution for CPUs: this takes a twentieth of the time (docs/performance.md, Loops).
    """
    outputs, _, kernel, _ = weight.shape
    height, width = x.shape[1:]
    half = kernel // 2
    padded = jnp.pad(x, ((0, 0), (half, half), (half, half)))
    shifted = [padded[:, i : i + height, j : j + width] for i in range(kernel) for j in range(kernel)]
    patches = jnp.concatenate(shifted).reshape(-1, height * width)
    rows = jnp.transpose(weight, (0, 2, 3, 1)).reshape(outputs, -1)
    return (rows @ patches).reshape(outputs, height, width)


class ConvField(eqx.Module):
    """A field for images: normalize, activate, convolve, twice, and normalize; each convolution sees the time.

    The field of the ODE-Net of Chen et al., 2018, with the layers of torchdiffeq's example.

    Args:
        channels: channels of the state `(channels, height, width)`.
        key: JAX random key for the initial weights.
        kernel: width of the square kernel, odd.
        width: channels between the convolutions; default: `channels`.
        groups: groups of the normalization (Wu and He, 2018); default: as many as divide both numbers of channels into
            groups of two or more, at most 32.
        activation: elementwise function; a module-level function.

    Raises:
        ValueError: if a size is not a positive integer, `kernel` is even, or `groups` does not divide the channels.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> ConvField(8, key=jax.random.key(0))(jnp.zeros((8, 6, 6)), 0.5).shape
        (8, 6, 6)
    """

    norms: tuple[eqx.nn.GroupNorm, ...]
    convs: tuple[ConcatConv, ...]
    channels: int = eqx.field(static=True)
    activation: Callable[..., Any] = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        *,
        key: jax.Array,
        kernel: int = 3,
        width: int | None = None,
        groups: int | None = None,
        activation: Callable[..., Any] = jax.nn.relu,
    ):
        width = channels if width is None else width
        check_sizes(channels=channels, kernel=kernel, width=width)
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, so that the image keeps its size, got {kernel}")
        groups = groups_of(channels, width) if groups is None else groups
        check_sizes(groups=groups)
        if channels % groups or width % groups:
            raise ValueError(f"groups must divide the channels, {channels} and {width}, got {groups}")
        self.channels, self.activation = channels, activation
        first, second = jax.random.split(key)
        self.norms = tuple(eqx.nn.GroupNorm(groups, size) for size in (channels, width, channels))
        self.convs = (
            ConcatConv(channels, width, kernel, key=first),
            ConcatConv(width, channels, kernel, key=second),
        )

    def __call__(self, z: AnyArray, t: Any, theta: Any = None) -> jax.Array:
        """Return the slope at `(z, t)`.

        Args:
            z: state of shape `(channels, height, width)`.
            t: time, scalar.
            theta: ignored, so that the module is a field for `odesolve`.

        Returns:
            Slope of the shape and dtype of `z`.

        Raises:
            ValueError: if `z` is not an image with as many channels.
        """
        if jnp.ndim(z) != 3 or z.shape[0] != self.channels:
            want = f"({self.channels}, height, width)"
            raise ValueError(f"z must have shape {want}, got {jnp.shape(z)}; use jax.vmap for a batch")
        x = z = jnp.asarray(z)
        for norm, conv in zip(self.norms[:-1], self.convs, strict=True):
            x = conv(self.activation(norm(x)).astype(z.dtype), t)
        return self.norms[-1](x).astype(z.dtype)


def groups_of(*channels: int) -> int:
    """Return the largest number of groups, at most 32, that divides all numbers of channels into groups of two or more.

    A group of one channel would lose the size of that channel.
    """
    most = min(32, max(min(channels) // 2, 1))
    return next(groups for groups in range(most, 0, -1) if not any(size % groups for size in channels))
