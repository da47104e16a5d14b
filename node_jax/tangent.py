"""A field extended by its variational equation, so that error control also covers derivatives."""

from typing import Any

import equinox as eqx
import jax

from node_jax.arguments import slope_of
from node_jax.types import PyTree, VectorField


class _WithTangent(eqx.Module):
    """The field of a state and a tangent; wrappers of the same function are equal and share a compilation."""

    f: Any

    def __call__(self, zv: tuple[PyTree, PyTree], t: jax.Array, theta: PyTree) -> tuple[PyTree, PyTree]:
        z, v = zv
        return jax.jvp(lambda z: slope_of(self.f, z, t, theta), (z,), (v,))


def with_tangent(f: VectorField) -> VectorField:
    """Return the field of a state `z` and a tangent `v`: `dz/dt = f(z, t, theta)` and `dv/dt = (df/dz) v`.

    The error control of a solve sees the state only. Where the state hardly moves, as at an equilibrium, its error
    estimate carries no information about derivatives of the solution (`sol.stats.unseen` counts such steps), and the
    exact gradient of the steps can be far from that of the flow. In a solve of this field the error of the tangent is
    controlled too. A step costs about twice as much, and the tangent may need more steps.

    Args:
        f: vector field `f(z, t, theta)`.

    Returns:
        A field for the state `(z, v)`, with `v` a pytree like `z`. Start from a tangent without special direction,
        about as large as a change of `z0` that matters.

    Example:
        >>> import jax, jax.numpy as jnp, node_jax as nj
        >>> def pendulum(z, t, g):
        ...     return jnp.stack([z[1], -g * jnp.sin(z[0])])
        >>> def end(z0):  # hanging at rest
        ...     field = nj.with_tangent(pendulum)
        ...     return nj.odesolve(field, (z0, jnp.array([0.7, 0.4])), 0.0, 3.0, 1.0).z1[0][0]
        >>> bool(abs(jax.grad(end)(jnp.zeros(2))[0] - jnp.cos(3.0)) < 1e-5)
        True
    """
    return _WithTangent(f)
