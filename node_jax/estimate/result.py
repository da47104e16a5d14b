"""What a fit is: the best parameters, how well they are known, and where the other starts went."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax.estimate import bands, figure, table
from node_jax.estimate.bands import Prediction, Profile
from node_jax.estimate.model import Model
from node_jax.estimate.quantiles import half_width
from node_jax.estimate.search import Found
from node_jax.placement import is_traced
from node_jax.types import PyTree


class Starts(NamedTuple):
    """Where the starts of a fit ended, best first, those that failed last; leading axis `starts`.

    Attributes:
        thetas: parameters; leaves that are held have no such axis. NaN for a start that failed.
        z0s: initial states, in the same way.
        losses: negative log-likelihoods in nats; infinite for a start that failed.
        converged: whether the optimum is near; bool.
        failed: whether solve or loss are not finite at the start; bool.
        agree: whether it has the optimum of the best one: a loss within 0.01 nats and parameters within a standard
            error, or parameters within 0.1 %, on the transformed scale; bool. Only the latter counts where there are
            no standard errors.
        updates: number of updates.
    """

    thetas: PyTree
    z0s: PyTree
    losses: jax.Array
    converged: jax.Array
    failed: jax.Array
    agree: jax.Array
    updates: jax.Array


class ParameterFit(eqx.Module):
    """The result of `fit_parameters`; a pytree. After `vmap` every array has the axes of the batch in front.

    Vectors and matrices have an entry for each fitted number, in the order of `names`. What has a `scale` is given on
    the natural scale, that of `theta`, or on the transformed one, on which `"log"` and `"logit"` have no bounds; from
    one to the other by the delta method.

    Attributes:
        arrays: arrays of the model.
        found: what the starts led to.
        rest: what the model has besides arrays.

    Example:
        >>> import jax.numpy as jnp, node_jax as nj
        >>> ts, observed = jnp.array([1.0, 2.0, 3.0]), jnp.array([0.5, 0.2, 0.1])
        >>> fit = nj.fit_parameters(nj.testing.decay, 1.0, 1.0, ts, observed, t0=0.0)
        >>> int(fit.count), int(fit.freedom), bool(fit.converged)
        (3, 2, True)
    """

    arrays: PyTree
    found: Found
    rest: PyTree = eqx.field(static=True)

    @classmethod
    def of(cls, model: Model, found: Found) -> "ParameterFit":
        """Make the result of what was found for a model."""
        arrays, rest = eqx.partition(model, eqx.is_array)
        return cls(arrays, found, rest)

    @property
    def model(self) -> Model:
        """What was fitted to what."""
        return eqx.combine(self.arrays, self.rest)

    @property
    def names(self) -> tuple[str, ...]:
        """What the fitted numbers are called: by their path in `theta`, or in `z0` with that in front."""
        return self.model.parameters.names

    @property
    def x(self) -> jax.Array:
        """The best parameters on the transformed scale, `(p,)`."""
        return self.found.xs[..., 0, :]

    @property
    def theta(self) -> PyTree:
        """The best parameters, those included that are held."""
        parameters = self.model.parameters
        return parameters.combine(parameters.values(self.x))[0]

    @property
    def z0(self) -> PyTree:
        """The initial state, as given or fitted."""
        parameters = self.model.parameters
        return parameters.combine(parameters.values(self.x))[1]

    @property
    def loss(self) -> jax.Array:
        """Negative log-likelihood of the best parameters, in nats."""
        return self.found.losses[..., 0]

    @property
    def converged(self) -> jax.Array:
        """Whether the best start has converged; bool."""
        return self.found.converged[..., 0]

    @property
    def starts(self) -> Starts:
        """Where all starts ended."""
        parameters, found = self.model.parameters, self.found
        ends = parameters.combine(parameters.values(found.xs))
        known = jnp.all(jnp.isfinite(self.standard_errors("transformed")), axis=-1)
        agree = found.agree(jnp.where(known, self.sigma**2, jnp.nan))  # a singular matrix measures no distance
        return Starts(*ends, found.losses, found.converged, found.failed, agree, found.updates)

    @property
    def count(self) -> jax.Array:
        """Number of values that were observed, those missing left out."""
        return self.model.count

    @property
    def freedom(self) -> jax.Array:
        """Degrees of freedom of the residuals, `n - p`."""
        return self.model.freedom

    @property
    def sigma(self) -> jax.Array:
        """Residual standard deviation, `sqrt(RSS / (n - p))`; NaN where `n = p`, and 1 for a loss in nats."""
        deviation = jnp.sqrt(self.model.variance(self.found.costs[..., 0]))
        return jnp.where(self.freedom > 0, deviation, jnp.nan) if self.model.gaussian else deviation

    @property
    def aic(self) -> jax.Array:
        """Akaike's criterion, `2 (loss + k)`; with a Gaussian loss sigma is one of the `k` parameters."""
        return 2 * (self.loss + len(self.names) + self.model.gaussian)

    def covariance(self, scale: str = "natural") -> jax.Array:
        """Return the covariance `s**2 (J^T J)**-1` of the parameters, or the inverse of `J^T W J` for a loss in nats.

        `J` are the derivatives of what is predicted, `W` the second derivatives of the loss: the information matrix
        that Gauss and Newton take for the Hessian.

        Args:
            scale: `"natural"` or `"transformed"`.

        Returns:
            A matrix `(p, p)`; NaN where the information is not positive definite, so that the data do not determine
            all parameters.

        Raises:
            ValueError: for another scale.
        """
        slopes = self._slopes(scale)
        covariance = self.sigma[..., None, None] ** 2 * _inverse(self.found.matrix)
        return covariance * slopes[..., :, None] * slopes[..., None, :]

    def standard_errors(self, scale: str = "natural") -> jax.Array:
        """Return the standard errors `(p,)`, roots of the diagonal of the covariance."""
        return jnp.sqrt(jnp.diagonal(self.covariance(scale), axis1=-2, axis2=-1))

    def correlation(self) -> jax.Array:
        """Return the correlations of the estimates, `(p, p)`, the same on both scales; NaN as in `covariance`."""
        inverse = _inverse(self.found.matrix)
        root = jnp.sqrt(jnp.diagonal(inverse, axis1=-2, axis2=-1))
        return inverse / (root[..., :, None] * root[..., None, :])

    def interval(self, level: float = 0.95) -> tuple[jax.Array, jax.Array]:
        """Return the ends `(p,)` of confidence intervals: on the transformed scale, mapped back.

        Args:
            level: of confidence, between 0 and 1. The quantile is that of Student's distribution with `n - p` degrees
                of freedom, or the normal one for a loss in nats.
        """
        width = self._half_width(level)[..., None] * self.standard_errors("transformed")
        parameters = self.model.parameters
        return parameters.flat(self.x - width), parameters.flat(self.x + width)

    def predict(self, ts: Any, level: float = 0.95) -> Prediction:
        """Predict what is observed, with bands for its expectation by the delta method.

        Args:
            ts: times `(m,)`, sorted, from `t0` on.
            level: of confidence at each time.

        Raises:
            ValueError: for a batch of fits, each of which `jax.vmap(lambda fit: fit.predict(ts))` takes by itself.
        """
        self._refuse_batch("predict")
        return bands.predict(self.model, self.x, self.covariance("transformed"), ts, level, self._half_width(level))

    def profile(self, name: str, points: int = 21, width: float = 3.0, level: float = 0.95) -> Profile:
        """Fit all parameters but one again, for values of that around the estimate: its profile likelihood.

        Args:
            name: one of `names`.
            points: number of values.
            width: how far they reach to both sides, in standard errors on the transformed scale.
            level: of the interval where the profile is less than its threshold.

        Raises:
            ValueError: for a name that there is not, a batch of fits, or standard errors that are not finite.
        """
        self._refuse_batch("profile")
        covariance = self.covariance("transformed")
        return bands.profile(
            self.model, self.x, self.loss, covariance, name, points, width, self._half_width(level)
        )  # fmt: skip

    def plot(self, axes: Any = None) -> Any:
        """Draw what was observed and predicted, with 95 % bands; needs matplotlib.

        Args:
            axes: of matplotlib, to draw into; default: of a new figure.

        Returns:
            The axes.
        """
        self._refuse_batch("plot")
        return figure.draw(self, axes)

    def __str__(self) -> str:
        """Give the table of a fit, or one line for each of a batch."""
        if is_traced(self.found):
            return f"ParameterFit(names={self.names})"
        return table.of_one(self) if self.loss.ndim == 0 else table.of_many(self)

    __repr__ = __str__

    def _slopes(self, scale: str) -> jax.Array:
        if scale not in ("natural", "transformed"):
            raise ValueError(f'scale must be "natural" or "transformed", got {scale!r}')
        return self.model.parameters.slopes(self.x) if scale == "natural" else jnp.ones_like(self.x)

    def _half_width(self, level: float) -> jax.Array:
        return half_width(level, self.freedom, self.model.gaussian, self.x.dtype)

    def _refuse_batch(self, what: str) -> None:
        if self.x.ndim > 1:
            raise ValueError(f"{what} takes one fit, got a batch {self.loss.shape}: jax.vmap takes each by itself")


def _inverse(matrix: jax.Array) -> jax.Array:
    """Invert matrices `(..., p, p)`; NaN where one is not positive definite by its scaled eigenvalues."""
    root = jnp.sqrt(jnp.diagonal(matrix, axis1=-2, axis2=-1))
    outer = root[..., :, None] * root[..., None, :]
    scaled = jnp.where(outer > 0, matrix / jnp.where(outer > 0, outer, 1.0), 0.0)
    values, vectors = jnp.linalg.eigh(jnp.where(jnp.isfinite(scaled), scaled, 0.0))
    definite = values[..., :1, None] > jnp.finfo(matrix.dtype).eps ** (2 / 3)
    inverse = jnp.einsum("...ik,...k,...jk->...ij", vectors, 1 / values, vectors) / outer
    return jnp.where(definite & jnp.isfinite(scaled), inverse, jnp.nan)
