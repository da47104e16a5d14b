"""The pullback of one recorded transition."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from node_jax import marks, tree
from node_jax.adjoints.parts.transition import Retraced, Start, retrace
from node_jax.compat import SHARES
from node_jax.engine.each import Each
from node_jax.engine.lane import Inputs, Problem
from node_jax.types import PyTree

# Up to so many components of state and parameters of each of several lanes, the field is pulled back by its Jacobian,
# found in forward mode, which is faster than `jax.vjp` (docs/performance.md, Fusion).
SMALL = 4

Pullback = Callable[[Start], tuple[Retraced, Callable[[Retraced], tuple[list, PyTree]]]]


def pullback_of_steps(each: Each, step: Callable[..., Any] = retrace) -> Pullback:
    """Return `start -> (step, pull)`; `pull` maps cotangents to those of the moving leaves and of the state."""
    if each.lanes and _is_small(each):
        each = each.replace(problem=_with_jacobian(each))

    def taken(inputs, z, start: Start):
        return step(each.problem, inputs, start._replace(z=z))

    return lambda start: each.vjp(taken, start.z, start)


def _with_jacobian(each: Each) -> Problem:
    """Return the problem with a field that is pulled back by its Jacobian, computed column by column."""
    problem, inputs = each.problem, each.inputs
    moving = _moving_theta(each)
    timed = _moves_in_time(problem, inputs)

    def field(z, t, theta):
        point = (z, tree.picked(theta, moving), t if timed else ())
        unravel = ravel_pytree(tree.full_like(point, 0.0))[1]

        # `t` and `theta` are arguments: since 0.12 JAX may lose batched values that a `custom_vjp` closes over
        def at(flat, t, theta):
            z, some, time = unravel(flat)
            return problem.field(z, time if timed else t, tree.replaced(theta, moving, some))

        @jax.custom_vjp
        def slope(point, t, theta):
            return at(ravel_pytree(point)[0], t, theta)

        def forth(point, t, theta):
            flat = ravel_pytree((marks.once(point[0]), *point[1:]))[0]
            value, push = jax.linearize(lambda flat: at(flat, t, theta), flat)
            return value, [push(e) for e in jnp.eye(flat.size, dtype=flat.dtype)]

        def back(columns, bar):
            # element by element instead of by a reduction (docs/performance.md, Vectorisation)
            return (unravel(jnp.stack([_dot(column, bar) for column in columns])), None, None)

        slope.defvjp(forth, back, **SHARES)
        return slope(point, t, theta)

    return problem._replace(field=field)


def _moves_in_time(problem: Problem, inputs: Inputs) -> bool:
    """Whether the field is evaluated at times that move in a derivative."""
    return problem.timed and (inputs.steps.exact_times or problem.crosses)


def _dot(a: PyTree, b: PyTree) -> jax.Array:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return functools.reduce(jnp.add, (x[i] * y[i] for x, y in pairs for i in np.ndindex(x.shape)))


def _is_small(each: Each) -> bool:
    """Whether a lane has few components, all real and of one dtype, and forward mode applies to the field."""
    timed = _moves_in_time(each.problem, each.inputs)

    def moved(inputs, _):
        return (tree.picked(jax.tree.leaves(inputs), each.moving), inputs.z0), inputs.t0 if timed else ()

    counted, t0 = jax.eval_shape(each(moved))
    size = sum(math.prod(x.shape[: x.ndim - len(each.lanes)]) for x in jax.tree.leaves(counted))
    dtypes = {x.dtype for x in jax.tree.leaves((counted, t0))}
    real = len(dtypes) == 1 and jnp.issubdtype(dtypes.pop(), jnp.floating)
    return 0 < size <= SMALL and real and _pushes(each)


def _pushes(each: Each) -> bool:
    """Whether the field has a derivative in forward mode, under `vmap` too, where some functions are refused."""
    problem, moving = each.problem, _moving_theta(each)
    timed = _moves_in_time(problem, each.inputs)

    def pushed(inputs, _):
        def at(z, some, time):
            return problem.field(z, time if timed else inputs.t0, tree.replaced(inputs.theta, moving, some))

        point = (inputs.z0, tree.picked(inputs.theta, moving), inputs.t0 if timed else ())
        return jax.vmap(lambda push: jax.jvp(at, point, push))(jax.tree.map(lambda x: x[None], point))

    try:
        jax.eval_shape(each(pushed))
    except TypeError:  # a custom_vjp
        return False
    return True


def _moving_theta(each: Each) -> list[bool]:
    """Say which leaves of the parameters move."""
    return each.problem.unflatten(each.moving).theta
