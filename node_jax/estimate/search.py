"""Many starts in one compiled program, and their ranking."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax.estimate.descent import descend
from node_jax.estimate.model import Model
from node_jax.estimate.newton import Aim, Search, minimize

SAME = 1e-2  # nats: starts whose losses differ by less have the same loss
REACH = 2.0  # of a step on a scale without bounds: a factor of 7
CLOSE = 1e-3  # starts whose parameters differ by less, of their size, have the same parameters


class Found(NamedTuple):
    """What the starts of one fit led to, best first; those that failed are last, and their loss is infinite.

    Attributes:
        xs: vectors of the parameters, `(starts, p)`.
        losses: negative log-likelihoods in nats, `(starts,)`.
        costs: what Gauss-Newton minimizes: half the sum of squares, or the loss.
        converged: whether the optimum is near, `(starts,)`; bool.
        failed: whether the solve or the loss was not finite at the start, `(starts,)`; bool.
        updates: number of trials, `(starts,)`.
        matrix: Gauss-Newton matrix of the best, `(p, p)`.
        blind: whether the error of its solve was not controlled; bool.
    """

    xs: jax.Array
    losses: jax.Array
    costs: jax.Array
    converged: jax.Array
    failed: jax.Array
    updates: jax.Array
    matrix: jax.Array
    blind: jax.Array

    @property
    def level(self) -> jax.Array:
        """Which starts have the loss of the best one, `(starts,)`; bool."""
        return (self.losses - self.losses[..., :1] <= SAME) & ~self.failed

    def agree(self, variance: jax.Array) -> jax.Array:
        """Return which starts are at the optimum of the best one, `(starts,)`; bool.

        They have its loss and are within a standard error of it, as the matrix of the best one measures distances, or
        they have its parameters. `variance` is the square of sigma, NaN where the matrix does
        not measure distances.
        """
        best = self.xs[..., :1, :]
        apart = self.xs - best
        near = jnp.einsum("...si,...ij,...sj->...s", apart, self.matrix, apart) <= variance[..., None]
        close = jnp.all(jnp.abs(apart) <= CLOSE * (1 + jnp.abs(best)), axis=-1)
        return (self.level & near | close) & ~self.failed


def reach_of(model: Model) -> jax.Array:
    """Return the most that a step changes each parameter: without bounds only on its own scale."""
    return jnp.asarray([math.inf if scale is None else REACH for scale in model.parameters.scales])


@eqx.filter_jit
def search(model: Model, starts: jax.Array, aim: Aim, optimizer: Any, outside: Any) -> Found:
    """Search from every start, `(starts, p)`, and rank what is found.

    `outside` is what the functions of the model read from outside: another value of that compiles anew.
    """

    def one(x0: jax.Array) -> tuple[Search, jax.Array]:
        if optimizer is None:
            found = minimize(model.evaluate, model.variance, x0, aim)
            return found, found.updates
        descent = descend(model.value, optimizer, x0, aim.updates, aim.tolerance)
        look = aim._replace(updates=1)  # what the matrix says of the place
        return minimize(model.evaluate, model.variance, descent.best, look), descent.updates

    if len(starts) == 1:  # without a batch, which takes twice as long to compile
        found, counts = jax.tree.map(lambda x: x[None], one(starts[0]))
    else:
        found, counts = jax.vmap(one)(starts)
    losses = model.likelihood(found.at.cost)
    failed = ~jnp.isfinite(losses)
    losses = jnp.where(failed, jnp.inf, losses)
    order = jnp.argsort(losses)
    matrix = jnp.where(failed[order[0]], jnp.nan, found.at.matrix[order[0]])
    xs = jnp.where(failed[:, None], jnp.nan, found.x)
    found_there = (xs, losses, found.at.cost, found.converged & ~failed, failed, counts)
    xs, losses, costs, converged, failed, counts = (x[order] for x in found_there)
    return Found(xs, losses, costs, converged, failed, counts, matrix, found.at.blind[order[0]])
