"""The trace of the Jacobian of a field, exact or estimated: rates of a `CNF`."""

from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax.nn.integrals import Bound
from node_jax.nn.regularizers import Estimate


@runtime_checkable
class Divergent(Protocol):
    """A field that knows the trace of its Jacobian."""

    def divergence(self, z: Any, t: Any, theta: Any = None) -> Any:
        """Return the trace of `df/dz`, a scalar."""
        ...


def divergence(field: Bound, z: jax.Array, t: Any) -> jax.Array:
    """Return the trace of the Jacobian: what the field says, else forward mode over the basis."""
    if isinstance(field.field, Divergent):
        return field.field.divergence(z, t, field.theta)

    def entry(basis):
        return jnp.sum(basis * jax.jvp(lambda z: field(z, t), (z,), (basis,))[1])

    return jnp.sum(jax.vmap(entry)(jnp.eye(z.size, dtype=z.dtype)))


class Exact(eqx.Module):
    """The exact trace: `field.divergence(z, t, theta)` where the field has it, else forward mode over the basis.

    The cost of the latter is that of as many evaluations as the state has components.

    Example:
        >>> import jax
        >>> import node_jax as nj
        >>> field = nj.nn.PlanarField(2, 8, key=jax.random.key(0))  # knows its divergence
        >>> flow = nj.nn.CNF(nj.NeuralODE(field), 2, trace=Exact())
        >>> flow.sample(jax.random.key(1)).shape
        (2,)
    """

    name = "trace"

    def draw(self, key: jax.Array | None, z: jax.Array) -> tuple[Any, ...]:
        """Return nothing: this is not random."""
        return ()

    def rate(self, field: Bound, z: jax.Array, t: jax.Array, drawn: Any) -> jax.Array:
        """Return the trace at `(z, t)`."""
        return divergence(field, z, t)


class Hutchinson(Estimate):
    """An unbiased estimate of the trace, the mean of `e^T (df/dz) e` over random vectors `e` (Grathwohl et al., 2019).

    The vectors are drawn once for a solve, so that what is integrated is smooth.

    Args:
        samples: number of random vectors.
        noise: their distribution, "rademacher" or "normal".

    Raises:
        ValueError: if `samples` is not a positive integer, or `noise` is not known.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import node_jax as nj
        >>> field = nj.nn.ConcatSquashField(8, (16,), key=jax.random.key(0))
        >>> flow = nj.nn.CNF(nj.NeuralODE(field), 8, trace=Hutchinson())
        >>> flow.log_prob(jnp.zeros(8), key=jax.random.key(1)).shape
        ()
    """

    name = "trace"

    def rate(self, field: Bound, z: jax.Array, t: jax.Array, drawn: jax.Array) -> jax.Array:
        """Return the estimate at `(z, t)`."""
        _, pull = jax.vjp(lambda z: field(z, t), z)
        return jnp.mean(jax.vmap(lambda e: jnp.sum(pull(e)[0] * e))(drawn))
