"""Fields that are sums of planar units, whose divergence is known in closed form."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax.nn.shapes import check_sizes, context, shaped_state
from node_jax.types import AnyArray


class Units(eqx.Module):
    """The parameters of planar units at one time: `sum_n u_n tanh(w_n . z + b_n)`.

    Attributes:
        u: `(width, size)`.
        w: `(width, size)`.
        b: `(width,)`.
    """

    u: jax.Array
    w: jax.Array
    b: jax.Array

    def slope(self, z: jax.Array) -> jax.Array:
        """Return the sum at `z`, `(size,)`."""
        return jnp.tanh(self.w @ z + self.b) @ self.u

    def divergence(self, z: jax.Array) -> jax.Array:
        """Return the trace of the Jacobian of the sum, `sum_n (u_n . w_n) (1 - tanh(...)**2)`."""
        return jnp.sum(jnp.sum(self.u * self.w, axis=1) * (1.0 - jnp.tanh(self.w @ z + self.b) ** 2))


class _Planar(eqx.Module):
    """What planar fields share: they give their units at a time."""

    size: eqx.AbstractVar[int]

    def units(self, t: Any, theta: Any, dtype: Any) -> Units:
        """Return the parameters at time `t`."""
        raise NotImplementedError

    def __call__(self, z: AnyArray, t: Any, theta: Any = None) -> jax.Array:
        """Return the slope at `(z, t)`.

        Args:
            z: state of shape `(size,)`.
            t: time, scalar.
            theta: condition of shape `(condition_size,)`; ignored if the field has none.

        Returns:
            Slope of shape `(size,)`, of the dtype of `z`.

        Raises:
            ValueError: if `z` or `theta` has another shape.
        """
        z = shaped_state("z", z, (self.size,))
        return self.units(t, theta, z.dtype).slope(z).astype(z.dtype)

    def divergence(self, z: AnyArray, t: Any, theta: Any = None) -> jax.Array:
        """Return the trace of `df/dz` at `(z, t)`, a scalar, for about the cost of one evaluation."""
        z = shaped_state("z", z, (self.size,))
        return self.units(t, theta, z.dtype).divergence(z).astype(z.dtype)


class PlanarField(_Planar):
    """The field `sum_n sigma_n(t) u_n tanh(w_n . z + b_n)`, the planar continuous normalizing flow.

    The gates `sigma_n(t)` in (0, 1) are a small network of the time (Chen et al., 2018, section 4). The divergence is
    known in closed form, at a cost that is linear in `width`.

    Args:
        size: number of components of the state.
        width: number of units `n`.
        key: JAX random key for the initial weights.
        gate: whether there are gates; without, the field does not depend on time.

    Raises:
        ValueError: if `size` or `width` is not a positive integer.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> field = PlanarField(2, 8, key=jax.random.key(0))
        >>> field(jnp.zeros(2), 0.5).shape, field.divergence(jnp.zeros(2), 0.5).shape
        ((2,), ())
    """

    fixed: Units
    gate: eqx.nn.MLP | None
    size: int = eqx.field(static=True)

    def __init__(self, size: int, width: int, *, key: jax.Array, gate: bool = True):
        check_sizes(size=size, width=width)
        self.size = size
        keys = jax.random.split(key, 4)
        u, w = (jax.random.normal(each, (width, size)) for each in keys[:2])
        self.fixed = Units(u / width, w, jax.random.normal(keys[2], (width,)))
        self.gate = eqx.nn.MLP(1, width, 16, 1, jax.nn.tanh, key=keys[3]) if gate else None

    def units(self, t: Any, theta: Any, dtype: Any) -> Units:
        """Return the units with the gates at time `t` in their `u`."""
        if self.gate is None:
            return self.fixed
        gates = jax.nn.sigmoid(self.gate(jnp.concatenate(context(t, None, 0, dtype))))
        return Units(gates[:, None] * self.fixed.u, self.fixed.w, self.fixed.b)


class HyperField(_Planar):
    """The mean of planar units `sigmoid(g_n) u_n tanh(w_n . z + b_n)` whose parameters are a network of the time.

    The field of torchdiffeq's example of a continuous normalizing flow: a network 1-32-32 with tanh gives all
    parameters of 64 units. The divergence is known in closed form.

    Args:
        size: number of components of the state.
        width: number of units `n`.
        key: JAX random key for the initial weights.
        hidden: units of each of the two hidden layers of the network of the time.
        activation: elementwise function between its layers; a module-level function.
        condition_size: number of components of `theta`, further inputs of that network; 0: `theta` is ignored.

    Raises:
        ValueError: if a size is not a positive integer.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> HyperField(2, 64, key=jax.random.key(0))(jnp.zeros(2), 0.5).shape
        (2,)
    """

    net: eqx.nn.MLP
    size: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    condition_size: int = eqx.field(static=True)

    def __init__(
        self,
        size: int,
        width: int = 64,
        *,
        key: jax.Array,
        hidden: int = 32,
        activation: Callable[..., Any] = jax.nn.tanh,
        condition_size: int = 0,
    ):
        check_sizes(size=size, width=width, hidden=hidden)
        check_sizes(0, condition_size=condition_size)
        self.size, self.width, self.condition_size = size, width, condition_size
        self.net = eqx.nn.MLP(1 + condition_size, (3 * size + 1) * width, hidden, 2, activation, key=key)

    def units(self, t: Any, theta: Any, dtype: Any) -> Units:
        """Return the units that the network gives at time `t`."""
        out = self.net(jnp.concatenate(context(t, theta, self.condition_size, dtype)))
        u, w, gate = out[: -self.width].reshape(3, self.width, self.size)
        return Units(u * jax.nn.sigmoid(gate) / self.width, w, out[-self.width :])
