"""Algebra on pytrees, leaf by leaf."""

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from node_jax import marks
from node_jax.checks import promoting, trusting
from node_jax.types import PyTree

add: Callable[[PyTree, PyTree], PyTree] = functools.partial(jax.tree.map, jnp.add)
subtract: Callable[[PyTree, PyTree], PyTree] = functools.partial(jax.tree.map, jnp.subtract)


def real_dtype(*trees: PyTree) -> jnp.dtype:
    """Return the real dtype for times and norms of `trees`: that of the widest leaf, at least float32."""
    return jnp.finfo(functools.reduce(promoted, map(jnp.result_type, jax.tree.leaves(trees)), jnp.float32)).dtype


def promoted(a: Any, b: Any) -> jnp.dtype:
    """Return the wider of two dtypes."""
    return _promoted(a, b, jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]


@functools.lru_cache(maxsize=256)
def _promoted(a: Any, b: Any, x64: bool) -> jnp.dtype:
    with promoting():
        return jnp.promote_types(a, b)


def single(x: Any) -> jax.Array:
    """Return an array in a dtype of at least 32 bits; squares would soon overflow in 16."""
    return lax.convert_element_type(x, promoted(x.dtype, jnp.float32))


def combine(z: PyTree, h: jax.Array, weights: Sequence, slopes: Sequence[PyTree]) -> PyTree:
    """Return `z + h * sum(weights[i] * slopes[i])`; weights that are the number zero are left out.

    It is written in `lax`, as `jnp` would take longer to trace (docs/performance.md, Calls).
    """
    terms = [(w, k) for w, k in zip(weights, slopes, strict=False) if not (isinstance(w, float) and w == 0.0)]
    if not terms:
        return z
    used, kept = zip(*terms, strict=True)

    def leaf(x, *ks):
        dtype = promoted(x.dtype, jnp.float32)  # sums in 16 bits would lose most of their digits
        start, size = single(x), _scalar(h, dtype)
        terms = [lax.mul(_scalar(w, dtype), single(k)) for w, k in zip(used, ks, strict=True)]
        moved = lax.mul(marks.spread(size, shape=x.shape), functools.reduce(lax.add, terms))
        return lax.convert_element_type(lax.add(start, moved), x.dtype)

    return jax.tree.map(leaf, z, *kept)


def _scalar(w, dtype):
    return dtype.type(w) if isinstance(w, float) else lax.convert_element_type(w, dtype)


def scale(h: jax.Array, weights: Sequence, slopes: Sequence[PyTree]) -> PyTree:
    """Return `h * sum(weights[i] * slopes[i])`."""
    return combine(jax.tree.map(jnp.zeros_like, slopes[0]), h, weights, slopes)


def scaled(factor: float, a: PyTree) -> PyTree:
    """Return `factor * a`."""
    return jax.tree.map(lambda x: factor * x, a)


def mix(weight: float, a: PyTree, b: PyTree) -> PyTree:
    """Return `a + weight * (b - a)`."""
    return jax.tree.map(lambda x, y: x + weight * (y - x), a, b)


def moduli(a: PyTree, b: PyTree) -> PyTree:
    """Return `|a| + |b|`, element by element."""
    return jax.tree.map(lambda x, y: jnp.abs(x) + jnp.abs(y), a, b)


def where(condition: jax.Array, a: PyTree, b: PyTree) -> PyTree:
    """Select `a` or `b` by a condition whose axes are the last axes of every leaf."""

    def leaf(x, y):
        if condition.ndim:
            return jnp.where(jnp.expand_dims(condition, range(x.ndim - condition.ndim)), x, y)
        return lax.select(condition, x, y)

    return jax.tree.map(leaf, a, b)


def where_rows(condition: jax.Array, a: PyTree, b: PyTree) -> PyTree:
    """Select `a` or `b` by a condition whose axes are the leading axes of every leaf."""
    return jax.tree.map(lambda x, y: jnp.where(jnp.expand_dims(condition, range(condition.ndim, x.ndim)), x, y), a, b)


def full_like(tree: PyTree, value: float) -> PyTree:
    """Return `tree` with every element replaced by `value`."""
    with contextlib.nullcontext() if math.isfinite(value) else trusting():
        return jax.tree.map(lambda x: jnp.full_like(x, value), tree)


def all_finite(tree: PyTree) -> jax.Array:
    """Whether every element of every leaf is finite; scalar bool."""
    return jax.tree.reduce(jnp.logical_and, jax.tree.map(lambda x: jnp.all(jnp.isfinite(x)), tree), jnp.array(True))


def dot(a: PyTree, b: PyTree, dtype: jnp.dtype) -> jax.Array:
    """Return the real part of `sum(a * b)`, without conjugation; a scalar of `dtype`."""
    terms = jax.tree.map(lambda x, y: jnp.sum((x * y).real).astype(dtype), a, b)
    return jax.tree.reduce(jnp.add, terms, jnp.zeros((), dtype))


def excess(a: PyTree, b: PyTree) -> jax.Array:
    """Return the sum of `|a|**2 - |b|**2` over all elements, in one reduction."""
    dtype = real_dtype(a)

    def leaf(x, y):
        x, y = single(x), single(y)
        return jnp.sum((x * jnp.conj(x) - y * jnp.conj(y)).real).astype(dtype)

    return jax.tree.reduce(jnp.add, jax.tree.map(leaf, a, b), jnp.zeros((), dtype))


def spread(prefix: PyTree, tree: PyTree) -> PyTree:
    """Repeat each leaf of `prefix` over the subtree of `tree` in its place."""
    return jax.tree.map(lambda p, sub: jax.tree.map(lambda _: p, sub), prefix, tree)


def entry(tree: PyTree, i: jax.Array | int) -> PyTree:
    """Return entry `i` of the leading axis of every leaf."""
    return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, i, 0, keepdims=False), tree)


def put(buffer: PyTree, value: PyTree, i: jax.Array) -> PyTree:
    """Write `value` at entry `i` of the leading axis of every leaf of `buffer`."""
    return jax.tree.map(lambda b, v: lax.dynamic_update_index_in_dim(b, v.astype(b.dtype), i, 0), buffer, value)


def buffer(like: PyTree, n: int, value: float = 0.0) -> PyTree:
    """Return `n` rows of `value`, each shaped like `like`."""
    return jax.tree.map(lambda x: jnp.full((n, *x.shape), value, x.dtype), like)


def picked(leaves: Sequence, chosen: Sequence[bool]) -> list:
    """Return the entries for which `chosen` is true."""
    return [x for x, yes in zip(leaves, chosen, strict=True) if yes]


def replaced(leaves: Sequence, chosen: Sequence[bool], some: Sequence) -> list:
    """Return `leaves` with `some` in the place of the entries for which `chosen` is true."""
    new = iter(some)
    return [next(new) if yes else x for x, yes in zip(leaves, chosen, strict=True)]


def divide(a: PyTree, b: PyTree) -> PyTree:
    """Return `a / b` in the wider dtype of both."""
    return jax.tree.map(_divided, a, b)


def _divided(x, y):
    dtype = promoted(x.dtype, y.dtype)
    return x.astype(dtype) / y.astype(dtype)
