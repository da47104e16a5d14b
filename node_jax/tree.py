"""Pytree algebra: the only place with arithmetic inside `tree_map`."""

import contextlib
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from node_jax import marks
from node_jax.backends.cpu import tried
from node_jax.checks import promoting, trusting
from node_jax.types import PyTree


def real_dtype(*trees: PyTree) -> jnp.dtype:
    """Real dtype that holds times and norms of `trees`: that of the widest leaf, at least float32."""
    with promoting():
        return jnp.finfo(jnp.result_type(jnp.float32, *jax.tree.leaves(trees))).dtype


def promoted(a: Any, b: Any) -> jnp.dtype:
    """Return the wider of two dtypes."""
    return _promoted(a, b, jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]


@functools.lru_cache(maxsize=256)
def _promoted(a: Any, b: Any, x64: bool) -> jnp.dtype:
    with promoting():
        return jnp.promote_types(a, b)


def single(x: Any) -> jax.Array:
    """Return an array in a dtype of at least 32 bits, as squares of 16 bits overflow early."""
    return lax.convert_element_type(x, promoted(x.dtype, jnp.float32))


def combine(z: PyTree, h: jax.Array, weights: Sequence, slopes: Sequence[PyTree]) -> PyTree:
    """Return `z + h * sum(weights[i] * slopes[i])`, leaving out weights that are the number zero.

    In operations of `lax`: each of `jnp` is a function of its own to trace, and a step has a hundred of them here.
    """
    terms = [(w, k) for w, k in zip(weights, slopes, strict=False) if not (isinstance(w, float) and w == 0.0)]
    if not terms:
        return z
    used, kept = zip(*terms, strict=True)

    def leaf(x, *ks):
        dtype = promoted(x.dtype, jnp.float32)  # sums of 16 bits would lose most of the digits that there are
        start, size = single(x), _scalar(h, dtype)
        terms = [lax.mul(_scalar(w, dtype), single(k)) for w, k in zip(used, ks, strict=True)]
        moved = lax.mul(marks.spread(size, x.shape), functools.reduce(lax.add, terms))
        return lax.convert_element_type(lax.add(start, moved), x.dtype)

    return jax.tree.map(leaf, z, *kept)


def _scalar(w, dtype):
    return dtype.type(w) if isinstance(w, float) else lax.convert_element_type(w, dtype)


def scale(h: jax.Array, weights: Sequence, slopes: Sequence[PyTree]) -> PyTree:
    """Return `h * sum(weights[i] * slopes[i])`."""
    return combine(jax.tree.map(jnp.zeros_like, slopes[0]), h, weights, slopes)


def add(a: PyTree, b: PyTree) -> PyTree:
    """Return `a + b`."""
    return jax.tree.map(jnp.add, a, b)


def scaled(factor: float, a: PyTree) -> PyTree:
    """Return `factor * a`."""
    return jax.tree.map(lambda x: factor * x, a)


def subtract(a: PyTree, b: PyTree) -> PyTree:
    """Return `a - b`."""
    return jax.tree.map(jnp.subtract, a, b)


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
    """Return the sum of `|a|**2 - |b|**2`: one kernel where two norms would be two."""
    dtype = real_dtype(a)

    def leaf(x, y):
        x, y = single(x), single(y)
        return jnp.sum((x * jnp.conj(x) - y * jnp.conj(y)).real).astype(dtype)

    return jax.tree.reduce(jnp.add, jax.tree.map(leaf, a, b), jnp.zeros((), dtype))


def spread(prefix: PyTree, tree: PyTree) -> PyTree:
    """Repeat each leaf of `prefix` over the subtree of `tree` that it stands for."""
    return jax.tree.map(lambda p, sub: jax.tree.map(lambda _: p, sub), prefix, tree)


def row(tree: PyTree, i: jax.Array | int) -> PyTree:
    """Return entry `i` of the leading axis of every leaf."""
    return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, i, 0, keepdims=False), tree)


def put(buffer: PyTree, value: PyTree, i: jax.Array) -> PyTree:
    """Write `value` at entry `i` of the leading axis of every leaf of `buffer`."""
    return jax.tree.map(lambda b, v: lax.dynamic_update_index_in_dim(b, v.astype(b.dtype), i, 0), buffer, value)


