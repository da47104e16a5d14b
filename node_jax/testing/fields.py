"""Fields for tests, and an assertion about a field of your own."""

from typing import Any

import jax
import jax.numpy as jnp

from node_jax import tree
from node_jax.types import PyTree, VectorField


def decay(z: Any, t: Any, theta: Any) -> jax.Array:
    """Return `-theta z`: the field with the solution `z0 exp(-theta (t - t0))`.

    Args:
        z: state, an array.
        t: time, scalar; not used.
        theta: rate in units of `1 / t`, scalar or shaped like `z`.

    Returns:
        Array like `z`.

    Example:
        >>> float(decay(2.0, 0.0, 1.5))
        -3.0
    """
    return jnp.asarray(-theta * z)


def lotka_volterra(z: Any, t: Any, theta: Any) -> jax.Array:
    """Return the growth of prey `x` and predators `y`: `(a x - b x y, d x y - c y)`.

    Args:
        z: state `(2,)`: prey, predators.
        t: time, scalar; not used.
        theta: `(a, b, c, d)`: four rates in units of `1 / t`, an array `(4,)` or a tuple of scalars.

    Returns:
        Array `(2,)`.

    Example:
        >>> import jax.numpy as jnp
        >>> lotka_volterra(jnp.array([1.0, 2.0]), 0.0, (1.5, 1.0, 3.0, 1.0)).tolist()
        [-0.5, -4.0]
    """
    a, b, c, d = theta
    x, y = z
    return jnp.stack([a * x - b * x * y, d * x * y - c * y])


def assert_field(f: VectorField, z0: PyTree, t0: Any = 0.0, theta: PyTree = None) -> None:
    """Check that `f(z0, t0, theta)` has the structure, shapes and dtypes of `z0`, and is finite.

    Args:
        f: vector field `f(z, t, theta)`.
        z0: state: pytree of real or complex floating arrays.
        t0: time, scalar; passed with the dtype that a solve would use.
        theta: parameters: any pytree.

    Raises:
        AssertionError: naming each leaf that differs.

    Example:
        >>> import jax.numpy as jnp
        >>> assert_field(decay, jnp.ones(3), 0.0, 1.0)
        >>> assert_field(lambda z, t, theta: z[:2], jnp.ones(3))
        Traceback (most recent call last):
        AssertionError: f must return a pytree like z: leaf z has shape (3,), that of the slope is (2,)
    """
    z0 = jax.tree.map(jnp.asarray, z0)
    t0 = jnp.asarray(t0, tree.real_dtype(z0))
    slope = jax.tree.map(jnp.asarray, f(z0, t0, theta))
    want, got = jax.tree.structure(z0), jax.tree.structure(slope)
    must = "f must return a pytree like z"
    if want != got:
        raise AssertionError(f"{must}: z has the structure {want}, the slope {got}")
    for (path, x), k in zip(jax.tree_util.tree_leaves_with_path(z0), jax.tree.leaves(slope), strict=True):
        name = f"leaf z{jax.tree_util.keystr(path)}"
        if x.shape != k.shape:
            raise AssertionError(f"{must}: {name} has shape {x.shape}, that of the slope is {k.shape}")
        if x.dtype != k.dtype:
            raise AssertionError(f"{must}: {name} has dtype {x.dtype}, that of the slope is {k.dtype}")
        bad = int(jnp.sum(~jnp.isfinite(k)))
        if bad:
            raise AssertionError(f"{name}: {bad} of {k.size} entries of the slope are not finite at t={t0}")
