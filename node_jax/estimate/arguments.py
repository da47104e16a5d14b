"""What `fit_parameters` is called with: wrong arguments are named, with their value and what to give instead."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from node_jax.adjoints.checkpointed import Checkpointed
from node_jax.arguments import check_options, checked_state, checked_theta
from node_jax.arraylike import times_of
from node_jax.estimate.descent import LBFGS
from node_jax.estimate.model import Model, squares
from node_jax.estimate.parameters import Parameters, marked
from node_jax.placement import is_traced
from node_jax.save import SaveEnd
from node_jax.train.arguments import functions_of, is_optimizer
from node_jax.types import PyTree, is_count


def state_itself(z: PyTree, theta: PyTree) -> PyTree:
    """Observe all of a state that is one array."""
    return z


def model_of(
    f, z0, theta, ts, observed, t0, mask, observe, transform, fit_z0, loss, **options
) -> tuple[Model, jax.Array]:
    """Check what a fit is about, and return it with the vector that `theta` and `z0` stand for."""
    check_options(f, **options, save=SaveEnd(), adjoint=Checkpointed(), lane_width=None, throw=False)
    if observe is not None and not callable(observe):
        raise TypeError(f"observe must be callable as observe(z, theta), got {observe!r}")
    z0 = checked_state(z0)
    theta = jax.tree.map(lambda x: jnp.asarray(x) if eqx.is_array_like(x) else x, checked_theta(theta))
    parameters, x0 = marked(theta, z0, transform, fit_z0)
    ts = _times(ts, t0)
    observed, mask = _data(observed, mask, len(ts), x0.dtype)
    observe = state_itself if observe is None else observe
    _check_shapes(observe, z0, theta, observed)
    _check_count(mask, parameters)
    options["steps"] = jax.tree.map(lambda x: jnp.asarray(x) if eqx.is_array_like(x) else x, options["steps"])
    loss = _loss(loss, observed)
    return Model(f, observe, loss, parameters, jnp.asarray(t0, ts.dtype), ts, observed, mask, options), x0


def _times(ts: Any, t0: Any) -> jax.Array:
    given = times_of("ts", ts)
    if np.ndim(given) != 1 or np.shape(given)[0] == 0:
        raise ValueError(f"ts must have shape (n,) with n >= 1, got {given!r}")
    if not eqx.is_array_like(t0) or jnp.ndim(t0) != 0:
        raise ValueError(f"t0 must be a real scalar, got {t0!r}")
    ts = jnp.asarray(given)
    if is_traced((ts, t0)):
        return ts
    exact, first = np.asarray(given, np.float64), float(t0)
    if not np.all(np.isfinite([first, *exact])):
        raise ValueError(f"ts and t0 must be finite, got t0={t0!r} and ts={given!r}")
    if np.any(np.diff([first, *exact]) < 0):
        raise ValueError(f"ts must be sorted and begin at t0={t0!r} or later, got {given!r}")
    if np.any((np.diff(exact) > 0) & (np.diff(np.asarray(ts)) == 0)):
        raise ValueError(
            f"ts cannot be told apart in {ts.dtype}: count them from t0, or enable 64-bit floats; {given!r}"
        )
    return ts


def _data(observed: Any, mask: Any, n: int, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """Return what was observed, one where missing, and where it is there."""
    if not hasattr(observed, "shape"):
        observed = np.asarray(observed)
    if observed.dtype == object or not jnp.isrealobj(observed):
        raise TypeError(f"observed must be an array of real numbers, got {observed!r}")
    if observed.ndim < 1 or observed.shape[0] != n:
        raise ValueError(f"observed must have {n} rows, one for each of ts, got shape {observed.shape}")
    observed = jnp.asarray(observed, dtype)
    there = ~jnp.isnan(observed)
    if mask is not None:
        mask = jnp.asarray(mask)
        if mask.dtype != bool or mask.shape not in ((n,), observed.shape):
            raise ValueError(f"mask must be bool of shape {(n,)} or {observed.shape}, got {mask.dtype} {mask.shape}")
        there = there & jnp.expand_dims(mask, range(mask.ndim, observed.ndim))
    observed = jnp.where(there, observed, 1.0)
    if not is_traced(observed) and not bool(jnp.all(jnp.isfinite(observed))):
        raise ValueError(f"observed must be finite, or NaN where it is missing, got {observed}")
    return observed, there


def _check_shapes(observe: Callable, z0: PyTree, theta: PyTree, observed: jax.Array) -> None:
    arrays, rest = eqx.partition((z0, theta), eqx.is_array)
    try:
        got = jax.eval_shape(lambda arrays: observe(*eqx.combine(arrays, rest)), arrays)
    except TypeError as error:
        error.add_note("observe is called as observe(z, theta).")
        raise
    if getattr(got, "shape", None) != observed.shape[1:]:
        what = "observe(z, theta) must return" if observe is not state_itself else "without observe, z0 must be"
        raise ValueError(f"{what} an array of shape {observed.shape[1:]}, as a row of observed, got {got}")


def _check_count(mask: jax.Array, parameters: Parameters) -> None:
    most = mask.size if is_traced(mask) else int(jnp.sum(mask))
    if most < parameters.size:
        first = ", ".join(parameters.names[:4]) + ", ..." * (parameters.size > 4)
        raise ValueError(
            f"observed must hold at least as many values as there are parameters, {parameters.size} ({first}),"
            f" got {most}"
        )


def _loss(loss: Any, observed: jax.Array) -> Callable:
    if isinstance(loss, str) and loss == "gaussian":
        return squares
    if not callable(loss):
        raise TypeError(f'loss must be "gaussian" or callable as loss(predicted, observed), got {loss!r}')
    got = jax.eval_shape(loss, observed, observed)
    if getattr(got, "shape", None) != observed.shape:
        raise TypeError(
            f"loss must return the negative log-likelihood of each value, of shape {observed.shape}, got {got}"
        )
    return loss


def optimizer_of(optimizer: Any) -> Any:
    """Return an optax optimizer, or None for Gauss-Newton."""
    if isinstance(optimizer, str):
        if optimizer not in ("gauss-newton", "lbfgs"):
            raise ValueError(f'optimizer must be "gauss-newton", "lbfgs" or one of optax, got {optimizer!r}')
        return LBFGS if optimizer == "lbfgs" else None
    if not is_optimizer(optimizer):
        raise TypeError(f'optimizer must be "gauss-newton", "lbfgs" or one of optax, got {optimizer!r}')
    return functions_of(optimizer)


def check_numbers(starts: Any, updates: Any, spread: Any, tolerance: Any, key: Any) -> None:
    """Refuse counts and sizes that make no sense."""
    for name, value in (("starts", starts), ("updates", updates)):
        if not is_count(value):
            raise ValueError(f"{name} must be a positive integer, got {value!r}")
    for name, value in (("spread", spread), ("tolerance", tolerance)):
        if not is_traced(value) and not (eqx.is_array_like(value) and jnp.ndim(value) == 0 and 0 < value < math.inf):
            raise ValueError(f"{name} must be a positive number, got {value!r}")
    if starts > 1 and key is None:
        raise ValueError(f"starts={starts} needs key=jax.random.key(...) to draw them, got key=None")
