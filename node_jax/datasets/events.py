"""Events of an inhomogeneous Poisson process, simulated by thinning."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from node_jax.nn.poisson import Events
from node_jax.nn.shapes import check_sizes


def poisson(rate: Callable[..., Any], t1: float, key: Any, *, bound: float, capacity: int = 256) -> Events:
    """Draw the events of one process between 0 and `t1` by thinning (Lewis and Shedler, 1979).

    Args:
        rate: intensity `rate(t)` of a scalar time, in events per unit of `t`.
        t1: end of the process.
        key: JAX random key.
        bound: a number that the intensity never exceeds.
        capacity: most candidates, of rate `bound`, that are drawn.

    Returns:
        `Events`; not `complete` if the candidates ended before `t1`, or the intensity exceeded `bound` at one.

    Raises:
        ValueError: if `bound` or `t1` is not positive, or `capacity` is not a positive integer.

    Example:
        >>> import jax
        >>> events = poisson(lambda t: 3.0, 2.0, jax.random.key(0), bound=3.0)
        >>> events.ts.shape, bool(events.complete)
        ((256,), True)
    """
    check_sizes(capacity=capacity)
    for name, value in (("bound", bound), ("t1", t1)):
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value!r}")
    first, second = jax.random.split(key)
    candidates = jnp.cumsum(jax.random.exponential(first, (capacity,))) / bound
    inside = candidates < t1
    rates = jax.vmap(rate)(candidates)
    kept = inside & (jax.random.uniform(second, (capacity,)) * bound < rates)
    order = jnp.argsort(jnp.where(kept, candidates, jnp.inf))
    mask = kept[order]
    return Events(jnp.where(mask, candidates[order], t1), mask, ~inside[-1] & ~jnp.any(inside & (rates > bound)))
