"""The derivative of a solve as a linear map: tangents are pushed forward, cotangents are pulled back.

A map has `push(residuals, dots)` and `pull(residuals, bars)`, on flat lists; a bar that is None is a zero. Maps around
other maps have them as `linear`.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from node_jax import tree
from node_jax.adjoints.boundary import Cotangents, unsupported
from node_jax.integrate import Each
from node_jax.problem import Outcome, Problem
from node_jax.types import Stats


def each_of(problem: Problem, leaves: Sequence, masks, lanes) -> Each:
    """Bring the lane axes of every leaf to its end, where the engine has them."""
    counts = [sum(mask) for mask in masks]
    moved = [x.transpose(tree.lanes_last(x.shape, n)) for x, n in zip(leaves, counts, strict=True)]
    return Each(problem, moved, masks, lanes)


def each_of_shapes(problem: Problem, leaves: Sequence, masks, lanes) -> Each:
    """Return `each_of` with shapes for leaves."""
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]
    return Each(
        problem, jax.eval_shape(lambda leaves: each_of(problem, leaves, masks, lanes).leaves, shapes), masks, lanes
    )


def recorder_of(each: Each, adjoint, recording: bool):
    """Return what writes the history, None if nothing does."""
    return adjoint.recorder(each) if recording else None


def shapes_of(each: Each, recorder):
    """Return the shapes of what `integrate` returns, without tracing the field."""
    save = each.problem.unflatten(each.leaves).save

    def all_lanes(leaves):
        some = each._replace(leaves=leaves)
        z, t, count, ok = some(lambda inputs, _: (inputs.z0, inputs.t0, jnp.zeros((), jnp.int32), jnp.array(True)))()
        out = save.finish(some, save.blank(some, each.problem.method, z, ok), z, count, ok)
        outcome = Outcome(z, out, count, t, Stats(count, count, count, count, count, count))
        return outcome, () if recorder is None else recorder.blank(z, t).closed()

    outcome, history = jax.eval_shape(all_lanes, each.leaves)
    return outcome if recorder is None else (outcome, history)


class Call(NamedTuple):
    """Everything static about a solve of some lanes."""

    problem: Problem
    adjoint: Any
    lanes: tuple
    masks: tuple

    def each(self, leaves) -> Each:
        """Return the engine with these leaves."""
        return each_of(self.problem, leaves, self.masks, self.lanes)

    def each_of_shapes(self, leaves) -> Each:
        """Return the engine with the shapes of these leaves."""
        return each_of_shapes(self.problem, leaves, self.masks, self.lanes)

    def save(self) -> Any:
        """What is saved, without values."""
        nothing: list = [None] * len(self.masks)
        return self.problem.unflatten(nothing).save

    def open(self, leaves, flat) -> tuple[Outcome, Any]:
        """Return outcome and history from what the solve returned."""
        each = self.each_of_shapes(leaves)
        recording = self.adjoint.records
        shapes = shapes_of(each, recorder_of(each, self.adjoint, recording))
        if not recording:
            return jax.tree.unflatten(jax.tree.structure(shapes), flat), ()
        outcome, history = jax.tree.unflatten(jax.tree.structure(shapes), flat)
        return outcome, history.opened()


class Steps(NamedTuple):
    """The steps that were taken.

    Residuals are the leaves of the inputs and what the solve returned. Tangents are those of the leaves that move;
    results are the state at `t1`, the saved rows and, if the history is wanted, the states in it.
    """

    call: Call
    moving: tuple[bool, ...]
    shifted: tuple[bool, ...]  # moves here or in an outer derivative
    with_history: bool

    def results(self, residuals) -> tuple:
        """Return what the results are tangents of."""
        _, outcome, history = self._open(residuals)
        return outcome.z1, self.call.save().rows(outcome.out), history.z if self.with_history else ()

    def push(self, residuals, dots) -> list:
        """Take the steps again."""
        leaves, outcome, history = self._open(residuals)

        def replay(*some):
            each = self.call.each(tree.replaced(leaves, self.moving, some))
            z1, rows, states = self.call.adjoint.replay(each, outcome, history, self.shifted)
            return jax.tree.leaves((z1, rows, states if self.with_history else ()))

        return jax.jvp(replay, tuple(tree.picked(leaves, self.moving)), tuple(dots))[1]

    def pull(self, residuals, bars) -> list:
        """Go back over the steps."""
        if self.call.adjoint.plain:  # under `shard_map`: elsewhere JAX transposes such code itself
            zeros = tree.full_like(tree.picked(list(residuals[: len(self.moving)]), self.moving), 0.0)
            wanted = jax.tree.leaves(self.results(residuals))
            transposed = jax.linear_transpose(lambda *dots: self.push(residuals, dots), *zeros)
            return list(transposed(_filled(bars, wanted)))
        leaves, outcome, history = self._open(residuals)
        wanted, structure = jax.tree.flatten(self.results(residuals)[:2])
        if any(bar is not None for bar in bars[len(wanted) :]):
            raise unsupported(self.call.adjoint, "reverse over reverse")
        bar = Cotangents(*jax.tree.unflatten(structure, _filled(bars[: len(wanted)], wanted)))
        each = self.call.each(leaves)
        pulled = self.call.adjoint.backward(each, outcome, history, bar, self.moving, self.shifted)
        some = zip(tree.picked(pulled, self.moving), tree.picked(self.call.masks, self.moving), strict=True)
        return [lanes_first(x, mask) for x, mask in some]

    def within(self, moving: Sequence[bool]) -> "Steps":
        """Let more of the leaves, which are the first arguments, move in an outer derivative."""
        return self._replace(shifted=tuple(a or b for a, b in zip(self.shifted, moving, strict=False)))

    def _open(self, residuals) -> tuple[list, Outcome, Any]:
        leaves, flat = residuals[: len(self.moving)], residuals[len(self.moving) :]
        return list(leaves), *self.call.open(leaves, flat)


class Guard(NamedTuple):
    """The identity, except that tangents of lost outputs are NaN, and so are cotangents of them that are not zero."""

    def push(self, lost, dots) -> list:
        """Spoil what is lost."""
        return [jnp.where(no, jnp.nan, t) for no, t in zip(lost, dots, strict=True)]

    def pull(self, lost, bars) -> list:
        """Spoil what depends on it."""
        return [g if g is None else jnp.where(no & (g != 0), jnp.nan, g) for no, g in zip(lost, bars, strict=True)]


class Gate(NamedTuple):
    """The identity, except that cotangents of inputs are zero where no lane used them: they may be NaN.

    Residuals say which lanes succeeded and which took a step; a lane that failed used its inputs only if its outputs
    have a cotangent. A last tangent, of the shape of the lanes, carries that from `Asked`.
    """

    masks: tuple

    def push(self, lanes, dots) -> list:
        """Let all pass."""
        return list(dots)

    def pull(self, lanes, bars) -> list:
        """Stop what was not used."""
        (ok, taken), (*bars, asked) = lanes, bars
        counts = ok | (taken & (asked != 0))
        return [*map(functools.partial(_used, counts), bars, self.masks), jnp.zeros_like(asked)]


class Asked(NamedTuple):
    """The identity, except for a last tangent that ends here; its cotangent says which lanes have one."""

    lanes: int

    def push(self, _, dots) -> list:
        """Let all but the last pass."""
        return list(dots[:-1])

    def pull(self, like, bars) -> list:
        """Say where any cotangent is not zero."""
        asked = jnp.zeros_like(like[0])
        for g in bars:
            if g is not None:
                any_here = jnp.any(g != 0, axis=tuple(range(g.ndim - self.lanes)))
                asked = asked + any_here.astype(asked.dtype)
        return [*bars, asked]


def _used(counts: jax.Array, g: jax.Array | None, mask: Sequence[bool]) -> jax.Array | None:
    if g is None:
        return None
    yes = lanes_first(tree.any_missing(counts, mask), mask)
    return jnp.where(jnp.expand_dims(yes, range(yes.ndim, g.ndim)), g, jnp.zeros_like(g))


class Mapped(NamedTuple):
    """A map under `vmap`; all tangents have the new axis in front."""

    linear: Any
    dims: tuple
    size: int

    def push(self, residuals, dots) -> list:
        """Push every entry."""
        return jax.vmap(self.linear.push, (list(self.dims), 0), axis_size=self.size)(list(residuals), list(dots))

    def pull(self, residuals, bars) -> list:
        """Pull every entry."""
        return jax.vmap(self.linear.pull, (list(self.dims), 0), axis_size=self.size)(list(residuals), list(bars))


class Applied(NamedTuple):
    """A map of residuals and tangents, or cotangents, in one flat list; `zeros` are left out of these.

    A parameter of a primitive, it is not callable: some versions of JAX hold callables by weak references.
    """

    linear: Any
    count: int
    zeros: tuple[bool, ...] | None = None  # None: push

    def apply(self, *args) -> list:
        """Push or pull."""
        residuals, some = args[: self.count], args[self.count :]
        if self.zeros is None:
            return self.linear.push(residuals, some)
        known = [not zero for zero in self.zeros]
        return self.linear.pull(residuals, tree.replaced([None] * len(known), known, some))


class Derivative(NamedTuple):
    """The derivative of a map in its residuals too; it is not transposed."""

    linear: Applied
    moving: tuple[bool, ...]

    def push(self, primals, dots) -> list:
        """Push by forward mode."""
        fn = _shifted(self.linear, self.moving)
        chosen = tuple(tree.picked(primals, self.moving))
        return jax.jvp(lambda *some: fn.apply(*tree.replaced(primals, self.moving, some)), chosen, tuple(dots))[1]

    def pull(self, primals, bars) -> list:
        """Refuse."""
        mode = "reverse over forward" if self.linear.zeros is None else "reverse over reverse"
        raise unsupported(_innermost(self).call.adjoint, mode)


def one_entry(linear) -> Any:
    """Return the map that `vmap` was applied to."""
    while isinstance(linear, Mapped):
        linear = linear.linear
    return linear


def keeps_states(linear) -> bool:
    """Whether the states of a history are among the results of a map."""
    return getattr(_innermost(linear), "with_history", False)


def _innermost(linear) -> Any:
    while hasattr(linear, "linear"):
        linear = linear.linear
    return linear


def _shifted(linear, moving: Sequence[bool]):
    if hasattr(linear, "linear"):
        return linear._replace(linear=_shifted(linear.linear, moving))
    return linear.within(moving)


def _filled(bars: Sequence, like: Sequence) -> list:
    return [jnp.zeros_like(x) if bar is None else bar for bar, x in zip(bars, like, strict=True)]


def lanes_first(x: jax.Array, mask: Sequence[bool]) -> jax.Array:
    """Bring the lane axes of a leaf back to its front."""
    return x.transpose(tree.lanes_first(x.shape, sum(mask)))
