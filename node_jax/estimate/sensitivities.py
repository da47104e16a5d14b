"""A solve together with its derivatives by the parameters, as one solve of a larger system.

`ds/dt = (df/dz) s + df/dtheta` is solved with the steps that the state alone chooses. An explicit Runge-Kutta step of
both is the derivative of the step of the state, so that this is the exact derivative of the steps taken. It is a
forward solve like any other, and goes through the queue of a batch.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax import tree
from node_jax.arguments import slope_of
from node_jax.control import Adaptive
from node_jax.estimate.parameters import Parameters
from node_jax.odesolve import odesolve
from node_jax.save import SaveAt
from node_jax.types import PyTree


class _Sensitivities(eqx.Module):
    """The field of the state and its derivatives, which have an axis of parameters in front."""

    f: Any
    parameters: Parameters

    def __call__(self, both: tuple[PyTree, PyTree], t: jax.Array, args: tuple[list, list]) -> tuple[PyTree, PyTree]:
        (z, s), (values, directions) = both, args

        def slope(z, values):
            return slope_of(self.f, z, t, self.parameters.combine(values)[0])

        return _pushed(slope, (z, values), (s, directions))


@dataclasses.dataclass(frozen=True)
class _OfState:
    """The part of state and derivatives that chooses the steps."""

    controlled: Callable | None

    def __call__(self, both: tuple[PyTree, PyTree]) -> PyTree:
        return both[0] if self.controlled is None else self.controlled(both[0])


def _pushed(fn: Callable, args: tuple, tangents: tuple) -> tuple[PyTree, PyTree]:
    """Return `fn(*args)` and its derivatives along tangents with an axis in front."""
    value, along = jax.linearize(fn, *args)
    return value, jax.vmap(along)(*tangents)


def predicted(
    f: Any, observe: Callable, parameters: Parameters, x: jax.Array, t0: Any, ts: jax.Array, **options: Any
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Solve, and return what is observed and its derivatives.

    Args:
        f: vector field.
        observe: `observe(z, theta)`, an array of any shape.
        parameters: what is fitted.
        x: its vector `(p,)`.
        t0: initial time.
        ts: times to observe at, `(n,)`.
        **options: `method`, `steps` and `max_steps` of the solve.

    Returns:
        Observed `(n, *shape)`, derivatives `(n, p, *shape)`, whether the solve succeeded, and whether the state is
        below the absolute tolerance at all times, so that its error was not controlled.
    """
    values, directions = parameters.values(x), parameters.directions(x)
    both = _pushed(lambda values: parameters.combine(values)[1], (values,), (directions,))
    steps = options["steps"]
    if isinstance(steps, Adaptive):
        options["steps"] = dataclasses.replace(steps, controlled=_OfState(steps.controlled))
    field, args = _Sensitivities(f, parameters), (values, directions)
    sol = odesolve(field, both, t0, ts[-1], args, save=SaveAt(ts), throw=False, **options)

    def row(z, s):
        def seen(z, values):
            return observe(z, parameters.combine(values)[0])

        return _pushed(seen, (z, values), (s, directions))

    return *jax.vmap(row)(*sol.zs), sol.ok, _is_small(steps, both[0], sol.zs[0])


def _is_small(steps: Any, z0: PyTree, zs: PyTree) -> jax.Array:
    """Whether a state that moves is below the absolute tolerance in all rows."""
    if not isinstance(steps, Adaptive):
        return jnp.zeros((), bool)
    z0, zs = steps.part(z0), jax.vmap(steps.part)(zs)
    sizes = jax.tree.map(lambda x, rows: jnp.maximum(jnp.abs(x), jnp.max(jnp.abs(rows), axis=0)), z0, zs)
    below = jax.tree.map(lambda size, atol: jnp.all(size <= atol), sizes, tree.spread(steps.atol, z0))
    moves = jax.tree.map(lambda x, rows: jnp.any(rows != x[None]), z0, zs)
    return jnp.all(jnp.stack(jax.tree.leaves(below))) & jnp.any(jnp.stack(jax.tree.leaves(moves)))
