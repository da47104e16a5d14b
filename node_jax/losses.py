"""What a loss returns: a scalar, counts of what it cost, and numbers to watch."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax import tree
from node_jax.solution import Solution
from node_jax.types import PyTree

_FORMS = "a scalar or (scalar, Counts(nfe, failed)) or (scalar, Counts(nfe, failed), dict of scalars)"


class Counts(NamedTuple):
    """What a loss may tell `fit` besides its value: field evaluations and failed solves, integer scalars."""

    nfe: Any = 0
    failed: Any = 0


def squared_error(solution: Solution, targets: PyTree, weights: Any = None) -> tuple[jax.Array, Counts]:
    """Return the mean squared error over the lanes that succeeded, and how many did not.

    Args:
        solution: of one solve or, after `vmap`, of a batch.
        targets: pytree like `solution.zs` (`solution.z1` if no times were saved).
        weights: array of weights for the leading axes of `targets`, at least the lanes; default: all equal.

    Returns:
        Real scalar, the weighted mean over all elements of lanes that are `ok`, NaN if none is; and counts.

    Raises:
        ValueError: if `targets` or `weights` do not have the shapes of the states.

    Example:
        >>> import jax.numpy as jnp
        >>> import node_jax as nj
        >>> def still(z, t, theta):
        ...     return jnp.zeros_like(z)
        >>> loss, counts = squared_error(nj.odesolve(still, 1.0, 0.0, 1.0), jnp.array(3.0))
        >>> float(loss), int(counts.failed)
        (4.0, 0)
    """
    states = solution.z1 if solution.zs is None else solution.zs
    want, got = (jax.tree.map(jnp.shape, x) for x in (states, targets))
    if want != got:
        raise ValueError(f"targets must have the shapes of the states, {want}, got {got}")
    weights = jnp.ones(solution.ok.shape) if weights is None else jnp.asarray(weights)
    lanes = solution.ok.ndim
    if any(x.shape[: weights.ndim] != weights.shape for x in jax.tree.leaves(states)) or weights.ndim < lanes:
        raise ValueError(f"weights must have leading axes of the states, {want}, got shape {weights.shape}")
    weights = tree.where_rows(solution.ok, weights, jnp.zeros_like(weights))
    # Masked before squaring: a NaN state whose square alone was masked would still make the gradient NaN.
    error = tree.subtract(tree.where_rows(solution.ok, states, targets), targets)
    sums = [_weighted(x, weights) for x in jax.tree.leaves(error)]
    counts = Counts(jnp.sum(solution.stats.nfe), jnp.sum(~solution.ok))
    return jnp.asarray(sum(total for total, _ in sums) / sum(weight for _, weight in sums)), counts


def _weighted(error: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Weighted sum of the squares of one leaf, and the sum of the weights of its elements."""
    square = (error * jnp.conj(error)).real
    weights = weights.astype(square.dtype).reshape(weights.shape + (1,) * (error.ndim - weights.ndim))
    return jnp.sum(square * weights), jnp.sum(jnp.broadcast_to(weights, error.shape))


def parts(out: Any) -> tuple[jax.Array, Counts, dict[str, jax.Array]]:
    """Split what a loss returned into value, counts and metrics; a wrong one is described without its values."""
    value, counts, metrics = out, Counts(), {}
    if type(out) is tuple and len(out) in (2, 3):
        value, counts, *rest = out
        metrics = rest[0] if rest else metrics
        if not isinstance(counts, Counts):
            hint = ": put Counts() before the dict" * isinstance(counts, dict)
            raise TypeError(f"loss must return {_FORMS}, got the second {described(counts)}{hint}")
        if not isinstance(metrics, dict) or not all(isinstance(name, str) for name in metrics):
            raise TypeError(f"loss must return {_FORMS}, with names as strings, got the third {described(metrics)}")
    elif type(out) is tuple:
        raise TypeError(f"loss must return {_FORMS}, got {described(out)}")
    value = scalar("loss", value)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"loss must return a real scalar, got {described(value)}: it has no gradient")
    counts = Counts(*(scalar(f"loss, in Counts.{name},", x) for name, x in counts._asdict().items()))
    return value, counts, {name: scalar(f"loss, as {name!r},", x) for name, x in metrics.items()}


def scalar(name: str, value: Any) -> jax.Array:
    """Return a real scalar as an array, or say what `name` returned instead and what to do."""
    if not eqx.is_array_like(value):
        raise TypeError(f"{name} must return a real scalar, got {described(value)}")
    if jnp.shape(value) != ():
        remedy = "reduce it, for example with jnp.mean"
        raise TypeError(f"{name} must return a real scalar, got {described(value)}: {remedy}")
    if jnp.iscomplexobj(value):
        remedy = "take its modulus or its real part"
        raise TypeError(f"{name} must return a real scalar, got {described(value)}: {remedy}")
    return jnp.asarray(value)


def described(x: Any) -> str:
    """Describe a value by its type and shape; a traced one has no other."""
    if isinstance(x, (str, int, float, complex)) or x is None:
        return repr(x)
    if eqx.is_array_like(x):
        return f"an array of shape {jnp.shape(x)} and dtype {x.dtype if eqx.is_array(x) else jnp.result_type(x)}"
    if type(x) in (tuple, list):
        return f"a {type(x).__name__} of {len(x)}: {', '.join(described(each) for each in x)}"
    return f"a {type(x).__name__}"
