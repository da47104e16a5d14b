"""Assertions about parts of your own: in a solve, mapped, differentiated, and compiled once."""

import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp

from node_jax.adjoints.checkpointed import Checkpointed
from node_jax.adjoints.direct import Direct
from node_jax.adjoints.forward import Forward
from node_jax.arguments import missing
from node_jax.control import Fixed
from node_jax.methods.polynomial import horner
from node_jax.odesolve import odesolve
from node_jax.protocols import Adjoint, Method, Save, Steps
from node_jax.types import PyTree

LANES = 3


def assert_method(method: Any, rtol: float | None = None) -> None:
    """Check a method of your own: what its members return, its dense output, batches, gradients and compilations.

    Check its order of convergence by `assert_method_order`.

    Args:
        method: the argument of `odesolve(method=...)`.
        rtol: tolerance for numbers that are equal up to rounding; default: `eps ** 0.6`.

    Raises:
        AssertionError: with what does not hold.

    Example:
        >>> import node_jax as nj
        >>> assert_method(nj.tsit5)
    """
    _has_members("method", method, Method)
    hash(method)
    close = _closeness(rtol)
    z, t, h, theta = jnp.array([1.2, 0.3]), jnp.zeros(()), jnp.full((), 0.1), jnp.full((), 0.7)
    step = method.step(_turning, t, z, h, theta, method.start(_turning, t, z, theta))
    for value in (step.z1, *step.error, *step.dense):
        chex.assert_trees_all_equal_shapes_and_dtypes(value, z)
    if len(step.dense) != method.dense_size:
        raise AssertionError(f"dense_size is {method.dense_size}, but a step holds {len(step.dense)} states in dense")
    still = method.step(_turning, t, z, 0 * h, theta, method.start(_turning, t, z, theta)).z1
    close(still, z, "a step of size 0 ends where it starts")
    z1, dense = method.replay(_turning, t, z, h, theta, method.degree > 0)
    close(z1, step.z1, "replay ends where step does")
    after = method.step(_turning, t + h, step.z1, h, theta, step.memory).z1
    close(method.replay(_turning, t + h, step.z1, h, theta, False)[0], after, "a second step does not depend on memory")
    if method.degree:
        q = method.polynomial(z, h, dense)
        if len(q) != method.degree + 1:
            raise AssertionError(f"polynomial returns {len(q)} states, degree + 1 is {method.degree + 1}")
        for x, end in ((0.0, z), (1.0, z1)):
            close(method.at(z, h, dense, jnp.full_like(h, x)), end, f"dense output at {x:.0f} is an end of the step")
        half = jnp.full_like(h, 0.5)
        close(method.at(z, h, dense, half), horner(q, half), "at and polynomial agree")
    _assert_part(close, method=method, steps=Fixed(4))


def assert_steps(steps: Any, rtol: float | None = None) -> None:
    """Check a policy of steps of your own in a solve: alone, mapped, differentiated, and compiled once.

    Args:
        steps: the argument of `odesolve(steps=...)`; `t` runs from 0 to 1.
        rtol: as in `assert_method`.

    Raises:
        AssertionError: with what does not hold.

    Example:
        >>> import node_jax as nj
        >>> assert_steps(nj.Fixed(4))
    """
    _has_members("steps", steps, Steps)
    _assert_part(_closeness(rtol), steps=steps)


def assert_save(save: Any, rtol: float | None = None) -> None:
    """Check a save of your own in a solve: alone, mapped, differentiated through its rows, and compiled once.

    Args:
        save: the argument of `odesolve(save=...)`; `t` runs from 0 to 1, the state has shape `(2,)`.
        rtol: as in `assert_method`.

    Raises:
        AssertionError: with what does not hold.

    Example:
        >>> import node_jax as nj
        >>> assert_save(nj.SaveSteps(8))
    """
    _has_members("save", save, Save)
    _assert_part(_closeness(rtol), save=save, steps=Fixed(4))


def assert_adjoint(adjoint: Any, rtol: float | None = None) -> None:
    """Check an adjoint of your own: its gradient, alone and mapped, against that of `Checkpointed`.

    Args:
        adjoint: the argument of `odesolve(adjoint=...)`.
        rtol: tolerance for the gradients; default: `eps ** 0.6`, for an exact gradient of the steps.

    Raises:
        AssertionError: with what does not hold.

    Example:
        >>> import node_jax as nj
        >>> assert_adjoint(nj.Direct())
    """
    _has_members("adjoint", adjoint, Adjoint)
    close, z0, rates = _closeness(rtol), jnp.array([1.2, 0.3]), jnp.linspace(0.5, 1.0, LANES)
    exact, found = (functools.partial(_value, z0, steps=Fixed(4), adjoint=x) for x in (Checkpointed(), adjoint))
    close(jax.grad(found)(rates[0]), jax.grad(exact)(rates[0]), "the gradient is that of Checkpointed")
    mapped = jax.vmap(jax.grad(found))(rates)
    close(mapped, jax.vmap(jax.grad(exact))(rates), "mapped gradients are those of Checkpointed")


def _turning(z: jax.Array, t: jax.Array, theta: jax.Array) -> jax.Array:
    return theta * (1.0 + t) * jnp.stack([-z[1] * z[0], z[0] - z[1]])


def _value(z0: PyTree, rate: jax.Array, **options: Any) -> jax.Array:
    """Return a number that depends on every output of a solve."""
    sol = odesolve(_turning, z0, 0.0, 1.0, rate, max_steps=256, **options)
    found = [x for x in jax.tree.leaves((sol.z1, sol.zs, sol.interpolant)) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return sum((jnp.sum(jnp.where(jnp.isfinite(x), x, 0.0)) for x in found), jnp.zeros(()))


def _assert_part(close: Callable[..., Any], **options: Any) -> None:
    """Check that mapped solves equal single ones, that three strategies agree, and that there is no second trace."""
    z0, rates = jnp.array([1.2, 0.3]), jnp.linspace(0.5, 1.0, LANES)
    value = functools.partial(_value, z0, **options)

    def traced(rate: jax.Array) -> jax.Array:
        return value(rate)

    chex.clear_trace_counter()
    alone = jax.jit(chex.assert_max_traces(traced, n=1))
    each = jnp.stack([alone(rate) for rate in rates])
    close(jax.vmap(value)(rates), each, "a mapped solve is the solve of each lane")
    either = functools.partial(_value, **options)
    reverse = jax.grad(either, (0, 1))(z0, rates[0])
    for adjoint in (Direct(), Forward()):
        other = jax.jacfwd(functools.partial(either, adjoint=adjoint), (0, 1))(z0, rates[0])
        close(other, reverse, f"derivatives by Checkpointed and {type(adjoint).__name__} agree")


def _has_members(name: str, part: Any, protocol: Any) -> None:
    lacking = missing(type(part), protocol)
    if lacking:
        raise AssertionError(f"{name}={part!r} lacks {', '.join(lacking)} of node_jax.protocols.{protocol.__name__}")


def _closeness(rtol: float | None) -> Callable[..., Any]:
    rtol = float(jnp.finfo(jnp.result_type(float)).eps) ** 0.6 if rtol is None else rtol

    def close(found: PyTree, expected: PyTree, what: str) -> None:
        chex.assert_trees_all_close(found, expected, rtol=rtol, atol=rtol, custom_message=f"{what}: it does not")

    return close
