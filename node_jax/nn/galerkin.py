"""A field whose weights are polynomials of the time."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax import tree
from node_jax.nn.frozen import Frozen
from node_jax.nn.integrals import Bound
from node_jax.nn.shapes import check_sizes
from node_jax.nn.traces import divergence
from node_jax.types import PyTree


class Galerkin(eqx.Module):
    """A field whose weights are polynomials of the time: the Galerkin neural ODE of Massaroli et al., 2020.

    Each weight is a sum of Legendre polynomials, and what is trained is their coefficients. At first only the constant
    ones are not zero, so that an untrained model is `field` at every time. The weights are computed from the time
    alone: solve a batch with common steps (`nj.nn.Batched`, `common_steps=True`), and they are computed once for all.

    Args:
        field: field `f(z, t, theta)`, a module whose floating arrays are its weights; what is `Frozen` is constant.
        terms: number of polynomials, which is one more than their degree.
        t0: time at which the polynomials begin. Before, the weights are those at `t0`.
        t1: time at which they end. Later, the weights are those at `t1`.

    Raises:
        ValueError: if `terms` is not a positive integer, `t0` and `t1` are not finite or equal, or the field has no
            weights.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import node_jax as nj
        >>> field = Galerkin(nj.nn.PlanarField(2, 8, key=jax.random.key(0), gate=False))
        >>> field(jnp.zeros(2), 0.5).shape, field.divergence(jnp.zeros(2), 0.5).shape
        ((2,), ())
    """

    coefficients: PyTree
    rest: PyTree
    t0: float = eqx.field(static=True)
    t1: float = eqx.field(static=True)

    def __init__(self, field: Any, terms: int = 8, *, t0: float = 0.0, t1: float = 1.0):
        check_sizes(terms=terms)
        if t0 == t1 or not math.isfinite(t0) or not math.isfinite(t1):
            raise ValueError(f"t0 and t1 must be finite and differ, got t0={t0!r} and t1={t1!r}")
        weights, self.rest = eqx.partition(field, eqx.is_inexact_array, is_leaf=lambda x: isinstance(x, Frozen))
        if not jax.tree.leaves(weights):
            raise ValueError(f"field must have floating arrays as weights, got {field!r}")
        self.coefficients = jax.tree.map(lambda x: jnp.zeros((terms, *x.shape), x.dtype).at[0].set(x), weights)
        self.t0, self.t1 = float(t0), float(t1)

    def at(self, t: Any) -> Any:
        """Return the field with the weights of time `t`, a scalar."""

        def weight(each):
            place = 2.0 * (jnp.asarray(t, tree.real_dtype(each)) - self.t0) / (self.t1 - self.t0) - 1.0
            return jnp.tensordot(legendre(jnp.clip(place, -1.0, 1.0), len(each)), each, 1)

        return eqx.combine(jax.tree.map(weight, self.coefficients), self.rest)

    def __call__(self, z: PyTree, t: Any, theta: Any = None) -> PyTree:
        """Return the slope of the field with the weights of time `t`."""
        return self.at(t)(z, t, theta)

    def divergence(self, z: Any, t: Any, theta: Any = None) -> jax.Array:
        """Return the trace of `df/dz` at `(z, t)`, a scalar, in closed form where the field has one."""
        z = jnp.asarray(z)
        return divergence(Bound(self.at(t), theta), z, jnp.asarray(t, z.dtype))


def legendre(x: jax.Array, terms: int) -> jax.Array:
    """Return the Legendre polynomials of degrees below `terms` at a scalar."""
    found = [jnp.ones_like(x), x]
    for n in range(1, terms - 1):
        found.append(((2 * n + 1) * x * found[-1] - n * found[-2]) / (n + 1))
    return jnp.stack(found[:terms])
