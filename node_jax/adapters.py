"""Functions with the signatures of other packages."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp

from node_jax.arguments import warn_of_time_first
from node_jax.arraylike import times_of
from node_jax.control import Adaptive
from node_jax.hints import refuses_by_name
from node_jax.odesolve import odesolve
from node_jax.save import SaveAt
from node_jax.types import PyTree, VectorField


class _Rearranged(eqx.Module):
    """A field with rearranged arguments; wrappers of the same function are equal and share a compilation."""

    f: Any
    arrange: Any = eqx.field(static=True)

    def __call__(self, z: PyTree, t: Any, theta: PyTree = None) -> PyTree:
        return self.arrange(self.f, z, t, theta)


def _time_state(f, z, t, theta):
    return f(t, z)


def _time_state_args(f, z, t, theta):
    return f(t, z, theta)


def _starred(f, z, t, theta):
    return f(z, t, *theta)


def from_torchdiffeq(f: Any) -> VectorField:
    """Turn a field `f(t, z)` into one for `odesolve`.

    Args:
        f: function or module of time and state.

    Returns:
        `f(z, t, theta)`, which ignores `theta`.

    Example:
        >>> import node_jax as nj
        >>> def decay(t, z):
        ...     return -z
        >>> bool(nj.odesolve(nj.from_torchdiffeq(decay), 1.0, 0.0, 1.0).ok)
        True
    """
    return _Rearranged(f, _time_state)


def from_diffrax(f: Any) -> VectorField:
    """Turn a field `f(t, z, args)` into one for `odesolve`.

    Args:
        f: function or module of time, state and arguments.

    Returns:
        `f(z, t, theta)`, which passes `theta` as `args`.

    Example:
        >>> import node_jax as nj
        >>> def decay(t, z, rate):
        ...     return -rate * z
        >>> bool(nj.odesolve(nj.from_diffrax(decay), 1.0, 0.0, 1.0, 2.0).ok)
        True
    """
    return _Rearranged(f, _time_state_args)


@refuses_by_name(odesolve)
def odeint(f: Any, z0: PyTree, ts: Any, *args: PyTree, rtol: Any = 1e-6, atol: Any = 1e-8, **options: Any) -> PyTree:
    """Solve with the signature of `jax.experimental.ode.odeint`.

    Args:
        f: field `f(z, t, *args)`.
        z0: initial state at `ts[0]`.
        ts: times, array or list `(n,)`, `n >= 1`, monotonic, in units of `t`.
        *args: further arguments of `f`.
        rtol: relative tolerance.
        atol: absolute tolerance, in units of `z`.
        **options: further options of `odesolve`.

    Returns:
        Pytree like `z0` with a leading axis `n`.

    Raises:
        SolveError, ValueError, TypeError: as `odesolve`.

    Example:
        >>> import jax.numpy as jnp
        >>> import node_jax as nj
        >>> def decay(z, t, rate):
        ...     return -rate * z
        >>> nj.odeint(decay, jnp.ones(3), jnp.linspace(0.0, 1.0, 5), 2.0).shape
        (5, 3)
    """
    ts = times_of("ts", ts)
    if jnp.ndim(ts) != 1 or jnp.shape(ts)[0] == 0:
        raise ValueError(f"ts must have shape (n,) with n >= 1, got shape {jnp.shape(ts)}")
    warn_of_time_first(f, "f(z, t, *args)")
    field = _Rearranged(f, _starred)
    steps = options.pop("steps", Adaptive(rtol=rtol, atol=atol))
    return odesolve(field, z0, ts[0], ts[-1], args, steps=steps, save=SaveAt(ts), **options).zs
