"""The primitive of a solve, through which `vmap`, `grad` and `jvp` reach the engine; its batching adds a lane axis."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from node_jax import placement, tree
from node_jax.checks import checked, standard, without_order
from node_jax.compat import Primitive, ShapedArray, ad, batching, mlir
from node_jax.engine import queue
from node_jax.engine.each import Each
from node_jax.engine.ensemble import lowered_for, plan, width_of
from node_jax.engine.lane import Outcome, Problem
from node_jax.engine.lockstep import integrate
from node_jax.jaxprs import equations
from node_jax.lanes.applied import Applied, Derivative, Mapped, innermost, one_entry
from node_jax.lanes.chunks import Chunks
from node_jax.lanes.gates import Asked, Gate, Guard, with_own
from node_jax.lanes.linear import Call, Recording, SolveMap, Wanted, recorder_of
from node_jax.types import PyTree

solve_p = Primitive("odesolve")
solve_p.multiple_results = True

_FIXED = object()  # marks outputs without a tangent


def solve(problem: Problem, adjoint, leaves: Sequence[jax.Array]) -> Outcome:
    """Solve one problem, as a primitive that all transformations know."""
    leaves, masks = placement.varying_alike(leaves), ((),) * len(leaves)
    flat = solve_p.bind(*leaves, problem=problem, adjoint=adjoint, recording=Recording.NEVER, lanes=(), masks=masks)
    return Call(problem, adjoint, (), masks).outcome(leaves, flat, Recording.NEVER)


def _lower(primitive: Primitive, fn: Callable) -> None:
    """Lower a primitive as code for one device, with types that name no mesh."""
    for platform in (None, "cpu"):
        mlir.register_lowering(primitive, without_order(_lowering(fn, platform == "cpu")), platform=platform)


def _lowering(fn: Callable, cpu: bool) -> Callable:
    def on(*args, **params):
        with lowered_for(cpu):
            return fn(*args, **params)

    lowered = mlir.lower_fun(on, multiple_results=True)

    def rule(ctx, *args, **params):
        alone = {
            name: [ShapedArray(x.shape, x.dtype) for x in getattr(ctx, name)] for name in ("avals_in", "avals_out")
        }
        return lowered(ctx.replace(**alone), *args, **params)

    return rule


@standard
def _run(*leaves, problem, adjoint, recording, lanes, masks):
    each = Each(problem, leaves, masks, lanes)
    if recording is not Recording.NEVER:
        outcome, history = integrate(each, recorder_of(each, adjoint, recording))
        return jax.tree.leaves((outcome, history.closed()))
    planned = plan(each, width_of(problem))
    return jax.tree.leaves(integrate(each, None)[0] if planned is None else queue.solve(each, planned))


@standard
def _abstract(*leaves, recording, **params):
    return placement.shaped(jax.tree.leaves(Call(**params).shapes(leaves, recording)), leaves)


@functools.lru_cache(maxsize=64)
def _compiled(**params):
    return jax.jit(functools.partial(_run, **params))


def _batch(args, dims, *, lanes, masks, recording, **params):
    call = Call(lanes=lanes, masks=masks, **params)
    if recording is Recording.IF_KEPT:
        one = [_entry(x, d) for x, d in zip(args, dims, strict=True)]
        if not call.keeps(one, _size(args, dims)):
            outs, places = _batch(args, dims, recording=Recording.NEVER, **call._asdict())
            blank = call.blank(one)
            return placement.varying_alike([*outs, *blank]), [*places, *[None] * len(blank)]
    masks = tuple((d is not None, *mask) for d, mask in zip(dims, masks, strict=True))

    def batched(n, *args):
        args = [x if d is None else jnp.moveaxis(x, d, -1) for x, d in zip(args, dims, strict=True)]
        call = Call(lanes=(n, *lanes), masks=masks, **params)
        outs = solve_p.bind(*args, recording=recording, **call._asdict())
        own = _has_lanes(call, args, recording)
        return outs, [x.ndim - 1 if has else None for x, has in zip(outs, own, strict=True)]

    return placement.mapped(batched, args, dims, together=recording is not Recording.NEVER)


def _size(args: Sequence, dims: Sequence) -> int:
    """Return the size of the mapped axis of a derivative."""
    size = next(x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None)
    _refuse_symbolic(size)
    return size


def _refuse_symbolic(*lanes: Any) -> None:
    """Refuse derivatives of ensembles of symbolic size, of which what is recorded depends on the number of lanes."""
    for size in lanes:
        if placement.is_symbolic(size):
            raise NotImplementedError(
                f"a derivative of a batch of symbolic size {size} cannot be exported, as how many states are recorded"
                " depends on the size: export it with a fixed size. The solve alone can be exported"
            )


def _entry(x: jax.Array, d: int | None) -> jax.ShapeDtypeStruct:
    """Return the shape of one entry along the mapped axis."""
    return jax.ShapeDtypeStruct(x.shape if d is None else x.shape[:d] + x.shape[d + 1 :], x.dtype)


def _has_lanes(call: Call, leaves: Sequence, recording: Recording) -> list[bool]:
    """Say for each output whether it has lane axes."""
    shapes = call.shapes(leaves, recording)
    if recording is Recording.NEVER:
        return [True] * len(jax.tree.leaves(shapes))
    outcome, history = shapes
    return [True] * len(jax.tree.leaves(outcome)) + history.has_lanes()


def _jvp(primals, tangents, *, recording, **params):
    """Differentiate a solve: it is taken and recorded, and tangents are pushed along its steps."""
    call = Call(**params)
    _refuse_symbolic(*call.lanes)
    moving = _known(tangents)
    inner = recording is Recording.NEVER  # whether this is the innermost derivative of the solve
    planned = plan(call.each_of_shapes(primals), call.width(primals)) if inner and not call.adjoint.plain else None
    if planned is not None:
        return _jvp_of_chunks(primals, tangents, Chunks(call, moving, planned, _solve_flat))
    recording = call.recording if inner else recording
    flat = solve_p.bind(*primals, recording=recording, **params)
    outcome, history = call.open(primals, flat)
    recorded = recording if call.adjoint.records else Recording.ALWAYS
    solve_map = SolveMap(call, Wanted(moving, moving), not inner, _solve_recorded, recorded)
    z1, rows, states = _pushed(solve_map, primals, flat, tree.picked(tangents, moving))
    if inner:
        outs = jax.tree.leaves(outcome)
        return outs, _tangents(outs, outcome, (z1, rows))
    return flat, _tangents(flat, outcome, (z1, rows), history.closed(), states)


def _pushed(solve_map: SolveMap, leaves: Sequence, flat: Sequence, dots: list) -> tuple:
    """Return the tangents of the state at `t1` and the rows, NaN where these are lost, and of the recorded states."""
    residuals = [*leaves, *flat]
    ended = solve_map.results(residuals)
    results, structure = jax.tree.flatten(ended)
    count = len(jax.tree.leaves(ended[:2]))
    if solve_map.call.adjoint.plain and not any(placement.axes(jax.typeof(x)) for x in leaves):
        pushed = _gated(solve_map, residuals, dots, results)
    else:
        pushed = _bind(solve_map, residuals, dots, results)
    guarded = _bind(Guard(), [jnp.isnan(x) for x in results[:count]], pushed[:count], results[:count])
    return jax.tree.unflatten(structure, [*guarded, *pushed[count:]])


def _jvp_of_chunks(primals, tangents, chunks: Chunks):
    """Differentiate a solve that goes through a queue; chunks treat lost outputs and unused inputs themselves."""
    outs = _solve_flat(chunks.call, primals)
    residuals = [*primals, *outs]
    results, structure = jax.tree.flatten(chunks.results(residuals))
    pushed = _bind(chunks, residuals, tree.picked(tangents, chunks.moving), results)
    return outs, _tangents(outs, chunks.outcome(residuals), jax.tree.unflatten(structure, pushed))


def _solve_flat(call: Call, leaves: Sequence) -> list:
    return solve_p.bind(*leaves, recording=Recording.NEVER, **call._asdict())


def _solve_recorded(call: Call, leaves: Sequence) -> list:
    return solve_p.bind(*leaves, recording=Recording.ALWAYS, **call._asdict())


def _tangents(outs: Sequence, outcome: Outcome, moved: tuple, history: PyTree = (), states=()) -> list:
    """Return the tangents of all outputs, given those that are not zero."""
    fixed = jax.tree.map(lambda _: _FIXED, (outcome, history))
    first = fixed[0]._replace(z1=moved[0], saved=fixed[0].saved._replace(rows=moved[1]))
    dots = jax.tree.leaves((first, fixed[1]._replace(z=states) if history else ()))
    return [ad.Zero(jax.typeof(x).to_tangent_aval()) if t is _FIXED else t for x, t in zip(outs, dots, strict=True)]


def _gated(solve_map: SolveMap, residuals: Sequence, dots: list, results: list) -> list:
    """Push tangents through code that JAX transposes itself, with a gate for lanes that failed or took no step."""
    outcome = solve_map.outcome(residuals)
    solve_map, residuals, dots = with_own(solve_map, residuals, dots)
    asked = jnp.zeros(outcome.ok.shape, jnp.float32)
    gate = Gate(tuple(tree.picked(solve_map.call.masks, solve_map.wanted.moving)))
    *dots, passed = _bind(gate, [outcome.ok, outcome.stats.accepted > 0], [*dots, asked], [*dots, asked])
    pushed = solve_map.push(residuals, dots)
    return _bind(Asked(len(solve_map.call.lanes)), [asked], [*pushed, passed], results)


def _known(tangents) -> tuple[bool, ...]:
    return tuple(type(t) is not ad.Zero for t in tangents)


def _avals(values, size: int | None = None) -> tuple:
    return tuple(ShapedArray(x.shape if size is None else (size, *x.shape), x.dtype) for x in values)


tangent_p = Primitive("odesolve_tangent")  # pushes tangents through a linear map, and can be transposed
backward_p = Primitive("odesolve_backward")  # pulls cotangents back


def _bind(linear, residuals: Sequence, dots: Sequence, results: Sequence) -> list:
    return tangent_p.bind(*residuals, *dots, fn=Applied(linear, len(residuals)), avals=_avals(results))


def _transpose(bars, *args, fn: Applied, avals):
    """Pull cotangents back: over steps by a primitive, of which a further derivative has a rule; else by plain code."""
    residuals, dots, known = args[: fn.count], args[fn.count :], _known(bars)
    pull, some = fn._replace(zeros=tuple(not yes for yes in known)), tree.picked(bars, known)
    if one_entry(fn.linear).solves:
        pulled = backward_p.bind(*residuals, *some, fn=pull, avals=_avals([x.aval for x in dots]))
    else:
        pulled = pull.apply(*residuals, *some)
    return [None] * fn.count + [ad.Zero(x.aval) if g is None else g for x, g in zip(dots, pulled, strict=True)]


def _tangent_jvp(primals, tangents, *, fn: Applied, avals):
    outs = tangent_p.bind(*primals, fn=fn, avals=avals)
    residuals, dots = primals[: fn.count], tangents[fn.count :]
    moving = _known(tangents[: fn.count]) + (False,) * len(dots)
    parts = []
    if any(_known(dots)):
        parts.append(_bind(fn.linear, residuals, [ad.instantiate_zeros(t) for t in dots], outs))
    if any(moving):
        parts.append(_bind(Derivative(fn, moving), primals, tree.picked(tangents, moving), outs))
    return outs, [sum(some) for some in zip(*parts, strict=True)]


def _backward_jvp(primals, tangents, *, fn: Applied, avals):
    outs = backward_p.bind(*primals, fn=fn, avals=avals)
    moving = _known(tangents)
    return outs, _bind(Derivative(fn, moving), primals, tree.picked(tangents, moving), outs)


def _batch_applied(primitive, args, dims, *, fn: Applied, avals):
    fn = fn.over(args, dims, _size(args, dims))

    def batched(size, *args):
        front = [
            jnp.broadcast_to(x, (size, *x.shape)) if d is None else jnp.moveaxis(x, d, 0)
            for x, d in zip(args[fn.count :], dims[fn.count :], strict=True)
        ]
        mapped = fn._replace(linear=Mapped(fn.linear, tuple(dims[: fn.count]), size))
        args = [*args[: fn.count], *front]
        # with more lanes fewer states of each may be recorded
        shapes = _avals(jax.eval_shape(mapped.apply, *args)) if innermost(fn).with_history else _avals(avals, size)
        return primitive.bind(*args, fn=mapped, avals=shapes), [0] * len(avals)

    return placement.mapped(batched, args, dims)


@standard
def _call(*args, fn: Applied, avals):
    return fn.apply(*args)


for _primitive, _rule in ((tangent_p, _tangent_jvp), (backward_p, _backward_jvp)):
    _primitive.multiple_results = True
    _primitive.def_impl(_call)
    _primitive.def_abstract_eval(lambda *args, fn, avals: placement.shaped(avals, args))
    _lower(_primitive, _call)
    batching.primitive_batchers[_primitive] = standard(functools.partial(_batch_applied, _primitive))
    ad.primitive_jvps[_primitive] = standard(_rule)
ad.primitive_transposes[tangent_p] = standard(_transpose)

solve_p.def_impl(lambda *leaves, **params: _compiled(**params)(*leaves))
solve_p.def_abstract_eval(_abstract)
_lower(solve_p, _run)
batching.primitive_batchers[solve_p] = standard(_batch)
ad.primitive_jvps[solve_p] = standard(_jvp)


def _lost(outs, leaves, *, problem, adjoint, recording, lanes, masks) -> list:
    """Return NaN for lanes that failed, for `nan_checks`; rows may be NaN on purpose and are not tested."""
    outcome = Call(problem, adjoint, lanes, masks).outcome(leaves, outs, recording)
    return [jnp.where(outcome.ok, 0.0, jnp.nan)]


def _operations(leaves, *, problem, adjoint, recording, lanes, masks) -> set[str]:
    """Return the names of the operations in the field, for `checkify`."""

    def slopes(leaves):
        each = Each(problem, leaves, masks, lanes)
        return each(lambda inputs, _: problem.field(inputs.z0, inputs.t0, inputs.theta))()

    return {eqn.primitive.name for eqn in equations(jax.make_jaxpr(slopes)(leaves).jaxpr)}


def _pulled_or_pushed(outs, _, *, fn: Applied, avals) -> list:
    """Return derivatives to test; tangents of outputs that may be lost are NaN on purpose and left out."""
    return [] if fn.zeros is None and one_entry(fn.linear).loses else list(outs)


checked(solve_p, _lost, _operations)
checked(tangent_p, _pulled_or_pushed)
checked(backward_p, _pulled_or_pushed)
