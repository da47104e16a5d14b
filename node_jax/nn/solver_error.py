"""The error estimates of the steps of a solve, taken again from its nodes."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from node_jax import tree
from node_jax.nn.regularizers import square
from node_jax.odesolve import odesolve
from node_jax.save import SaveSteps
from node_jax.types import PyTree


def solver_error(field: Callable, z0: PyTree, options: dict[str, Any], capacity: int) -> jax.Array:
    """Return the sum of the error estimates of the first `capacity` steps, each times its size.

    Raises:
        ValueError: if the method has no error estimate.
    """
    method, theta = options["method"], options["theta"]
    if not method.has_error:
        raise ValueError(f"SolverError needs a method with an error estimate, got method={method!r}")
    solution = odesolve(field, z0, **{**options, "save": SaveSteps(capacity), "throw": False})
    # of a solve that failed at its start nothing is differentiated: there the field may have no derivative
    began = solution.count > 0
    arrays, rest = eqx.partition((jax.tree.map(jnp.asarray, z0), field, theta), eqx.is_inexact_array)
    arrays = jax.tree.map(lambda x: jnp.where(began, x, lax.stop_gradient(x)), arrays)
    z0, field, theta = eqx.combine(arrays, rest)
    t0 = jnp.asarray(options["t0"], solution.ts.dtype)
    taken = jnp.arange(capacity) < solution.count

    def started(first, rows):
        """Return the values at the start of each step, those at `t0` where there is none."""
        rows = jnp.concatenate([first[None], rows[:-1]])
        return tree.where_rows(taken, rows, jnp.broadcast_to(first, rows.shape))

    def error(t, z, h):
        step = method.step(field, t, z, h, theta, method.start(field, t, z, theta))
        size = sum(x.size for x in jax.tree.leaves(z))
        mean = (square(step.error[0]) / size).astype(h.dtype)
        return jnp.abs(h) * jnp.where(mean > 0, jnp.sqrt(jnp.where(mean > 0, mean, 1.0)), 0.0)

    t = started(t0, solution.ts)
    h = jnp.where(taken, solution.ts - t, 0.0)
    errors = jax.vmap(error)(t, jax.tree.map(started, z0, solution.zs), h)
    return jnp.sum(jnp.where(taken, errors, 0.0))
