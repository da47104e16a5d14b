"""Any optax optimizer, with gradients in reverse mode: for many parameters, or an optimizer of one's own.

The gradient is that of each start by itself, `vmap(value_and_grad)`, which takes as long as that of the sum over all
starts and goes through the same chunks of lanes (docs/ensembles.md has both measured); the gradient of a sum would run
subject by subject under a further `vmap`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

LBFGS = optax.lbfgs()


class Descent(NamedTuple):
    """A search from one start, and the best point that it has seen."""

    x: jax.Array
    opt_state: Any
    best: jax.Array
    least: jax.Array  # its value
    updates: jax.Array
    done: jax.Array


def descend(
    value: Callable[[jax.Array], jax.Array], optimizer: Any, x0: jax.Array, updates: Any, tolerance: Any
) -> Descent:
    """Search for a minimum of `value` from one start; ends where it is not finite, or hardly moves any more.

    Args:
        value: negative log-likelihood at `x`, in nats.
        optimizer: an optax optimizer; it is given value, gradient and function as line searches want them.
        x0: start, `(p,)`.
        updates: most updates.
        tolerance: a search ends where the gradient is less, in nats for a change of 1 (or of `x` by its own size).

    Returns:
        The last state of the search; `least` is infinite if `value` is not finite at the start.
    """
    optimizer = optax.with_extra_args_support(optimizer)
    zero = jnp.zeros((), jnp.int32)
    start = Descent(x0, optimizer.init(x0), x0, jnp.asarray(jnp.inf, x0.dtype), zero, jnp.zeros((), bool))

    def advance(search: Descent) -> Descent:
        level, slope = jax.value_and_grad(value)(search.x)
        fine = jnp.isfinite(level) & jnp.all(jnp.isfinite(slope))
        change, opt_state = optimizer.update(
            slope, search.opt_state, search.x, value=level, grad=slope, value_fn=value
        )  # fmt: skip
        better = fine & (level < search.least)
        best, least = jnp.where(better, search.x, search.best), jnp.where(better, level, search.least)
        count = search.updates + 1
        flat = jnp.max(jnp.abs(slope) * jnp.maximum(jnp.abs(search.x), 1.0)) <= tolerance
        moved = Descent(search.x + change, opt_state, best, least, count, ~fine | flat | (count >= updates))
        return jax.tree.map(lambda new, old: jnp.where(search.done, old, new), moved, search)

    return lax.while_loop(lambda search: ~search.done, advance, start)
