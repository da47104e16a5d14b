"""An assertion about a gradient, by finite differences."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from node_jax import tree


def assert_gradient(
    fn: Callable[..., Any],
    *args: Any,
    rtol: float | None = None,
    directions: int = 3,
    step: float | None = None,
    seed: int = 0,
) -> None:
    """Check `jax.grad(fn)` against Richardson's central differences along random directions.

    Inside `fn` solve with `Fixed` or `Grid`, or with tolerances far below `rtol`: the steps that `Adaptive` takes
    differ between neighbouring points, which the differences include and the gradient does not.

    Args:
        fn: function of `args` with a real scalar result.
        *args: pytrees of arrays; all their real and complex floating leaves are checked together.
        rtol: allowed error relative to the norm of the gradient; default: `eps ** 0.4`, 6e-7 in float64
            and 2e-3 in float32.
        directions: number of directions, with random signs for every entry.
        step: step of the differences, relative to `max(1, |x|)`; default: `eps ** 0.2`.
        seed: seed of the directions.

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
