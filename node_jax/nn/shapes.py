"""Checks of sizes and shapes that the modules share."""

from typing import Any

import jax
import jax.numpy as jnp


def check_sizes(least: int = 1, **sizes: Any) -> None:
    """Refuse a size that is not an integer of at least `least`, by its name."""
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")


def check_widths(widths: Any) -> None:
    """Refuse widths of hidden layers that are not a tuple or list of positive integers."""
    if not isinstance(widths, tuple | list):
        raise ValueError(f"widths must be a tuple of the units of each hidden layer, got {widths!r}")
    for i, width in enumerate(widths):
        check_sizes(**{f"widths[{i}]": width})


def shaped_state(name: str, z: Any, shape: tuple[int, ...]) -> jax.Array:
    """Return a state as an array, and refuse one of another shape."""
    if isinstance(z, list | tuple | dict):
        raise ValueError(f"{name} must be one array of shape {shape}, got a {type(z).__name__}")
    if (got := jnp.shape(z)) != shape:
        hint = "; use jax.vmap for a batch" if len(got) > len(shape) else ""
        raise ValueError(f"{name} must have shape {shape}, got {got}{hint}")
    return jnp.asarray(z)


def context(t: Any, theta: Any, condition_size: int, dtype: Any, timed: bool = True) -> list[jax.Array]:
    """Return what a field is given besides the state: the time `(1,)`, if `timed`, and the condition.

    Raises:
        ValueError: if `theta` is not an array `(condition_size,)` where a condition is expected.
    """
    parts = [jnp.reshape(jnp.asarray(t, dtype), (1,))] if timed else []
    if condition_size:
        if theta is None or jnp.shape(theta) != (condition_size,):
            got = "None" if theta is None else f"shape {jnp.shape(theta)}"
            raise ValueError(f"theta, the condition, must have shape ({condition_size},), got {got}")
        parts.append(jnp.asarray(theta, dtype))
    return parts
