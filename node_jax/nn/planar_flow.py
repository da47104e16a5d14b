"""The planar normalizing flow, the discrete counterpart of a planar `CNF`."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax.nn.flow import checked_base, many
from node_jax.nn.frozen import Frozen
from node_jax.nn.shapes import check_sizes, shaped_state
from node_jax.types import AnyArray


class PlanarFlow(eqx.Module):
    """Layers `x + u tanh(w . x + b)`, each with a Jacobian of known determinant (Rezende and Mohamed, 2015).

    The layers are invertible, but their inverse has no closed form. A flow therefore knows one direction: by default
    from the base to the data, for sampling and for matching a density; with `invert=True` from the data to the base,
    for maximum likelihood. What it does not know raises a ValueError.

    Args:
        dim: number of components of a point.
        layers: number of layers.
        key: JAX random key for the initial weights.
        base: distribution with `log_prob(z)` and `sample(key)`; it is not trained. Default: `StandardNormal(dim)`.
        invert: whether the layers lead from the data to the base.

    Raises:
        ValueError: if `dim` or `layers` is not a positive integer.

    Example:
        >>> import jax
        >>> flow = PlanarFlow(2, 8, key=jax.random.key(0))
        >>> xs, log_probs = flow.sample_and_log_prob(jax.random.key(1), (5,))
        >>> xs.shape, log_probs.shape
        ((5, 2), (5,))
    """

    u: jax.Array
    w: jax.Array
    b: jax.Array
    frozen_base: Frozen
    dim: int = eqx.field(static=True)
    invert: bool = eqx.field(static=True)

    def __init__(self, dim: int, layers: int, *, key: jax.Array, base: Any = None, invert: bool = False):
        check_sizes(dim=dim, layers=layers)
        first, second = jax.random.split(key)
        self.u = 0.1 * jax.random.normal(first, (layers, dim))
        self.w = jax.random.normal(second, (layers, dim))
        self.b = jnp.zeros(layers)
        self.frozen_base = checked_base(base, dim)
        self.dim, self.invert = dim, invert

    @property
    def base(self) -> Any:
        """The distribution, which is not trained."""
        return self.frozen_base.value

    def forward(self, z: AnyArray, condition: Any = None) -> jax.Array:
        """Return the point of the data that belongs to a point of the base.

        Args:
            z: point of the base, `(dim,)`.
            condition: None; it stands here because other flows have one.

        Returns:
            Array `(dim,)`.

        Raises:
            ValueError: if the flow was made with `invert=True`, there is a condition, or `z` has another shape.
        """
        self._must("forward", condition, invert=False)
        return self._through("z", z)[0]

    def inverse(self, x: AnyArray, condition: Any = None) -> jax.Array:
        """Return the point of the base that belongs to a point of the data.

        Args:
            x: point of the data, `(dim,)`.
            condition: None; it stands here because other flows have one.

        Returns:
            Array `(dim,)`.

        Raises:
            ValueError: if the flow was made without `invert=True`, there is a condition, or `x` has another shape.
        """
        self._must("inverse", condition, invert=True)
        return self._through("x", x)[0]

    def log_prob(self, x: AnyArray, condition: Any = None, *, key: Any = None) -> jax.Array:
        """Return the log-density of a point.

        Args:
            x: point of the data, `(dim,)`.
            condition: None; it stands here because other flows have one.
            key: not used; flows that solve an equation may need it.

        Returns:
            Real scalar.

        Raises:
            ValueError: if the flow was made without `invert=True`, there is a condition, or `x` has another shape.
        """
        self._must("log_prob", condition, invert=True)
        z, log_det = self._through("x", x)
        return self.base.log_prob(z) + log_det

    def sample(self, key: jax.Array, sample_shape: int | tuple[int, ...] = (), condition: Any = None) -> jax.Array:
        """Return samples of the flow.

        Args:
            key: JAX random key.
            sample_shape: shape of the samples.
            condition: None; it stands here because other flows have one.

        Returns:
            Array `(*sample_shape, dim)`.

        Raises:
            ValueError: if the flow was made with `invert=True`, or there is a condition.
        """
        return self.sample_and_log_prob(key, sample_shape, condition)[0]

    def sample_and_log_prob(
        self, key: jax.Array, sample_shape: int | tuple[int, ...] = (), condition: Any = None
    ) -> tuple[jax.Array, jax.Array]:
        """Return samples of the flow and their log-densities.

        Args:
            key: JAX random key.
            sample_shape: shape of the samples.
            condition: None; it stands here because other flows have one.

        Returns:
            Arrays `(*sample_shape, dim)` and `sample_shape`.

        Raises:
            ValueError: if the flow was made with `invert=True`, or there is a condition.
        """
        self._must("sample", condition, invert=False)

        def one(key):
            z = self.base.sample(key)
            x, log_det = self._through("z", z)
            return x, self.base.log_prob(z) - log_det

        return many(one, key, sample_shape)

    def _must(self, name: str, condition: Any, invert: bool) -> None:
        """Refuse a condition, and the direction that the flow does not know."""
        if condition is not None:
            raise ValueError(
                f"PlanarFlow.{name} takes no condition, got condition={condition!r}; nj.nn.CNF with a field of"
                " condition_size=n takes one"
            )
        if self.invert != invert:
            raise ValueError(
                f"PlanarFlow(invert={self.invert}).{name}: a planar layer has no inverse in closed form;"
                f" take PlanarFlow(invert={invert})"
            )

    def _through(self, name: str, x: AnyArray) -> tuple[jax.Array, jax.Array]:
        """Return the point behind all layers, and the logarithm of the determinant of their Jacobian."""
        x = shaped_state(name, x, (self.dim,))

        def layer(carry, weights):
            x, log_det = carry
            u, w, b = weights
            # w . u >= -1 makes the layer invertible (Rezende and Mohamed, 2015, appendix A.1)
            product = jnp.dot(w, u)
            u = u + (jax.nn.softplus(product) - 1.0 - product) * w / jnp.dot(w, w)
            height = jnp.tanh(jnp.dot(w, x) + b)
            log_det = log_det + jnp.log(jnp.abs(1.0 + jnp.dot(u, w) * (1.0 - height**2)))
            return (x + u * height, log_det), None

        zero = jnp.zeros((), jnp.result_type(x, self.u))
        return jax.lax.scan(layer, (x.astype(zero.dtype), zero), (self.u, self.w, self.b))[0]
