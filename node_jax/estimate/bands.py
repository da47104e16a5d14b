"""What a fit says beyond its estimates: predictions with bands, and profiles of the likelihood."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from node_jax.arraylike import times_of
from node_jax.estimate.model import Model
from node_jax.estimate.newton import Aim
from node_jax.estimate.parameters import TRANSFORMS
from node_jax.estimate.search import reach_of, search
from node_jax.estimate.sensitivities import predicted
from node_jax.outside import reads
from node_jax.placement import is_traced


class Prediction(NamedTuple):
    """What a fit predicts, with the uncertainty of its parameters.

    Attributes:
        ts: times `(m,)`.
        mean: what is observed without error, `(m, *shape)`.
        standard_error: of `mean`, by the delta method.
        low: lower end of the band of confidence; the scatter of single measurements is not in it.
        high: upper end.
    """

    ts: jax.Array
    mean: jax.Array
    standard_error: jax.Array
    low: jax.Array
    high: jax.Array


class Profile(eqx.Module):
    """The likelihood of one parameter, all others being at their best; leading axis `points`.

    Attributes:
        name: of the parameter.
        values: on its natural scale.
        losses: negative log-likelihoods in nats.
        converged: whether the fit of the others has converged; bool.
        threshold: loss below which a value is in the interval. With a Gaussian loss it is that of Student's
            distribution, `n/2 log(1 + q**2 / (n - p))` above the best, with which the interval of a linear model is
            exact (Bates and Watts, 1988, section 6.1), otherwise `q**2 / 2`, with the normal quantile.
        interval: where the profile crosses the threshold, NaN at an end where it does not.
    """

    name: str = eqx.field(static=True)
    values: jax.Array
    losses: jax.Array
    converged: jax.Array
    threshold: jax.Array
    interval: tuple[jax.Array, jax.Array]


@eqx.filter_jit
def _seen(model: Model, x: jax.Array, ts: jax.Array, outside: Any) -> tuple[jax.Array, jax.Array]:
    seen, slopes, *_ = predicted(model.f, model.observe, model.parameters, x, model.t0, ts, **model.options)
    return seen, slopes


def predict(
    model: Model, x: jax.Array, covariance: jax.Array, ts: Any, level: float, quantile: jax.Array
) -> Prediction:
    """Predict with bands."""
    given = times_of("ts", ts)
    if np.ndim(given) != 1 or np.shape(given)[0] == 0:
        raise ValueError(f"ts must have shape (m,) with m >= 1, got {given!r}")
    ts = jnp.asarray(given, model.ts.dtype)
    if not is_traced((ts, model)) and not bool(jnp.all(jnp.diff(ts, prepend=model.t0) >= 0)):
        raise ValueError(f"ts must be sorted and begin at t0={model.t0} or later, got {given!r}")
    seen, slopes = _seen(model, x, ts, outside_of(model))
    variance = jnp.einsum("ni...,ij,nj...->n...", slopes, covariance, slopes)
    error = jnp.sqrt(jnp.maximum(variance, 0.0))
    return Prediction(ts, seen, error, seen - quantile * error, seen + quantile * error)


def profile(
    model: Model,
    x: jax.Array,
    loss: jax.Array,
    covariance: jax.Array,
    name: str,
    points: int,
    width: float,
    quantile: Any,
) -> Profile:
    """Profile the likelihood of one parameter."""
    names = model.parameters.names
    if name not in names:
        raise ValueError(f"name must be one of {', '.join(names)}, got {name!r}")
    if not is_traced(covariance) and not bool(jnp.all(jnp.isfinite(covariance))):
        raise ValueError("profile needs standard errors, but the information matrix is not positive definite")
    i = names.index(name)
    back = TRANSFORMS[model.parameters.scales[i]].back
    offsets = jnp.linspace(-width, width, points, dtype=x.dtype) * jnp.sqrt(covariance[i, i])
    xs = x[None] + offsets[:, None] * (covariance[i] / covariance[i, i])[None]  # where the others are if all is linear
    aim = Aim(jnp.arange(x.size) != i, reach_of(model).astype(x.dtype), jnp.int32(200), jnp.asarray(1e-4))
    found = search(model, xs, aim, None, outside_of(model))
    order = jnp.argsort(found.xs[:, i])  # those that failed are NaN, and last
    at, losses, converged = found.xs[order, i], found.losses[order], found.converged[order]
    best = jnp.minimum(jnp.min(losses), loss)
    rise = 0.5 * quantile**2
    if model.gaussian:
        rise = 0.5 * model.count * jnp.log1p(quantile**2 / jnp.maximum(model.freedom, 1))
    # The root of the rise is nearly linear, a line for a quadratic: it is what is interpolated.
    root = lax.cummax(jnp.sign(at - x[i]) * jnp.sqrt(jnp.maximum(losses - best, 0.0)))
    low, high = (jnp.interp(end, root, at, jnp.nan, jnp.nan) for end in (-jnp.sqrt(rise), jnp.sqrt(rise)))
    return Profile(name, back(at), losses, converged, best + rise, (back(low), back(high)))


def outside_of(model: Model) -> tuple:
    """Return what the functions of a model read from outside."""
    return reads(model.f, model.observe, model.loss)
