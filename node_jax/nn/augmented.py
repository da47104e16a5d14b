"""Fields made of other fields: with a larger state, for a batch as one state, or as one layer of a residual network."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax.nn.shapes import check_sizes
from node_jax.types import AnyArray, PyTree


class Augmented(eqx.Module):
    """A field for a state to which zeros are appended: the augmented neural ODE of Dupont, Doucet and Teh, 2019.

    Paths of a neural ODE cannot cross, so that it cannot map nested spheres to two sides of a plane. With more
    dimensions it can.

    Args:
        field: field for the larger state.
        extra: number of entries (of an image: channels) that a `NeuralODE` appends to the first axis of its `z0`.

    Raises:
        ValueError: if `extra` is not a positive integer.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import node_jax as nj
        >>> model = nj.NeuralODE(Augmented(nj.nn.MLPField(5, 16, 1, key=jax.random.key(0)), extra=3))
        >>> model(jnp.ones(2)).shape
        (5,)
    """

    field: Any
    extra: int = eqx.field(static=True)

    def __check_init__(self):
        """Refuse a number of entries that makes no sense."""
        check_sizes(extra=self.extra)

    def __call__(self, z: PyTree, t: Any, theta: Any = None) -> PyTree:
        """Return the slope of the larger state."""
        return self.field(z, t, theta)

    def lifted(self, z0: AnyArray) -> jax.Array:
        """Return the state with zeros appended along its first axis.

        Raises:
            ValueError: if `z0` is not one array with an axis.
        """
        if not eqx.is_array_like(z0) or jnp.ndim(z0) == 0:
            raise ValueError(f"Augmented needs a state that is one array with an axis, got {z0!r}")
        z0 = jnp.asarray(z0)
        return jnp.concatenate([z0, jnp.zeros((self.extra, *z0.shape[1:]), z0.dtype)])


class Batched(eqx.Module):
    """The field of a batch as one state `(n, ...)`: its rows have common steps, and each evaluation has one time.

    `jax.vmap` of a solve gives each row its own steps and its own failure. With common steps a row may take more of
    them than it needs, and one that fails ends the solve of all. They are faster where the field computes much from the
    time alone, as `HyperField` does, and where all rows need about the same steps.

    Args:
        field: field for one row.
        theta_axis: 0 if theta has a row for each of the state, None if all share one.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import node_jax as nj
        >>> model = nj.NeuralODE(Batched(nj.nn.HyperField(2, 16, key=jax.random.key(0))))
        >>> model(jnp.ones((5, 2))).shape
        (5, 2)
    """

    field: Any
    theta_axis: int | None = eqx.field(static=True, default=None)

    def __call__(self, z: PyTree, t: Any, theta: Any = None) -> PyTree:
        """Return the slopes of all rows."""
        return jax.vmap(self.field, (0, None, self.theta_axis))(z, t, theta)


class Residual(eqx.Module):
    """A residual block `z + f(z, t0)`: one step of Euler's method.

    It equals `NeuralODE(field, steps=Fixed(1), method=euler)` to the last bit.

    Args:
        field: `f(z, t, theta)`, such as the field of a `NeuralODE`.
        t0: time at which it is evaluated.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import node_jax as nj
        >>> block = Residual(nj.nn.MLPField(2, 16, 1, key=jax.random.key(0)))
        >>> block(jnp.ones(2)).shape
        (2,)
    """

    field: Any
    t0: float = eqx.field(static=True, default=0.0)

    def __call__(self, z: AnyArray, theta: Any = None) -> jax.Array:
        """Return the next state, of the shape of `z`."""
        return z + self.field(z, jnp.asarray(self.t0, z.dtype), theta)
