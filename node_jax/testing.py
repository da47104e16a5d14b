"""Checks to run on a method, a field or a gradient of your own; the project runs them on itself.

Each raises `AssertionError` with the numbers that it found.
"""

import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from node_jax import tree
from node_jax.types import Method, PyTree, VectorField


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
    """Check that `f(z0, t0, theta)` is a slope of `z0`: the same structure, shapes and dtypes, and finite.

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


def assert_method_order(method: Method, order: int | None = None, tolerance: float = 0.35) -> None:
    """Check that the error of equal steps shrinks with the order of the method.

    The problem is `z' = i w(t) |z|**2 z` in the plane, nonlinear and with an explicit time. Errors near
    rounding or too large to be asymptotic are left out; float32 leaves enough of them for orders up to 4, above
    switch on `jax_enable_x64`.

    Args:
        method: record with `start`, `step` and `order`, such as `node_jax.tsit5`.
        order: expected order; default: that which the method claims.
        tolerance: how far the observed slope may be from it.

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
    """Return `R(x)`: one step of size 1 multiplies the solution of `z' = x z` by it.

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
    """Return the largest `x` such that `|R(-y)| <= 1` for all `y` in `[0, x]`: the reach of stability.

    Equal steps of `z' = -rate z` decay while `rate h` is below it.

    Args:
        method: record with `start` and `step`.
        limit: most to look at.

    Returns:
        Python float, to about four digits; `limit` if no end was found below.

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
    """Check how far the method is stable on the negative real axis.

    Args:
        method: record with `start` and `step`.
        expected: end of the interval, positive.
        tolerance: how far, absolutely, the end may be from it.

    Raises:
        AssertionError: with the interval that was found.

    Example:
        >>> import node_jax as nj
        >>> assert_stability_interval(nj.rk4, 2.785)
    """
    found = stability_interval(method, 10.0 * expected)
    if not abs(found - expected) <= tolerance:
        raise AssertionError(f"{method}: expected stability on [-{expected:g}, 0], found [-{found:.4g}, 0]")


def assert_gradient(
    fn: Callable,
    *args: Any,
    rtol: float | None = None,
    directions: int = 3,
    step: float | None = None,
    seed: int = 0,
) -> None:
    """Check `jax.grad(fn)` against Richardson's central differences along random directions.

    Solve with `Fixed` or `Grid` inside `fn`, or with tolerances far below `rtol`: the steps that `Adaptive`
    takes differ between neighbouring points, and differences see that.

    Args:
        fn: function of `args` with a real scalar result.
        *args: pytrees of arrays; all their real and complex floating leaves are checked together.
        rtol: allowed error relative to the norm of the gradient; default: `eps ** 0.4`, 6e-7 in float64
            and 2e-3 in float32.
        directions: number of directions, each of `+1` and `-1` for every entry.
        step: step of the differences, relative to `max(1, |x|)`; default: `eps ** 0.2`.
        seed: of the directions.

    Raises:
        AssertionError: with both derivatives; also if either is not finite.
        ValueError: if `args` have nothing to differentiate.

    Example:
        >>> import jax.numpy as jnp
        >>> assert_gradient(lambda x, y: jnp.sum(x**3) * y, jnp.arange(3.0), jnp.array(2.0))
    """
    args = jax.tree.map(jnp.asarray, args)
    leaves, structure = jax.tree.flatten(args)
    moving = [i for i, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.inexact)]
    if not moving:
        raise ValueError(f"args must have floating leaves to differentiate, got {args!r}")

    @jax.jit
    def value(parts):
        merged = list(leaves)
        for i, x in zip(moving, parts, strict=True):
            merged[i] = x
        return fn(*jax.tree.unflatten(structure, merged))

    parts = [leaves[i] for i in moving]
    dtype = tree.real_dtype(parts)
    eps = float(min(jnp.finfo(x.dtype).eps for x in parts)) if dtype == jnp.float64 else float(jnp.finfo(dtype).eps)
    h, bound = step or eps**0.2, rtol or eps**0.4
    gradient = jax.grad(value)(parts)
    chex.assert_trees_all_equal_shapes_and_dtypes(gradient, parts)
    norm = float(jnp.sqrt(sum(jnp.sum(jnp.abs(g) ** 2).astype(dtype) for g in gradient)))
    random = np.random.default_rng(seed)

    for _ in range(directions):
        signs = [jnp.asarray(random.choice([-1.0, 1.0], x.shape), x.dtype) for x in parts]
        along = [s * jnp.maximum(1.0, jnp.abs(x)).astype(x.dtype) for s, x in zip(signs, parts, strict=True)]
        expected = _richardson(value, parts, along, h)
        found = float(tree.dot(gradient, along, dtype))
        scale = max(norm, abs(expected))
        if not abs(found - expected) <= bound * scale:
            raise AssertionError(
                f"gradient: derivative along a direction is {found:.10g}, differences give {expected:.10g}; "
                f"relative to the gradient's norm {norm:.3g} they differ by "
                f"{abs(found - expected) / scale:.2g}, more than {bound:.2g}"
            )


def _richardson(value, parts, along, h: float) -> float:
    def central(h):
        ahead, behind = ([x + (s * h * v).astype(x.dtype) for x, v in zip(parts, along, strict=True)] for s in (1, -1))
        return (float(value(ahead)) - float(value(behind))) / (2 * h)

    return (4 * central(h / 2) - central(h)) / 3
