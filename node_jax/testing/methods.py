"""Assertions about order of convergence and interval of stability of a method."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from node_jax import tree
from node_jax.protocols import Method


def assert_method_order(method: Method, order: int | None = None, tolerance: float = 0.35) -> None:
    """Check that the error of equal steps shrinks with the order of the method.

    The problem is `z' = i w(t) |z|**2 z` in the plane, which is nonlinear and depends on time. Errors near rounding,
    or too large to be asymptotic, are left out. In float32 enough remain for orders up to 4; beyond, enable 64 bits.

    Args:
        method: record with `start`, `step` and `order`, such as `node_jax.tsit5`.
        order: expected order; default: `method.order`.
        tolerance: largest difference between the observed and the expected order.

    Raises:
        AssertionError: with the errors and the observed order.

    Example:
        >>> import node_jax as nj
        >>> assert_method_order(nj.heun)
        >>> assert_method_order(nj.heun, order=3)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        AssertionError: heun: expected order 3, observed 2.0...
    """
    order = method.order if order is None else order
    counts = np.array([4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128])
    errors = np.array([float(_error_at_one(method, n)) for n in counts])
    eps = float(jnp.finfo(jnp.result_type(float)).eps)
    kept = np.flatnonzero((errors > 100 * eps) & (errors < 0.1))[-4:]
    if len(kept) < 2:
        raise AssertionError(f"{method}: no order to be seen in errors {errors.tolist()} of {counts.tolist()} steps")
    observed = -np.polyfit(np.log(counts[kept]), np.log(errors[kept]), 1)[0]
    if not abs(observed - order) <= tolerance:
        pairs = dict(zip(counts[kept].tolist(), errors[kept].tolist(), strict=True))
        raise AssertionError(f"{method}: expected order {order}, observed {observed:.2f} (errors by steps: {pairs})")


def _whirl(z, t, theta):
    return (1.0 + jnp.sin(3.0 * t)) * theta * (z @ z) * jnp.stack([-z[1], z[0]])


def _whirl_exact(t):
    angle = 0.3 + 1.44 * (t + (1.0 - jnp.cos(3.0 * t)) / 3.0)
    return 1.2 * jnp.stack([jnp.cos(angle), jnp.sin(angle)])


@functools.partial(jax.jit, static_argnums=0)
def _error_at_one(method, n):
    theta = jnp.ones(())
    h = 1.0 / n.astype(theta.dtype)

    def body(k, carry):
        z, memory = carry
        step = method.step(_whirl, k.astype(h.dtype) * h, z, h, theta, memory)
        return step.z1, step.memory

    z0, t0 = _whirl_exact(jnp.zeros(())), jnp.zeros(())
    z, _ = jax.lax.fori_loop(0, n, body, (z0, method.start(_whirl, t0, z0, theta)))
    return jnp.max(jnp.abs(z - _whirl_exact(jnp.ones(()))))


def stability_function(method: Method, x: Any) -> jax.Array:
    """Return the stability function `R(x)`: a step of size 1 multiplies the solution of `z' = x z` by it.

    Args:
        method: record with `start` and `step`.
        x: real or complex array.

    Returns:
        Array like `x`.

    Example:
        >>> import node_jax as nj
        >>> float(stability_function(nj.heun, -1.0))  # 1 + x + x**2 / 2
        0.5
    """
    x = jnp.asarray(x)
    t, z = jnp.zeros((), tree.real_dtype(x)), jnp.ones_like(x)
    return method.step(_linear, t, z, jnp.ones_like(t), x, method.start(_linear, t, z, x)).z1


def _linear(z, t, theta):
    return theta * z


def stability_interval(method: Method, limit: float = 100.0) -> float:
    """Return the largest `x` such that `|R(-y)| <= 1` for all `y` in `[0, x]`: the real interval of stability.

    Equal steps `h` of `z' = -rate z` decay as long as `rate h` is below it.

    Args:
        method: record with `start` and `step`.
        limit: largest `x` to test.

    Returns:
        Python float, to about four digits; `limit` if the interval is longer.

    Example:
        >>> import node_jax as nj
        >>> round(stability_interval(nj.euler), 2)
        2.0
    """
    low, high = 0.0, limit
    for _ in range(2):
        x = np.linspace(low, high, 4001)
        bad = ~(np.abs(np.asarray(_stability(method, -x))) <= 1.0 + 1e-5)
        if not bad.any():
            return high
        first = int(np.argmax(bad))
        low, high = float(x[max(first - 1, 0)]), float(x[first])
    return low


@functools.partial(jax.jit, static_argnums=0)
def _stability(method, x):
    return stability_function(method, x)


def assert_stability_interval(method: Method, expected: float, tolerance: float = 0.01) -> None:
    """Check the interval of stability of a method on the negative real axis.

    Args:
        method: record with `start` and `step`.
        expected: end of the interval, positive.
        tolerance: largest absolute difference.

    Raises:
        AssertionError: with the interval that was found.

    Example:
        >>> import node_jax as nj
        >>> assert_stability_interval(nj.rk4, 2.785)
    """
    found = stability_interval(method, 10.0 * expected)
    if not abs(found - expected) <= tolerance:
        raise AssertionError(f"{method}: expected stability on [-{expected:g}, 0], found [-{found:.4g}, 0]")
