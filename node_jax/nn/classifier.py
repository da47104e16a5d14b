"""A classifier whose features follow a field."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax.nn.conv import ConvField, groups_of
from node_jax.nn.mlp import MLPField
from node_jax.nn.neural_ode import NeuralODE
from node_jax.nn.shapes import check_sizes
from node_jax.solution import Solution
from node_jax.types import AnyArray


class ConvStem(eqx.Module):
    """A convolution, and others that each halve the image: the stem of the ODE-Net of Chen et al., 2018, halves twice.

    Args:
        inputs: channels of the image `(inputs, height, width)`.
        channels: channels of the features.
        key: JAX random key for the initial weights.
        halvings: how often the image is halved.

    Raises:
        ValueError: if a size is not a positive integer.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> stem = ConvStem(1, 16, key=jax.random.key(0))
        >>> jax.eval_shape(stem, jnp.zeros((1, 28, 28))).shape
        (16, 6, 6)
    """

    convs: tuple[eqx.nn.Conv2d, ...]
    norms: tuple[eqx.nn.GroupNorm, ...]

    def __init__(self, inputs: int, channels: int, *, key: jax.Array, halvings: int = 2):
        check_sizes(inputs=inputs, channels=channels)
        check_sizes(0, halvings=halvings)
        keys = jax.random.split(key, 1 + halvings)
        first = eqx.nn.Conv2d(inputs, channels, 3, key=keys[0])
        self.convs = (first, *(eqx.nn.Conv2d(channels, channels, 4, 2, 1, key=each) for each in keys[1:]))
        self.norms = tuple(eqx.nn.GroupNorm(groups_of(channels), channels) for _ in keys[1:])

    def __call__(self, x: AnyArray) -> jax.Array:
        """Return the features `(channels, height, width)`, of an image that is smaller."""
        x = self.convs[0](jnp.asarray(x).astype(self.convs[0].weight.dtype))
        for norm, conv in zip(self.norms, self.convs[1:], strict=True):
            x = conv(jax.nn.relu(norm(x)))
        return x


class PoolHead(eqx.Module):
    """Normalize, activate, take the mean over the image, and an affine layer: the head of the ODE-Net.

    Args:
        channels: channels of the features.
        classes: number of classes.
        key: JAX random key for the initial weights.

    Raises:
        ValueError: if a size is not a positive integer.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> head = PoolHead(16, 10, key=jax.random.key(0))
        >>> jax.eval_shape(head, jnp.zeros((16, 6, 6))).shape
        (10,)
    """

    norm: eqx.nn.GroupNorm
    linear: eqx.nn.Linear

    def __init__(self, channels: int, classes: int, *, key: jax.Array):
        check_sizes(channels=channels, classes=classes)
        self.norm = eqx.nn.GroupNorm(groups_of(channels), channels)
        self.linear = eqx.nn.Linear(channels, classes, key=key)

    def __call__(self, z: AnyArray) -> jax.Array:
        """Return logits `(classes,)` of features `(channels, height, width)`."""
        return self.linear(jnp.mean(jax.nn.relu(self.norm(jnp.asarray(z))), axis=(1, 2)))


class Classifier(eqx.Module):
    """A stem, a neural ODE and a head: the ODE-Net of Chen et al., 2018, section 3.

    It takes one sample: `jax.vmap(model)(xs)` for a batch.

    Args:
        stem: from a sample to the state at `ode.t0`.
        ode: field of the features and how it is solved; any callable with a method `solve` that returns a `Solution`.
        head: from the state at `ode.t1` to logits.
        shape: of a sample, which is then checked; default: any that the stem takes.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> model = Classifier.create((4,), 3, width=16, key=jax.random.key(0))
        >>> model(jnp.zeros(4)).shape
        (3,)
    """

    stem: Callable[..., Any]
    ode: NeuralODE
    head: Callable[..., Any]
    shape: tuple[int, ...] | None = eqx.field(static=True, default=None)

    @classmethod
    def create(
        cls, shape: tuple[int, ...], classes: int, *, width: int = 64, key: jax.Array, **options: Any
    ) -> "Classifier":
        """Return a classifier of vectors or images.

        Args:
            shape: of a sample: `(size,)`, or `(channels, height, width)` of at least 6 by 6 pixels. Images are
                halved as long as features of 4 by 4 are left, at most twice.
            classes: number of classes.
            width: size of the state, of an image its channels; with 64 and images of MNIST the ODE-Net of the paper.
            key: JAX random key for the initial weights.
            **options: options of the `NeuralODE`.

        Returns:
            A `Classifier`.

        Raises:
            ValueError: if `shape` is another, or a size is not a positive integer.
        """
        check_sizes(classes=classes, width=width)
        keys = jax.random.split(key, 3)
        if len(shape) == 3 and min(shape[1:]) >= 6:
            field, halvings = ConvField(width, key=keys[1]), sum((min(shape[1:]) - 2) // 2**i >= 4 for i in (1, 2))
            stem = ConvStem(shape[0], width, key=keys[0], halvings=halvings)
            head = PoolHead(width, classes, key=keys[2])
        elif len(shape) == 1:
            field = MLPField(width, width, 1, key=keys[1], time_dependent=True)
            stem, head = eqx.nn.Linear(*shape, width, key=keys[0]), eqx.nn.Linear(width, classes, key=keys[2])
        else:
            raise ValueError(f"shape must be (size,) or (channels, height, width) of at least 6 by 6, got {shape!r}")
        return cls(stem, NeuralODE(field, **options), head, tuple(shape))

    def __call__(self, x: AnyArray) -> jax.Array:
        """Return the logits of one sample.

        Args:
            x: what the stem takes.

        Returns:
            Logits `(classes,)`.

        Raises:
            ValueError: if `x` has another shape than a sample.
            SolveError: if the solve fails and values are concrete.
        """
        return self.solve(x, regularized=False)[0]

    def solve(self, x: AnyArray, *, key: Any = None, **options: Any) -> tuple[jax.Array, Solution]:
        """Return the logits of one sample, and the solution.

        Args:
            x: what the stem takes.
            key: JAX random key for random regularizers.
            **options: options of `NeuralODE.solve`.

        Returns:
            Logits `(classes,)`, NaN if the solve failed; and a `Solution`.

        Raises:
            ValueError: if `x` has another shape than a sample.
        """
        if self.shape is not None and jnp.shape(x) != self.shape:
            raise ValueError(
                f"x must be a sample of shape {self.shape}, got {jnp.shape(x)}: jax.vmap(model)(xs) takes a batch"
            )
        solution = self.ode.solve(self.stem(x), key=key, **options)
        logits = self.head(solution.filled().z1)
        return jnp.where(solution.ok, logits, jnp.nan), solution
