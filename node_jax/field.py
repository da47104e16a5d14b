"""Trace a vector field once, and make the values that it closes over inputs of the solve."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from node_jax import placement
from node_jax.backends.cpu import room
from node_jax.checks import refuse_effects
from node_jax.compat import ClosedJaxpr, jaxpr_as_fun
from node_jax.jaxprs import low, multiplies, opened
from node_jax.types import PyTree, VectorField


class Hoisted(NamedTuple):
    """A field that was traced once: `call(z, t, values)` takes a flat list of `theta` followed by `consts`.

    `consts` are the values it closed over, `shape` that of its result, `used` says for each input leaf whether it is
    read, `multiplies` whether matrices are multiplied, and `room` is defined in the glossary (docs/architecture.md).
    """

    call: VectorField
    consts: list
    shape: PyTree
    used: list[bool]
    multiplies: bool
    room: int


def hoist(f: Callable, z: PyTree, t: Any, values: PyTree) -> Hoisted:
    """Trace `f(z, t, values)` once; tracers of outer transformations that it closes over become explicit inputs."""
    closed, shape = placement.traced(f, z, t, values)
    _refuse_other_solves(low(closed.jaxpr))
    refuse_effects(closed.jaxpr.effects)
    structure, count = jax.tree.structure(shape), len(jax.tree.leaves(values))
    evaluate = jaxpr_as_fun(ClosedJaxpr(opened(closed.jaxpr), ()))
    read = {id(v) for eqn in closed.jaxpr.eqns for v in eqn.invars} | {id(v) for v in closed.jaxpr.outvars}

    def call(z, t, flat):
        return jax.tree.unflatten(structure, evaluate(*flat[count:], *jax.tree.leaves(z), t, *flat[:count]))

    used = [id(v) in read for v in closed.jaxpr.invars]
    return Hoisted(call, list(closed.consts), shape, used, multiplies(closed.jaxpr), room(closed.jaxpr))


def _refuse_other_solves(jaxpr: Any) -> None:
    """Refuse collectives over named axes, and values that vary over the devices of `shard_map`."""
    for eqn in jaxpr.eqns:
        name, axes = eqn.primitive.name, (eqn.params.get("axes", ()), eqn.params.get("axis_name", ()))
        axes = [axis for axis in jax.tree.leaves(axes) if isinstance(axis, str)]
        if axes and name in ("pvary", "pcast"):
            raise NotImplementedError(f"f uses a value that varies over the axis {axes[0]!r}: pass it as theta")
        if axes:
            raise NotImplementedError(
                f"f uses {name} over the axis {axes[0]!r}, but each solve takes steps of its own: compute that before"
                " the solve and pass it as theta"
            )
        for part in jax.tree.leaves(list(eqn.params.values())):
            inner = getattr(part, "jaxpr", part)
            if hasattr(inner, "eqns"):
                _refuse_other_solves(inner)
