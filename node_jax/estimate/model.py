"""How far a model is from what was observed, and the derivatives of that."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax.estimate.parameters import Parameters
from node_jax.estimate.sensitivities import predicted
from node_jax.odesolve import odesolve
from node_jax.save import SaveAt


class Evaluation(NamedTuple):
    """What is known at a vector of parameters.

    Attributes:
        cost: infinite where the solve failed, or anything is not finite.
        gradient: `(p,)`.
        matrix: of Gauss and Newton, `(p, p)`.
        blind: whether the error of the solve was not controlled; bool.
    """

    cost: jax.Array
    gradient: jax.Array
    matrix: jax.Array
    blind: jax.Array


def squares(predicted: jax.Array, observed: jax.Array) -> jax.Array:
    """Half of the squared errors: the cost that stands for the Gaussian loss."""
    return 0.5 * (predicted - observed) ** 2


class Model(eqx.Module):
    """Everything that a cost depends on but the vector of parameters.

    Attributes:
        f: vector field.
        observe: `observe(z, theta)`.
        loss: negative log-likelihood of each value, or `squares`.
        parameters: what is fitted, and what is held.
        t0: initial time.
        ts: times `(n,)`.
        observed: `(n, *shape)`, one where missing.
        mask: whether a value is there, `(n, *shape)`.
        options: `method`, `steps` and `max_steps`.
    """

    f: Any
    observe: Callable
    loss: Callable
    parameters: Parameters
    t0: Any
    ts: jax.Array
    observed: jax.Array
    mask: jax.Array
    options: dict[str, Any]

    @property
    def gaussian(self) -> bool:
        """Whether the error is normal with a standard deviation that is estimated."""
        return self.loss is squares

    @property
    def count(self) -> jax.Array:
        """Number of values that are there."""
        return jnp.sum(self.mask, axis=tuple(range(self.ts.ndim - 1, self.mask.ndim)))

    def evaluate(self, x: jax.Array, done: jax.Array) -> Evaluation:
        """Return cost, gradient and Gauss-Newton matrix `J^T W J` at `x`, `W` the second derivatives of the loss.

        A solve that is `done` has no length, and costs nothing in a batch that goes through the queue.
        """
        ts = jnp.where(done, jnp.asarray(self.t0, self.ts.dtype), self.ts)
        seen, slopes, ok, blind = predicted(self.f, self.observe, self.parameters, x, self.t0, ts, **self.options)
        p = self.parameters.size
        rows = jnp.moveaxis(slopes, 1, -1).reshape(-1, p)  # (values, p)

        def loss(seen):
            return self.loss(seen, self.observed)

        def slope(seen):
            return jax.jvp(loss, (seen,), (jnp.ones_like(seen),))

        (cost, first), (_, second) = jax.jvp(slope, (seen,), (jnp.ones_like(seen),))
        cost, first, second = (jnp.where(self.mask, y, 0.0).ravel().astype(x.dtype) for y in (cost, first, second))
        rows = jnp.where(self.mask.ravel()[:, None], rows, 0.0).astype(x.dtype)
        cost, gradient, matrix = jnp.sum(cost), first @ rows, rows.T @ (second[:, None] * rows)
        finite = ok & jnp.isfinite(cost + jnp.sum(gradient) + jnp.sum(matrix))
        return Evaluation(jnp.where(finite, cost, jnp.inf), gradient, matrix, blind)

    def value(self, x: jax.Array) -> jax.Array:
        """Return the negative log-likelihood at `x`, to be differentiated backwards."""
        theta, z0 = self.parameters.combine(self.parameters.values(x))
        sol = odesolve(self.f, z0, self.t0, self.ts[-1], theta, save=SaveAt(self.ts), throw=False, **self.options)
        seen = jax.vmap(lambda z: self.observe(z, theta))(sol.zs)
        seen = jnp.where(self.mask, seen, 1.0)  # a loss that is not finite there would spoil the gradient
        cost = jnp.sum(jnp.where(self.mask, self.loss(seen, self.observed), 0.0)).astype(x.dtype)
        return self.likelihood(jnp.where(sol.ok, cost, jnp.inf))

    def likelihood(self, cost: jax.Array) -> jax.Array:
        """Return the negative log-likelihood, in nats, of a cost; that of normal errors at their best deviation."""
        if not self.gaussian:
            return cost
        n = self.count
        variance = jnp.maximum(2 * cost / n, self._least_variance())
        return 0.5 * n * (jnp.log(2 * jnp.pi * variance) + 1)

    def _least_variance(self) -> jax.Array:
        """Square of the rounding error of what was observed: no fit is better."""
        axes = tuple(range(self.ts.ndim - 1, self.mask.ndim))
        real = jnp.finfo(self.observed.dtype)
        largest = jnp.max(jnp.where(self.mask, jnp.abs(self.observed), 0.0), axis=axes)
        return jnp.maximum((float(real.eps) * largest) ** 2, float(real.tiny))

    def variance(self, cost: jax.Array) -> jax.Array:
        """Return the residual variance `2 cost / (n - p)`, with at least 1 for `n - p`; 1 for a loss in nats."""
        return 2 * cost / jnp.maximum(self.freedom, 1) if self.gaussian else jnp.ones_like(cost)

    @property
    def freedom(self) -> jax.Array:
        """Degrees of freedom of the residuals, `n - p`."""
        return self.count - self.parameters.size
