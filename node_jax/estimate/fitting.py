"""The door: parameters of an ordinary differential equation from measurements, from many starts at once."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from node_jax.control import Adaptive, Fixed, Grid
from node_jax.estimate import arguments
from node_jax.estimate.bands import outside_of
from node_jax.estimate.newton import Aim
from node_jax.estimate.result import ParameterFit
from node_jax.estimate.search import reach_of, search
from node_jax.estimate.table import BLIND
from node_jax.hints import refuses_by_name
from node_jax.methods import ExplicitRK, tsit5
from node_jax.placement import is_traced
from node_jax.train.arguments import random_key
from node_jax.types import PyTree, VectorField


@refuses_by_name()
def fit_parameters(
    f: VectorField,
    z0: PyTree,
    theta: PyTree,
    ts: Any,
    observed: Any,
    *,
    t0: Any,
    mask: Any = None,
    observe: Callable[..., Any] | None = None,
    transform: PyTree = None,
    fit_z0: PyTree = False,
    starts: int = 1,
    spread: Any = 1.0,
    key: Any = None,
    optimizer: Any = "gauss-newton",
    updates: int = 200,
    tolerance: Any = 1e-4,
    loss: Any = "gaussian",
    method: ExplicitRK = tsit5,
    steps: Adaptive | Fixed | Grid = Adaptive(),
    max_steps: int = 4096,
) -> ParameterFit:
    """Fit parameters of `dz/dt = f(z, t, theta)`, and of `z(t0)`, to measurements by maximum likelihood.

    All starts run in one compiled program, and so do all subjects under `jax.vmap`: series of different lengths are
    brought to one by `nj.datasets.pad`, whose mask goes into `mask`. A start whose solve or loss is not finite has
    failed; it is counted, ranked last, and changes nothing in the others.

    **Marks.** `transform` and `fit_z0` are pytree prefixes of `theta` and `z0` that say of each leaf how it is fitted:
    `"log"` for a positive number, `"logit"` for one between 0 and 1, None or True for one without bounds, False for one
    that is held as it is given. Integers, bools and functions are always held.

    **Gaussian loss.** Errors are normal, independent, with one standard deviation for all values, which is not among
    the parameters: the estimate minimizes the sum of squares `RSS`, and the likelihood is that of `sigma**2 = RSS / n`,
    its maximum (sigma is profiled out). Standard errors take `s**2 = RSS / (n - p)` and `s**2 (J^T J)**-1`, as
    nonlinear regression has it (Bates and Watts, Nonlinear Regression Analysis, 1988, section 2.3). Values of
    different sizes or units go through `observe` and `observed` onto one scale, such as logarithms.

    **Optimizer.** `"gauss-newton"` solves for the derivatives by all parameters along with the state and damps its
    steps (Levenberg and Marquardt): the choice for few parameters. `"lbfgs"` is the one of optax; it and other
    optimizers of optax take gradients in reverse mode, for many parameters. The result is no function to be
    differentiated in reverse mode.

    Args:
        f: vector field `f(z, t, theta)`, as in `odesolve`.
        z0: initial state.
        theta: where the first start is; the values that are held.
        ts: times of the measurements, `(n,)`, sorted, from `t0` on; the same may appear again (repetitions, padding).
        observed: what was measured, `(n, *shape)`. NaN is a missing value, as false in `mask` is.
        t0: time of `z0`.
        mask: whether a value is there, `(n,)` or `(n, *shape)`; bool.
        observe: `observe(z, theta)`, what is measured of one state, `shape`; default: the state, one array.
        transform: marks for `theta`.
        fit_z0: marks for `z0`; default: it is known.
        starts: number of starts, the first at `theta` and `z0`.
        spread: how far the others are from it: uniform up to this distance on the scale of a transform (1 is a factor
            of e with `"log"`), and up to this share of the value on its own scale (where it is zero, up to this).
        key: JAX random key that draws the starts.
        optimizer: `"gauss-newton"`, `"lbfgs"` or an optimizer of optax.
        updates: most updates from each start.
        tolerance: a start has converged where the optimum is less than this many standard errors away, by the matrix of
            Gauss and Newton; at least three times the root of the machine epsilon. An optimizer of optax ends earlier
            where the gradient, in nats, is less than this number.
        loss: `"gaussian"`, or `loss(predicted, observed)`: the negative log-likelihood in nats of each value, an array
            like both, each entry a function of the same entry of `predicted`. Likelihood and AIC lack what it
            leaves out. Where a value is missing, `observed` is one.
        method: an explicit Runge-Kutta method.
        steps: `Adaptive(rtol, atol)`, `Fixed(n)` or `Grid(ts)`.
        max_steps: most trials of one solve.

    Returns:
        A `ParameterFit`; `print` it.

    Raises:
        ValueError, TypeError: for arguments that make no sense, naming them; values are looked at outside
            transformations only.

    Example:
        >>> import jax, jax.numpy as jnp, node_jax as nj
        >>> def decay(z, t, theta):
        ...     return -theta["rate"] * z
        >>> ts = jnp.array([0.0, 1.0, 2.0, 3.0, 4.0])
        >>> observed = jnp.array([2.05, 1.19, 0.76, 0.42, 0.29])
        >>> fit = nj.fit_parameters(decay, 1.0, {"rate": 1.0}, ts, observed, t0=0.0, transform="log", fit_z0="log")
        >>> print(fit)
        Parameter fit: 5 observations, gaussian loss with sigma profiled out
        ...
    """
    arguments.check_numbers(starts, updates, spread, tolerance, key)
    optimizer = arguments.optimizer_of(optimizer)
    options = {"method": method, "steps": steps, "max_steps": max_steps}
    model, x0 = arguments.model_of(
        f, z0, theta, ts, observed, t0, mask, observe, transform, fit_z0, loss, **options
    )  # fmt: skip
    xs = _drawn(x0, model.parameters.scales, starts, spread, key)
    aim = Aim(jnp.ones(x0.shape, bool), reach_of(model).astype(x0.dtype), jnp.int32(updates), jnp.asarray(tolerance))
    found = search(model, xs, aim, optimizer, outside_of(model))
    fit = ParameterFit.of(model, found)
    if not is_traced(found):
        _warn(fit)
    return fit


def _drawn(x0: jax.Array, scales: tuple[Any, ...], starts: int, spread: Any, key: Any) -> jax.Array:
    """Return starts `(starts, p)`, the first at `x0`."""
    if starts == 1:
        return x0[None]
    own = jnp.asarray([scale is None for scale in scales])
    size = jnp.where(own & (x0 != 0), jnp.abs(x0), 1.0) * jnp.asarray(spread, x0.dtype)
    draws = jax.random.uniform(random_key(key), (starts - 1, x0.size), x0.dtype, -1.0, 1.0)
    return jnp.concatenate([x0[None], x0[None] + size[None] * draws])


def _warn(fit: ParameterFit) -> None:
    if bool(jnp.all(fit.found.failed)):
        text = (
            "all starts failed: the solve or the loss is not finite there. odesolve(f, z0, t0, ts[-1], theta) says why"
        )
        warnings.warn(text, stacklevel=4)
    elif not bool(fit.converged):
        warnings.warn("the best start has not converged: raise updates, or try more starts", stacklevel=4)
    if bool(fit.found.blind):
        text = f"{BLIND} Take a smaller atol in steps=Adaptive(...), or other units"
        warnings.warn(text, stacklevel=4)
