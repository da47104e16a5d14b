"""Jumps at known times: breakpoints, at which the field changes discontinuously.

Steps end at a breakpoint, and no step evaluates the field on both sides of it. The jump follows the step: the method
starts anew on the far side, and derivatives with respect to the time of the breakpoint enter there.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from node_jax import marks, tree
from node_jax.methods import rk4
from node_jax.types import Inputs, PyTree, VectorField


class Window(NamedTuple):
    """The smallest and largest time, between two breakpoints, at which a step may evaluate the field."""

    low: jax.Array
    high: jax.Array


def has_breakpoints(steps) -> bool:
    """Whether a step policy has breakpoints."""
    return steps.breakpoints is not None and steps.breakpoints.size > 0


def window(steps, t: jax.Array, sign: jax.Array) -> Window | None:
    """Return the window of a step from `t` in the direction `sign`, without `t` if it is a breakpoint; or None."""
    if not has_breakpoints(steps):
        return None
    breakpoints, t = lax.stop_gradient((steps.breakpoints, t))
    high = jnp.min(jnp.where(breakpoints > t, breakpoints, jnp.inf))
    low = jnp.max(jnp.where(breakpoints < t, breakpoints, -jnp.inf))
    here = jnp.any(breakpoints == t)
    return Window(
        next_to(jnp.where(here & (sign > 0), t, low), jnp.inf), next_to(jnp.where(here & (sign < 0), t, high), -jnp.inf)
    )


def next_to(t: jax.Array, towards: float) -> jax.Array:
    """Return the number next to `t`; next to 0, the smallest normal number, as smaller ones are flushed to 0."""
    tiny = float(jnp.finfo(t.dtype).tiny)
    return jnp.where(t == 0, tiny if towards > 0 else -tiny, jnp.nextafter(t, towards))


def within(field: VectorField, times: Window | None) -> VectorField:
    """Return the field with its time clipped to the window; the derivative in time stays that of the field."""
    if times is None:
        return field

    def inside(z, t, theta):
        nearest = jnp.clip(lax.stop_gradient(t), times.low, times.high)
        return field(z, nearest + (t - lax.stop_gradient(t)), theta)

    return inside


def visible(field: VectorField, inputs: Inputs, t: jax.Array, against: bool = False) -> VectorField:
    """Return the field for a step from `t`, or one `against` the direction of the solve, within its window."""
    if not has_breakpoints(inputs.steps):
        return field
    return within(field, window(inputs.steps, t, -inputs.sign if against else inputs.sign))


def cross(problem: Any, inputs: Inputs, node: jax.Array, h: jax.Array, z: PyTree) -> PyTree:
    """Return the state of one lane after a node, with its derivative in the time of a breakpoint that lies there.

    The value does not change. To reach the breakpoint `tau` from the node, which is a constant, a step of size zero is
    taken with the field before it, and one back with the field after it: `dL/dtau = a (f(z, tau-) - f(z, tau+))`.
    """
    field, points, sign = marks.stages_once(problem.field, problem.multiplies), inputs.steps.breakpoints, inputs.sign
    inside = ((points - inputs.t0) * sign > 0) & ((inputs.t1 - points) * sign > 0)
    near = jnp.abs(points - node) <= 8 * jnp.finfo(node.dtype).eps * jnp.maximum(jnp.abs(node), jnp.abs(h))
    ahead = (points - (node - h)) * sign  # of several near breakpoints, the step ended at the first
    here = inside & near & (h != 0) & (ahead > 0)
    first = points[jnp.argmin(jnp.where(here, ahead, jnp.inf))]
    moved = jnp.where(jnp.any(here), first, node)  # where none is here, `first` may be infinite
    fixed = lax.stop_gradient(moved)
    before, after = (visible(field, inputs, fixed, against) for against in (True, False))
    there = rk4.replay(before, fixed, z, moved - fixed, inputs.theta, False)[0]
    return tree.where(jnp.any(here), rk4.replay(after, moved, there, fixed - moved, inputs.theta, False)[0], z)
