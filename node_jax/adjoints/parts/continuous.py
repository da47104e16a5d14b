"""Parts of the adjoints that integrate the adjoint equation `da/dt = -a df/dz` as a solve of its own."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from node_jax import axes, marks, tree
from node_jax.adjoints.parts.boundary import unsupported
from node_jax.adjoints.parts.transition import crossing
from node_jax.control import Adaptive
from node_jax.engine.each import Each
from node_jax.engine.lane import Problem, Progress, attempt, begin, outcome
from node_jax.engine.rows import Saved
from node_jax.events import Window, within
from node_jax.protocols import Method
from node_jax.types import RUNNING, Inputs, PyTree, VectorField


def check_steps(adjoint: eqx.Module, steps: Adaptive | None) -> None:
    """Refuse steps that cannot be constants of a compiled program."""
    numbers = isinstance(steps, Adaptive) and all(isinstance(x, float | int) for x in jax.tree.leaves(steps))
    if steps is not None and not numbers:
        raise TypeError(
            f"{type(adjoint).__name__}(steps=...) must be an Adaptive of Python numbers, got steps={steps!r}"
        )


def steps_back(each: Each, steps: Adaptive | None) -> Any:
    """Return the steps of the backward solve: those given, else what the forward policy asks for, else the default.

    Arrays stay themselves: by these the engine knows which inputs they are.
    """
    own = each.inputs.steps.anew() if steps is None else steps
    chosen = own if isinstance(own, Adaptive) else Adaptive()
    return jax.tree.map(lambda x: x if eqx.is_array(x) else jnp.asarray(x, each.inputs.t0.dtype), chosen)


def tightened(adjoint: Any, factor: float) -> Any:
    """Return an adjoint whose own steps, if any, have their tolerances multiplied by `factor`."""
    if adjoint.steps is None:
        return adjoint
    rtol, atol = jax.tree.map(lambda x: x * factor, (adjoint.steps.rtol, adjoint.steps.atol))
    return dataclasses.replace(adjoint, steps=dataclasses.replace(adjoint.steps, rtol=rtol, atol=atol))


def refuse_moving_nodes(adjoint, each: Each, moves: Inputs) -> None:
    """Refuse derivatives with respect to times if outputs at step ends follow them: the nodes count as constants."""
    save, steps = each.inputs.save, each.inputs.steps
    if save.tells_times and steps.exact_times and any(jax.tree.leaves((moves.t0, moves.t1, moves.steps))):
        raise unsupported(adjoint, f"derivatives in times of {save!r} under {steps!r}")


def engine(each: Each, field: VectorField, method: Method, inputs: Inputs) -> Each:
    """Return the engine of another problem; leaves that `each` does not have are scalars or have all lane axes."""
    masks = {id(x): mask for x, mask in zip(each.leaves, each.masks, strict=True)}
    leaves, structure = jax.tree.flatten(inputs)
    own = [masks.get(id(x), (x.ndim > 0,) * len(each.lanes)) for x in leaves]
    unflatten = functools.partial(jax.tree.unflatten, structure)
    problem = Problem(field, True, method, each.problem.max_steps, unflatten, multiplies=each.problem.multiplies)
    return Each(problem, leaves, own, each.lanes)


def between_nodes(each: Each) -> Each:
    """Return the engine in which only leaves move on which the flow between nodes depends: parameters, breakpoints."""
    each, points = crossing(each, each.moving)
    theta = set(each.places.theta)
    pairs = enumerate(zip(each.moving, points, strict=True))
    return each.replace(moving=[yes and (i in theta or point) for i, (yes, point) in pairs])


class Points(NamedTuple):
    """Stacked quadrature points along one step of one lane: state, adjoint, time, weight times step size; a window."""

    z: PyTree
    a: PyTree
    t: jax.Array
    weights: jax.Array
    window: Window | None


def integral(each: Each, points: Points) -> list:
    """Return the sum of `weight * a df/dtheta` over the points, and over lanes that share a leaf."""

    def total(inputs, _, points: Points):
        field = within(each.problem.field, points.window)

        def at(z, a, t, weight):
            return weight * tree.dot(a, field(z, t, inputs.theta), weight.dtype)

        return jnp.sum(jax.vmap(at)(*points[:4]))

    value, pull = each.vjp(total, (), points)
    return pull(jnp.ones_like(value))[0]


class Sweep(NamedTuple):
    """The carry of a backward solve."""

    progress: Progress
    theta_bar: list


def sweep(each: Each, reverse: Each, theta_bar: list, points: Callable, land: Callable) -> tuple:
    """Solve `reverse` to its end; return its outcome and the cotangents of parameters, NaN where a lane failed.

    `points(inputs, trial)` returns quadrature points along one step; `land(carry, landed)` runs after each step.
    """

    def body(carry: Sweep) -> Sweep:
        after, (trial, landed) = reverse(lambda inputs, p: attempt(reverse.problem, inputs, p))(carry.progress)
        theta_bar = tree.add(carry.theta_bar, integral(each, reverse(points)(trial)))
        return land(Sweep(after, theta_bar), landed)

    def live(carry: Sweep):
        return jnp.any(carry.progress.status == RUNNING)

    first = reverse(lambda inputs, _: begin(reverse.problem, inputs))()
    p, theta_bar = marks.whole(lambda carry: lax.while_loop(live, body, carry), Sweep(first, theta_bar))
    ended = reverse(lambda inputs, p: outcome(reverse.problem, inputs, (p, Saved((), ()), p.rejected)))(p)
    lost = ~ended.ok
    spoiled = [
        tree.where(axes.any_missing(lost, mask), jnp.full_like(g, jnp.nan), g)
        for mask, g in zip(tree.picked(each.masks, each.moving), theta_bar, strict=True)
    ]
    return ended, spoiled
