"""Gauss-Newton steps with damping: few parameters, and a matrix that stands for the second derivatives.

The damping is that of Nielsen (Madsen, Nielsen and Tingleff, Methods for Non-Linear Least Squares Problems, 2004,
section 3.2), the scale of the parameters that of More (The Levenberg-Marquardt Algorithm, 1978: the largest diagonal
seen). It is a loop of its own rather than one of a library, since a trial here is one solve that returns cost, gradient
and matrix together, and a search that is done is told to the solve, which then has no length.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from node_jax.estimate.model import Evaluation

FIRST_DAMPING = 0.1
TRUSTED = 0.3  # standard errors from the optimum: where a step needs no damping
NEAR = 1e-2  # standard errors from the optimum: where a search that cannot go on is still taken for converged


class Aim(NamedTuple):
    """What a search may do, and when it ends.

    Attributes:
        free: which parameters are not held, `(p,)`; bool.
        reach: the most that a step changes each, `(p,)`: a field with a rate that is e**10 too large is stiff.
        updates: most trials.
        tolerance: distance to the minimum in standard errors, by the matrix, at which the search has converged.
    """

    free: jax.Array
    reach: jax.Array
    updates: Any
    tolerance: Any


class Search(NamedTuple):
    """A search from one start: the best point, what is known there, and the next to try."""

    x: jax.Array
    at: Evaluation
    scale: jax.Array  # (p,): largest diagonal of the matrices seen
    damping: jax.Array
    growth: jax.Array  # of the damping, at the next trial that is worse
    trial: jax.Array
    promised: jax.Array  # fall of the cost at the trial, by the matrix
    updates: jax.Array
    done: jax.Array
    converged: jax.Array


def minimize(
    evaluate: Callable[[jax.Array, jax.Array], Evaluation],
    variance: Callable[[jax.Array], jax.Array],
    x0: jax.Array,
    aim: Aim,
) -> Search:
    """Search for a minimum from one start; mapped over starts, those that are done cost what `evaluate` makes of it.

    Args:
        evaluate: `evaluate(x, done)`.
        variance: of the residuals, by the cost.
        x0: start, `(p,)`.
        aim: what the search may do.

    Returns:
        The last state of the search; its cost is infinite if that of the start is.
    """
    zero, no = jnp.zeros_like(x0), jnp.zeros((), bool)
    one, most = jnp.ones((), x0.dtype), jnp.asarray(jnp.inf, x0.dtype)
    nothing = Evaluation(most, zero, jnp.zeros((x0.size, x0.size), x0.dtype), no)
    start = Search(x0, nothing, zero, FIRST_DAMPING * one, 2 * one, x0, most, jnp.int32(0), no, no)

    def advance(search: Search) -> Search:
        moved = _judged(search, evaluate(search.trial, search.done), variance, aim)
        return jax.tree.map(lambda new, old: jnp.where(search.done, old, new), moved, search)

    return lax.while_loop(lambda search: ~search.done, advance, start)


def _judged(search: Search, found: Evaluation, variance: Callable, aim: Aim) -> Search:
    """Take the trial if it is better, and choose the next one."""
    gain = search.at.cost - found.cost
    better, updates, eps = gain > 0, search.updates + 1, jnp.finfo(search.x.dtype).eps
    x = jnp.where(better, search.trial, search.x)
    at = jax.tree.map(lambda new, old: jnp.where(better, new, old), found, search.at)
    gradient, matrix = jnp.where(aim.free, at.gradient, 0.0), jnp.where(jnp.outer(aim.free, aim.free), at.matrix, 0.0)
    scale = jnp.maximum(search.scale, jnp.diag(matrix))
    damping, growth = _damped(search, gain / search.promised, better)
    newton = _solved(matrix, gradient, scale, 4 * eps * x.size)
    rest, spread = jnp.maximum(gradient @ newton, 0.0), variance(at.cost)  # twice what is left to gain
    trusted = better & (rest <= TRUSTED**2 * spread)
    step = jnp.where(trusted, newton, _solved(matrix, gradient, scale, damping))
    step = step * jnp.minimum(1.0, 1.0 / jnp.max(jnp.abs(step) / aim.reach))
    promised = gradient @ step - 0.5 * step @ matrix @ step
    least = jnp.maximum(aim.tolerance, 3 * eps**0.5) ** 2 * spread
    still = jnp.all(jnp.abs(newton) <= eps**0.5 * (1 + jnp.abs(x)))
    failed = ~jnp.isfinite(at.cost)
    converged = ((rest <= least) | still) & ~failed
    stuck = (search.promised <= least) | (better & (gain <= least)) | (updates >= aim.updates)
    near = (rest <= NEAR**2 * spread) & ~failed
    ends = (converged | stuck | failed, converged | (stuck & near))
    return Search(x, at, scale, damping, growth, x - step, promised, updates, *ends)


def _damped(search: Search, ratio: jax.Array, better: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return damping and growth after a trial; the first only measures."""
    first = search.updates == 0
    less = search.damping * jnp.clip(1 - (2 * ratio - 1) ** 3, 1 / 3, 2.0)
    damping = jnp.where(better, less, search.damping * search.growth)
    growth = jnp.where(better, 2.0, 2 * search.growth)
    return jnp.where(first, search.damping, damping), jnp.where(first, search.growth, growth)


def _solved(matrix: jax.Array, gradient: jax.Array, scale: jax.Array, damping: Any) -> jax.Array:
    """Solve `(matrix + damping * scale) step = gradient`; NaN where that is not positive definite."""
    root = jnp.sqrt(jnp.where(scale > 0, scale, 1.0))
    scaled = matrix / jnp.outer(root, root) + damping * jnp.eye(root.size, dtype=root.dtype)
    lower = jnp.linalg.cholesky(scaled)
    half = lax.linalg.triangular_solve(lower, (gradient / root)[:, None], left_side=True, lower=True)
    return lax.linalg.triangular_solve(lower, half, left_side=True, lower=True, transpose_a=True)[:, 0] / root
