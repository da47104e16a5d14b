"""What is fitted: some leaves of theta and z0, as one vector without bounds."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import SequenceKey, keystr

from node_jax import tree
from node_jax.placement import is_traced
from node_jax.types import PyTree

Mark = str | bool | None  # of a leaf: "log", "logit", None or True: fitted on its own scale, False: held


class Transform(NamedTuple):
    """A scale on which a parameter has no bounds: `x = to(value)`, `value = back(x)`, `slope(value)` its derivative."""

    to: Callable
    back: Callable
    slope: Callable
    inside: Callable  # whether a value has a place on the scale
    domain: str


def _itself(x: Any) -> Any:
    return x


TRANSFORMS = {
    None: Transform(_itself, _itself, jnp.ones_like, np.isfinite, "finite"),
    "log": Transform(jnp.log, jnp.exp, _itself, lambda v: (v > 0) & (v < np.inf), "positive"),
    "logit": Transform(
        jax.scipy.special.logit, jax.nn.sigmoid, lambda v: v * (1 - v), lambda v: (v > 0) & (v < 1), "between 0 and 1"
    ),
}


class Leaf(NamedTuple):
    """A fitted leaf: its place among the leaves of `(theta, z0)`, what it is called, and its scale."""

    place: int
    name: str
    shape: tuple[int, ...]
    dtype: Any
    scale: str | None

    @property
    def size(self) -> int:
        """Number of parameters in it."""
        return int(np.prod(self.shape, dtype=int))


class Parameters(eqx.Module):
    """Fitted leaves by their place, and the others by value.

    Attributes:
        held: leaves of `(theta, z0)`, None in the place of those that are fitted.
        leaves: those that are fitted.
        structure: of `(theta, z0)`.
    """

    held: list
    leaves: tuple[Leaf, ...] = eqx.field(static=True)
    structure: Any = eqx.field(static=True)

    @property
    def size(self) -> int:
        """Length of the vector."""
        return sum(leaf.size for leaf in self.leaves)

    @property
    def names(self) -> tuple[str, ...]:
        """One name for each entry of the vector."""
        return tuple(name for leaf in self.leaves for name in _entries(leaf))

    @property
    def scales(self) -> tuple[str | None, ...]:
        """The scale of each entry."""
        return tuple(leaf.scale for leaf in self.leaves for _ in range(leaf.size))

    def split(self, x: jax.Array) -> list[jax.Array]:
        """Return a vector `(*batch, size)` leaf by leaf, each `(*batch, *shape)`."""
        ends = np.cumsum([leaf.size for leaf in self.leaves])[:-1]
        pairs = zip(self.leaves, jnp.split(x, ends, axis=-1), strict=True)
        return [part.reshape(*x.shape[:-1], *leaf.shape).astype(leaf.dtype) for leaf, part in pairs]

    def values(self, x: jax.Array) -> list[jax.Array]:
        """Return the fitted leaves at a vector `(*batch, size)`, each `(*batch, *shape)`."""
        return [TRANSFORMS[leaf.scale].back(part) for leaf, part in zip(self.leaves, self.split(x), strict=True)]

    def flat(self, x: jax.Array) -> jax.Array:
        """Return the values of a vector `(*batch, size)` as a vector."""
        return jnp.concatenate([v.reshape(*x.shape[:-1], -1).astype(x.dtype) for v in self.values(x)], axis=-1)

    def slopes(self, x: jax.Array) -> jax.Array:
        """Return the derivative of each value with respect to its entry of the vector."""
        flat = self.flat(x)
        each = [TRANSFORMS[scale].slope(flat[..., i]) for i, scale in enumerate(self.scales)]
        return jnp.stack(each, axis=-1)

    def directions(self, x: jax.Array) -> list[jax.Array]:
        """Return the derivatives of the fitted leaves with respect to the vector, each `(size, *shape)`."""
        return self.split(jnp.diag(self.slopes(x)))

    def combine(self, values: list) -> tuple[PyTree, PyTree]:
        """Return theta and z0 with these fitted leaves."""
        leaves = list(self.held)
        for leaf, value in zip(self.leaves, values, strict=True):
            leaves[leaf.place] = value
        return jax.tree.unflatten(self.structure, leaves)


def marked(theta: PyTree, z0: PyTree, transform: PyTree, fit_z0: PyTree) -> tuple[Parameters, jax.Array]:
    """Separate what is fitted, by marks that are pytree prefixes of theta and z0; return its vector too."""
    marks = [*_spread("transform", transform, "theta", theta), *_spread("fit_z0", fit_z0, "z0", z0)]
    leaves, structure = jax.tree_util.tree_flatten_with_path((theta, z0))
    held, fitted, parts = [], [], []
    for place, ((path, leaf), mark) in enumerate(zip(leaves, marks, strict=True)):
        name = _name(path)
        if mark is False or not _can_vary(leaf):
            if isinstance(mark, str):
                raise ValueError(
                    f"{name} = {leaf} is no real floating number and cannot be fitted, got {mark!r} for it"
                )
            held.append(leaf)
            continue
        value, scale = jnp.asarray(leaf), mark if isinstance(mark, str) else None
        _check_inside(name, value, scale)
        held.append(None)
        fitted.append(Leaf(place, name, value.shape, value.dtype, scale))
        parts.append(TRANSFORMS[scale].to(tree.single(value)).ravel())
    parameters = Parameters(held, tuple(fitted), structure)
    if not parameters.size:
        raise ValueError(f"theta has no floating number to fit, got theta={theta!r} with transform={transform!r}")
    dtype = tree.real_dtype(parts)
    return parameters, jnp.concatenate([part.astype(dtype) for part in parts])


def _spread(name: str, marks: PyTree, whose: str, values: PyTree) -> list[Mark]:
    """Repeat marks over the leaves of what they are a prefix of."""
    found, structure = jax.tree.flatten(marks, is_leaf=lambda x: x is None)
    for mark in found:
        if not (mark is None or isinstance(mark, bool) or mark in ("log", "logit")):
            raise ValueError(f'{name} must hold "log", "logit", None, True or False, got {mark!r}')
    try:
        parts = structure.flatten_up_to(values)
    except ValueError as error:
        raise ValueError(f"{name} must be a pytree prefix of {whose}={values!r}, got {marks!r}") from error
    return [mark for mark, part in zip(found, parts, strict=True) for _ in jax.tree.leaves(part)]


def _name(path: tuple) -> str:
    """Return what a leaf of `(theta, z0)` is called: `rate`, `theta[0]`, `z0`, `z0.prey`."""
    root, *inner = path
    parts = (f"[{key.idx}]" if isinstance(key, SequenceKey) else f".{keystr((key,), simple=True)}" for key in inner)
    text = "".join(parts)
    return text[1:] if root.idx == 0 and text.startswith(".") else ("theta", "z0")[root.idx] + text


def _entries(leaf: Leaf) -> list[str]:
    if leaf.shape == ():
        return [leaf.name]
    return [f"{leaf.name}[{', '.join(map(str, i))}]" for i in np.ndindex(*leaf.shape)]


def _can_vary(x: Any) -> bool:
    """Whether a leaf is a real floating number or array."""
    return eqx.is_array_like(x) and jnp.issubdtype(jnp.result_type(x), jnp.floating)


def _check_inside(name: str, value: jax.Array, scale: str | None) -> None:
    transform = TRANSFORMS[scale]
    if not is_traced(value) and not np.all(transform.inside(np.asarray(value))):
        on = f" on the scale {scale!r}" if scale else ""
        raise ValueError(f"{name} must be {transform.domain} to start from{on}, got {value}")
