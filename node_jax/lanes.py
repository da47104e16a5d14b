"""How `vmap`, `grad` and `jvp` reach the lane engine: one primitive whose batching rule adds a lane axis.

Every name of JAX that is not stable API is used in this file and in no other.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.core import ShapedArray, Tracer
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from node_jax import tree
from node_jax.adjoints.boundary import Cotangents
from node_jax.integrate import Each, Outcome, Problem, integrate
from node_jax.types import PyTree, Stats

solve_p = Primitive("odesolve")
solve_p.multiple_results = True

_STILL = object()  # the tangent of an output that does not move


def solve(problem: Problem, adjoint, leaves: Sequence[jax.Array]) -> Outcome:
    """Solve one problem as a primitive that every transformation understands."""
    masks = ((),) * len(leaves)
    flat = solve_p.bind(*leaves, problem=problem, adjoint=adjoint, recording=False, lanes=(), masks=masks)
    each = _each_shape(problem, leaves, masks, ())
    return jax.tree.unflatten(jax.tree.structure(_shapes(each, None)), flat)


class Hoisted(NamedTuple):
    """A traced function of `(consts, *args)`: what it closed over, the shape of its result, the leaves it looks at."""

    call: Callable
    consts: list
    shape: PyTree
    used: list[bool]


def hoist(f: Callable, *examples: PyTree) -> Hoisted:
    """Trace `f` once. Values of outer transformations that it closes over (of any type) become visible inputs."""
    closed, shape = jax.make_jaxpr(f, return_shape=True)(*examples)
    structure = jax.tree.structure(shape)
    read = {id(v) for eqn in closed.jaxpr.eqns for v in eqn.invars} | {id(v) for v in closed.jaxpr.outvars}

    def hoisted(consts, *args):
        flat = jaxpr_as_fun(ClosedJaxpr(closed.jaxpr, list(consts)))(*jax.tree.leaves(args))
        return jax.tree.unflatten(structure, flat)

    return Hoisted(hoisted, list(closed.consts), shape, [id(v) in read for v in closed.jaxpr.invars])


def _each(problem: Problem, leaves: Sequence, masks, lanes) -> Each:
    """Bring the lane axes of every leaf to its end, where the engine has them."""
    counts = [sum(mask) for mask in masks]
    moved = [x.transpose(tree.lanes_last(x.shape, n)) for x, n in zip(leaves, counts, strict=True)]
    return Each(problem, moved, masks, lanes)


def _each_shape(problem: Problem, leaves: Sequence, masks, lanes) -> Each:
    """Return `_each` with shapes for leaves."""
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]
    return Each(
        problem, jax.eval_shape(lambda leaves: _each(problem, leaves, masks, lanes).leaves, shapes), masks, lanes
    )


def _run(*leaves, problem, adjoint, recording, lanes, masks):
    each = _each(problem, leaves, masks, lanes)
    return jax.tree.leaves(integrate(each, _recorder(each, adjoint, recording)))


def _recorder(each: Each, adjoint, recording: bool):
    return adjoint.recorder(each.problem, each.problem.unflatten(each.leaves)) if recording else None


def _shapes(each: Each, recorder):
    """Shapes of what `integrate` returns, without tracing the field."""
    save = each.problem.unflatten(each.leaves).save

    def all_lanes(leaves):
        some = each._replace(leaves=leaves)
        z, t, count, ok = some(lambda inputs, _: (inputs.z0, inputs.t0, jnp.zeros((), jnp.int32), jnp.array(True)))()
        out = save.finish(some, save.blank(some, each.problem.method, z), z, count, ok)
        outcome = Outcome(z, out, count, t, Stats(count, count, count))
        return outcome, () if recorder is None else recorder.blank(z, t)

    outcome, history = jax.eval_shape(all_lanes, each.leaves)
    return outcome if recorder is None else (outcome, history)


def _abstract(*leaves, problem, adjoint, recording, lanes, masks):
    each = _each_shape(problem, leaves, masks, lanes)
    shapes = _shapes(each, _recorder(each, adjoint, recording))
    return [ShapedArray(x.shape, x.dtype) for x in jax.tree.leaves(shapes)]


@functools.lru_cache(maxsize=64)
def _compiled(**params):
    return jax.jit(functools.partial(_run, **params))


def _batch(args, dims, *, lanes, masks, **params):
    n = next(x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None)
    args = [x if d is None else jnp.moveaxis(x, d, 0) for x, d in zip(args, dims, strict=True)]
    masks = tuple((d is not None, *mask) for d, mask in zip(dims, masks, strict=True))
    outs = solve_p.bind(*args, lanes=(n, *lanes), masks=masks, **params)
    own = _has_lanes(args, masks, (n, *lanes), **params)
    return outs, [x.ndim - 1 if has else None for x, has in zip(outs, own, strict=True)]


def _has_lanes(leaves, masks, lanes, *, problem, adjoint, recording) -> list[bool]:
    """Say for each output whether it has lane axes."""
    each = _each_shape(problem, leaves, masks, lanes)
    if not recording:
        return [True] * len(jax.tree.leaves(_shapes(each, None)))
    outcome, history = _shapes(each, _recorder(each, adjoint, True))
    return [True] * len(jax.tree.leaves(outcome)) + adjoint.has_lanes(history)


def _jvp(primals, tangents, *, recording, **params):
    moving = [jnp.issubdtype(x.dtype, jnp.inexact) for x in primals]
    chosen = tuple(x for x, yes in zip(primals, moving, strict=True) if yes)
    directions = tuple(ad.instantiate_zeros(t) for t, yes in zip(tangents, moving, strict=True) if yes)

    def merge(some):
        some = iter(some)
        return [next(some) if yes else x for x, yes in zip(primals, moving, strict=True)]

    if recording:
        outs, tangents = _recorded_tangents(primals, merge, chosen, directions, **params)
    else:
        outs, tangents = jax.jvp(lambda *some: _differentiable(**params)(*merge(some)), chosen, directions)
    tangents = [
        t if jnp.issubdtype(x.dtype, jnp.inexact) and t is not _STILL else ad.Zero(jax.typeof(x).to_tangent_aval())
        for x, t in zip(outs, tangents, strict=True)
    ]
    return outs, tangents


def _differentiable(**params):
    """Return the solve of these lanes with the reverse pass of its adjoint."""
    problem, adjoint, lanes, masks = (params[k] for k in ("problem", "adjoint", "lanes", "masks"))

    @jax.custom_vjp
    def solved(*leaves):
        return solve_p.bind(*leaves, recording=False, **params)

    def forward(*leaves):
        flat = solve_p.bind(*leaves, recording=True, **params)
        each = _each_shape(problem, leaves, masks, lanes)
        structure = jax.tree.structure(_shapes(each, _recorder(each, adjoint, True)))
        outcome, history = jax.tree.unflatten(structure, flat)
        return jax.tree.leaves(outcome), (leaves, outcome, history)

    def backward(residuals, bars):
        leaves, outcome, history = residuals
        each = _each(problem, leaves, masks, lanes)
        save = problem.unflatten(leaves).save
        bar = jax.tree.unflatten(jax.tree.structure(outcome), bars)
        bars = adjoint.backward(each, outcome, history, Cotangents(bar.z1, save.rows(bar.out)))
        return tuple(_lanes_first(x, mask) for x, mask in zip(bars, masks, strict=True))

    solved.defvjp(forward, backward)
    return solved


def _lanes_first(x: jax.Array | None, mask: Sequence[bool]):
    return None if x is None else x.transpose(tree.lanes_first(x.shape, sum(mask)))


def _recorded_tangents(primals, merge, chosen, directions, *, problem, adjoint, lanes, masks):
    """Run with a history, and push tangents along the steps that it recorded."""
    each = _each_shape(problem, primals, masks, lanes)
    structure = jax.tree.structure(_shapes(each, _recorder(each, adjoint, True)))
    flat = solve_p.bind(*primals, problem=problem, adjoint=adjoint, recording=True, lanes=lanes, masks=masks)
    outcome, history = jax.tree.unflatten(structure, flat)

    def replay(*some):
        return adjoint.replay(_each(problem, merge(some), masks, lanes), outcome, history)

    _, (z1, rows, slots) = jax.jvp(replay, chosen, directions)
    save = problem.unflatten(primals).save
    still = jax.tree.map(lambda _: _STILL, (outcome, history))
    outcome_dot = still[0]._replace(z1=z1, out=save.with_rows(still[0].out, rows))
    return flat, jax.tree.leaves((outcome_dot, still[1]._replace(z=slots)))


solve_p.def_impl(lambda *leaves, **params: _compiled(**params)(*leaves))
solve_p.def_abstract_eval(_abstract)
mlir.register_lowering(solve_p, mlir.lower_fun(_run, multiple_results=True))
batching.primitive_batchers[solve_p] = _batch
ad.primitive_jvps[solve_p] = _jvp


def is_traced(values: PyTree) -> bool:
    """Whether any value belongs to a transformation that is still going on."""
    return any(isinstance(x, Tracer) for x in jax.tree.leaves(values))