def buffer(like: PyTree, n: int, value: float = 0.0) -> PyTree:
    """Return `n` rows of `value`, each shaped like `like`."""
    return jax.tree.map(lambda x: jnp.full((n, *x.shape), value, x.dtype), like)


def lift(fn, masks: Sequence[Sequence[bool]], lanes: Sequence[int]):
    """Map `fn(leaves, rest)` of one lane over every lane axis.

    Leaf `i` of `leaves` has at its end the axes that `masks[i]` names, `rest` and the result have all of them there,
    the outermost last. Nothing is repeated over an axis that it does not depend on, and the same component of all
    lanes is contiguous.
    """
    for k in reversed(range(len(lanes))):
        axes = [-1 if mask[k] else None for mask in masks]
        fn = jax.vmap(fn, in_axes=(axes, -1), out_axes=-1, axis_size=lanes[k])
    return fn


def take_lanes(x: jax.Array, i: jax.Array) -> jax.Array:
    """Return entries `i`, shape `(*kept, n)`, of the last axis of `x`, shape `(*shape, *kept, m)`."""
    return jnp.take_along_axis(x, i.reshape(*[1] * (x.ndim - i.ndim), *i.shape), axis=-1)


def picked(leaves: Sequence, chosen: Sequence[bool]) -> list:
    """Return the entries that are chosen."""
    return [x for x, yes in zip(leaves, chosen, strict=True) if yes]


def replaced(leaves: Sequence, chosen: Sequence[bool], some: Sequence) -> list:
    """Put `some` in the place of the entries that are chosen."""
    new = iter(some)
    return [next(new) if yes else x for x, yes in zip(leaves, chosen, strict=True)]


def table(row: PyTree, lanes: Sequence[int], n: int) -> PyTree:
    """Return `n` equal rows for each lane, shape `(n, elements, lanes)`: what `write_rows` can fill in place."""
    count = math.prod(lanes)

    def leaf(x):
        size = x.size // max(count, 1)
        return jnp.broadcast_to(x.reshape(size, count), (n, size, count))

    return jax.tree.map(leaf, row)


def write_rows(rows: PyTree, values: PyTree, i: jax.Array, columns: jax.Array | None = None) -> PyTree:
    """Write values of shape `(m, *shape, *lanes)` at rows `i` to `i + m - 1`, of each lane its own `i`.

    `columns` are those of the lanes; default: all, in their order. One scatter with a window, in the layout that XLA
    keeps in place; a vmapped update would transpose the buffer.
    """

    def leaf(table, x):
        _, size, total = table.shape
        count = total if columns is None else columns.size
        window = x.reshape(x.shape[0], size, count)
        if columns is None and count == 1:
            return lax.dynamic_update_slice_in_dim(table, window, i.reshape(()), axis=0)
        at = jnp.stack([i.reshape(-1), jnp.arange(count, dtype=i.dtype) if columns is None else columns], axis=1)
        return lax.platform_dependent(table, window, at, cpu=_write_in_turn if tried() else _scatter, default=_scatter)

    return jax.tree.map(leaf, rows, values)


def _scatter(table: jax.Array, window: jax.Array, at: jax.Array) -> jax.Array:
    """Write the columns of the window at rows and columns `at`, shape `(columns, 2)`."""
    numbers = lax.ScatterDimensionNumbers((0, 1), (2,), (0, 2))
    return lax.scatter(table, at, window, numbers, unique_indices=True, mode="promise_in_bounds")


def _write_in_turn(table: jax.Array, window: jax.Array, at: jax.Array) -> jax.Array:
    """Do the same one column after the other: a loop that a CPU runs as one function, which it does with no scatter."""

    def write(k, table):
        column = lax.dynamic_slice_in_dim(window, k, 1, axis=2)
        return lax.dynamic_update_slice(table, column, (at[k, 0], jnp.zeros_like(at[k, 0]), at[k, 1]))

    return lax.fori_loop(0, at.shape[0], write, table)


def write_row(rows: PyTree, value: PyTree, i: jax.Array) -> PyTree:
    """Write values of shape `(*shape, *lanes)` at row `i` of `(n, *shape, *lanes)`, of each lane its own `i`."""
    tables = jax.tree.map(lambda x: x.reshape(x.shape[0], -1, i.size), rows)
    tables = write_rows(tables, jax.tree.map(lambda x: x[None], value), i)
    return jax.tree.map(lambda table, x: table.reshape(x.shape), tables, rows)


