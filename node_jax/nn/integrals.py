"""Integrals along a solve: scalars that are computed together with the state.

A rate is a record with a `name` and two functions. `draw(key, z)` returns the random numbers of one solve, `()` if it
has none. `rate(field, z, t, drawn)` returns what is integrated, a real scalar; `field(z, t)` is a `Bound` field.
The traces of a `CNF` and the regularizers of a `NeuralODE` are rates.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from node_jax import norms, tree
from node_jax.arguments import checked_state, slope_of
from node_jax.control import Adaptive
from node_jax.save import SaveAt
from node_jax.solution import Solution
from node_jax.types import PyTree


class Bound(NamedTuple):
    """A field with the theta of the solve, called as `bound(z, t)`."""

    field: Callable[..., Any]
    theta: PyTree

    def __call__(self, z: PyTree, t: jax.Array) -> PyTree:
        """Return the slope."""
        return slope_of(self.field, z, t, self.theta)


@runtime_checkable
class Rate(Protocol):
    """What is integrated along a solve."""

    @property
    def name(self) -> str:
        """The key of the integral in a dict."""
        ...

    def draw(self, key: jax.Array | None, z: PyTree) -> PyTree:
        """Return the random numbers of one solve."""
        ...

    def rate(self, field: Bound, z: PyTree, t: jax.Array, drawn: PyTree) -> jax.Array:
        """Return what is integrated, a real scalar."""
        ...


class EachRow(eqx.Module):
    """The rate of each row of a `Batched` field, an array `(n,)`."""

    of: Rate
    theta_axis: int | None = eqx.field(static=True)

    @property
    def name(self) -> str:
        """The key of the integral: that of a row."""
        return self.of.name

    def zero(self, z: PyTree) -> jax.Array:
        """Return the integral at the beginning."""
        return jnp.zeros(jax.tree.leaves(z)[0].shape[:1], tree.real_dtype(z))

    def draw(self, key: jax.Array | None, z: PyTree) -> PyTree:
        """Return the random numbers of one solve, independent for each row."""
        keys = None if key is None else jax.random.split(key, jax.tree.leaves(z)[0].shape[0])
        return jax.vmap(self.of.draw)(keys, z)

    def rate(self, field: Bound, z: PyTree, t: jax.Array, drawn: PyTree) -> jax.Array:
        """Return the rates of all rows."""

        def one(z, theta, drawn):
            return self.of.rate(Bound(field.field.field, theta), z, t, drawn)

        return jax.vmap(one, (0, self.theta_axis, 0))(z, field.theta, drawn)


class Along(NamedTuple):
    """What a solve with integrals returns.

    Attributes:
        solution: the `Solution` of the state.
        integrals: the watched integrals at the end, by name.
        rows: the watched integrals at the saved times or steps, by name; None if none are saved.
        interpolant: their polynomials, with `save=Dense()`; else None.
    """

    solution: Solution
    integrals: dict[str, jax.Array]
    rows: Any = None
    interpolant: Any = None


class Integrated(NamedTuple):
    """A state and the integrals that are computed with it.

    `watched` integrals are controlled like the state. `free` ones are not: they change neither steps nor state.
    """

    z: PyTree
    watched: dict[str, jax.Array]
    free: dict[str, jax.Array]


def state_of(state: Integrated) -> PyTree:
    """Return the state alone, so that with `Adaptive(controlled=state_of)` integrals change no step.

    Args:
        state: a state with integrals beside it, as `with_penalties` makes it.

    Returns:
        The state, without the integrals.

    Example:
        >>> import node_jax as nj
        >>> steps = nj.Adaptive(controlled=nj.nn.state_of)
        >>> penalized = nj.nn.with_penalties(nj.testing.decay, (nj.nn.Kinetic(),))
        >>> float(state_of(penalized.start(1.0)))
        1.0
    """
    return state.z


def check_names(names: Sequence[str]) -> None:
    """Refuse two rates of one name."""
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"regularizers must have different names, got {names.count(name)} named {name!r}")


class WithIntegrals(eqx.Module):
    """The field of a state and integrals; its theta is that of the field and the random numbers of all rates."""

    field: Any
    watched: tuple[Any, ...]
    free: tuple[Any, ...]

    def start(self, z0: PyTree) -> Integrated:
        """Return the state at the beginning: all integrals are zero."""
        z0 = checked_state(z0)
        zero = jnp.zeros((), tree.real_dtype(z0))

        def zeros(rates):
            return {rate.name: rate.zero(z0) if isinstance(rate, EachRow) else zero for rate in rates}

        return Integrated(z0, zeros(self.watched), zeros(self.free))

    def drawn(self, key: jax.Array | None, z0: PyTree) -> tuple[list[Any], list[Any]]:
        """Return the random numbers of all rates, of the watched ones and of the others."""
        z0, rates = checked_state(z0), (*self.watched, *self.free)
        keys = [None] * len(rates) if key is None else jax.random.split(key, max(len(rates), 1))
        all_drawn = [rate.draw(each, z0) for rate, each in zip(rates, keys, strict=True)]
        count = len(self.watched)
        return lax.stop_gradient((all_drawn[:count], all_drawn[count:]))

    def __call__(self, state: Integrated, t: jax.Array, theta: tuple[PyTree, tuple[Any, ...]]) -> Integrated:
        """Return the slope of the state and all rates."""
        own, drawn = theta
        field, dtype = Bound(self.field, own), tree.real_dtype(state.z)

        def rates(some, drawn):
            pairs = zip(some, drawn, strict=True)
            return {x.name: x.rate(field, state.z, t, numbers).astype(dtype) for x, numbers in pairs}

        return Integrated(field(state.z, t), rates(self.watched, drawn[0]), rates(self.free, drawn[1]))


class OfState(eqx.Module):
    """An output `fn(z, t, theta)` of a solve with integrals."""

    fn: Callable[..., Any]

    def __call__(self, state: Integrated, t: jax.Array, theta: tuple[PyTree, tuple[Any, ...]]) -> PyTree:
        """Return the output of the state alone."""
        return self.fn(state.z, t, theta[0])


def saving(save: Any) -> Any:
    """Return the save of the solve with integrals that saves of the state what `save` does."""
    if isinstance(save, SaveAt) and save.fn is not None:
        return SaveAt(save.ts, OfState(save.fn))
    return save


def split(solution: Solution, save: Any) -> tuple[Along, dict[str, jax.Array]]:
    """Return what the solve is of the state and the watched integrals, and the free integrals at the end."""
    end, zs, interpolant = solution.z1, solution.zs, solution.interpolant
    own, rows, polynomials = isinstance(save, SaveAt) and save.fn is not None, None, None
    if interpolant is not None:
        polynomials = interpolant._replace(q=tuple(x.watched for x in interpolant.q))
        interpolant = interpolant._replace(q=tuple(x.z for x in interpolant.q))
    elif zs is not None and not own:
        zs, rows = zs.z, zs.watched
    alone = dataclasses.replace(solution, z1=end.z, zs=zs, interpolant=interpolant)
    return Along(alone, end.watched, rows, polynomials), end.free


class _Part(NamedTuple):
    """The controlled part of the state, with the watched integrals if there are any."""

    controlled: Callable[..., Any] | None
    watched: bool

    def __call__(self, state: Integrated) -> PyTree:
        z = state.z if self.controlled is None else self.controlled(state.z)
        return (z, state.watched) if self.watched else z


class _Norm(NamedTuple):
    """The norm of the state and the watched integrals together."""

    norm: Callable[..., Any]

    def __call__(self, part: tuple[PyTree, dict[Any, Any]]) -> jax.Array:
        return jnp.sqrt(0.5 * (self.norm(part[0]) ** 2 + norms.rms(part[1]) ** 2))


def watching(steps: Any, watched: bool) -> Any:
    """Return the steps that are chosen by the state as `steps` are, and by watched integrals to its least tolerance."""
    if not isinstance(steps, Adaptive):
        return steps
    part = _Part(steps.controlled, watched)
    if not watched:
        return dataclasses.replace(steps, controlled=part)
    lists = (jnp.asarray(x) if isinstance(x, list) else x for x in (steps.rtol, steps.atol))
    rtol, atol = ((value, _least(value)) for value in lists)
    norm = steps.norm if steps.norm is norms.rms else _Norm(steps.norm)
    return dataclasses.replace(steps, rtol=rtol, atol=atol, norm=norm, controlled=part)


def _least(tolerance: PyTree) -> Any:
    leaves = jax.tree.leaves(tolerance)
    if len(leaves) == 1 and jnp.ndim(leaves[0]) == 0:
        return leaves[0]
    return jnp.min(jnp.stack([jnp.min(jnp.asarray(x)) for x in leaves]))