def read_table(rows: PyTree, like: PyTree, n: int) -> PyTree:
    """Return the first `n` rows of a table as `(n, *shape, *lanes)`, with `like` of shape `(*shape, *lanes)`."""
    return jax.tree.map(lambda table, x: table[:n].reshape(n, *x.shape), rows, like)


def pack(tree: PyTree) -> list[jax.Array]:
    """Stack the scalar leaves of each dtype, in the order in which the dtypes appear."""
    groups: dict = {}
    for x in jax.tree.leaves(tree):
        groups.setdefault(x.dtype, []).append(x)
    return [jnp.stack(group) for group in groups.values()]


def unpack(packed: list[jax.Array], like: PyTree) -> PyTree:
    """Invert `pack`; `like` has the structure and dtypes of what was packed."""
    streams = {x.dtype: iter(x) for x in packed}
    return jax.tree.map(lambda x: next(streams[x.dtype]), like)


def _missing(x: jax.Array, mask: Sequence[bool]) -> tuple[int, ...]:
    return tuple(x.ndim - 1 - k for k, mapped in enumerate(mask) if not mapped)


def sum_missing(x: jax.Array, mask: Sequence[bool]) -> jax.Array:
    """Bring a cotangent with all lanes at its end to the lane axes of an input with this mask, adding up the others."""
    return jnp.sum(x, axis=_missing(x, mask))


def any_missing(x: jax.Array, mask: Sequence[bool]) -> jax.Array:
    """Say for each entry of an input with this mask whether `x`, of the shape of the lanes, holds for any lane."""
    return jnp.any(x, axis=_missing(x, mask))


def largest(z: PyTree, dtype: jnp.dtype) -> jax.Array:
    """Largest modulus over all elements; NaN if any is NaN, zero for an empty tree."""
    parts = [jnp.max(jnp.abs(x)).astype(dtype) for x in jax.tree.leaves(z) if x.size]
    return jax.tree.reduce(jnp.maximum, parts, jnp.zeros((), dtype))


def rms(z: PyTree) -> jax.Array:
    """Root mean square over all elements of all leaves: the default error norm.

    Args:
        z: pytree of real or complex arrays.

    Returns:
        Real scalar; zero for a tree without elements.

    Example:
        >>> import jax.numpy as jnp
        >>> float(rms((jnp.array([3.0, 4.0]), jnp.array(0.0), jnp.zeros(0))))  # sqrt(25 / 3)
        2.88675...
    """
    leaves = [single(x) for x in jax.tree.leaves(z) if x.size]
    dtype = real_dtype(z)
    total = sum((jnp.sum((x * jnp.conj(x)).real).astype(dtype) for x in leaves), jnp.zeros((), dtype))
    return jnp.sqrt(total / max(1, sum(x.size for x in leaves)))


def tolerances(z0: PyTree, z1: PyTree, rtol: PyTree, atol: PyTree) -> PyTree:
    """Return `atol + rtol max(|z0|, |z1|)` for each component, in a real dtype of at least 32 bits."""

    def leaf(x, y, r, a):
        real = jnp.finfo(x.dtype)
        wide = promoted(real.dtype, jnp.float32)
        r = jnp.maximum(r, 4 * float(real.eps)).astype(wide)  # no step changes a state by less
        scale = a.astype(wide) + r * jnp.maximum(jnp.abs(x), jnp.abs(y)).astype(wide)
        return scale + float(jnp.finfo(wide).tiny)  # no error at all is fine even without a tolerance

    return jax.tree.map(leaf, z0, z1, spread(rtol, z0), spread(atol, z0))


def divide(a: PyTree, b: PyTree) -> PyTree:
    """Return `a / b` in the wider dtype of both."""
    return jax.tree.map(_divided, a, b)


def bounded(z: PyTree) -> PyTree:
    """Limit the elements of real or complex leaves to what can be squared and added up."""

    def leaf(x):
        most = math.sqrt(float(jnp.finfo(x.dtype).max) / (4 * max(1, x.size)))
        if jnp.iscomplexobj(x):
            return lax.complex(jnp.clip(x.real, -most, most), jnp.clip(x.imag, -most, most))
        return jnp.clip(x, -most, most)

    return jax.tree.map(leaf, z)


def _divided(x, y):
    dtype = promoted(x.dtype, y.dtype)
    return x.astype(dtype) / y.astype(dtype)
