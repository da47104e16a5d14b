"""How `vmap`, `grad` and `jvp` reach the lane engine: one primitive whose batching rule adds a lane axis.

Every name of JAX that is not stable API is used in this file and in no other.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import ShapedArray, Tracer
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from node_jax import tree
from node_jax.adjoints.boundary import Cotangents
from node_jax.adjoints.pullback import replaced
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
        outcome = Outcome(z, out, count, t, Stats(count, count, count, count))
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


class _Call(NamedTuple):
    """Everything static about a solve of some lanes."""

    problem: Problem
    adjoint: Any
    lanes: tuple
    masks: tuple

    def each(self, leaves) -> Each:
        return _each(self.problem, leaves, self.masks, self.lanes)

    def solve(self, leaves) -> list:
        return solve_p.bind(*leaves, recording=self.adjoint.records, **self._asdict())

    def save(self, count: int) -> Any:
        """What is saved, without values."""
        nothing: list = [None] * count
        return self.problem.unflatten(nothing).save

    def structure(self, leaves):
        """Structure of what `solve` returns: outcome and history."""
        each = _each_shape(self.problem, leaves, self.masks, self.lanes)
        recording = self.adjoint.records
        shapes = _shapes(each, _recorder(each, self.adjoint, recording))
        return jax.tree.structure(shapes if recording else (shapes, ()))


class _Linear(NamedTuple):
    """The derivative of a solve as a linear map: `push` of tangents, `pull` of cotangents.

    Residuals are the leaves of the inputs and what the solve returned. Tangents are those of the leaves that move;
    results are the state at `t1`, the saved rows and, if the history is wanted, the states in it.
    """

    call: _Call
    moving: tuple[bool, ...]
    shifted: tuple[bool, ...]  # moves here or in an outer derivative
    with_history: bool

    @property
    def adjoint(self):
        return self.call.adjoint

    def also(self, moving):
        """Let more of the first arguments move in an outer derivative."""
        return self._replace(shifted=tuple(a or b for a, b in zip(self.shifted, moving, strict=False)))

    def open(self, residuals) -> tuple[list, Outcome, Any]:
        leaves, flat = residuals[: len(self.moving)], residuals[len(self.moving) :]
        return list(leaves), *jax.tree.unflatten(self.call.structure(leaves), flat)

    def results(self, outcome: Outcome, history) -> tuple:
        save = self.call.save(len(self.moving))
        states = self.call.adjoint.states(history) if self.with_history else ()
        return outcome.z1, save.rows(outcome.out), states

    def push(self, residuals, dots) -> list:
        """Push tangents through the steps that were taken; those of outputs that are lost are NaN."""
        leaves, outcome, history = self.open(residuals)

        def replay(*some):
            each = self.call.each(replaced(leaves, self.moving, some))
            z1, rows, states = self.call.adjoint.replay(each, outcome, history, self.shifted)
            return jax.tree.leaves((z1, rows, states if self.with_history else ()))

        chosen = tuple(x for x, yes in zip(leaves, self.moving, strict=True) if yes)
        tangents = jax.jvp(replay, chosen, tuple(dots))[1]
        known = jax.tree.leaves(self.results(outcome, history)[:2])
        lost = [jnp.isnan(x) & (not self.adjoint.plain) for x in known]  # plain code has a guard of its own
        return [jnp.where(no, jnp.nan, t) for no, t in zip(lost, tangents, strict=False)] + tangents[len(known) :]

    def pull(self, residuals, bars) -> list:
        leaves, outcome, history = self.open(residuals)
        count = len(jax.tree.leaves(self.results(outcome, history)[:2]))
        if any(type(bar) is not ad.Zero for bar in bars[count:]):
            raise _unsupported(self.call.adjoint, "reverse over reverse")
        avals = tuple(ShapedArray(x.shape, x.dtype) for x, yes in zip(leaves, self.moving, strict=True) if yes)
        bars = [ad.instantiate_zeros(bar) for bar in bars[:count]]
        return backward_p.bind(*residuals, *bars, fn=_Backward(self, len(residuals)), avals=avals)


class _Backward(NamedTuple):
    """The way back of a solve, as a function of flat arguments."""

    linear: _Linear
    count: int

    @property
    def adjoint(self):
        return self.linear.adjoint

    def also(self, moving):
        return self._replace(linear=self.linear.also(moving))

    def __call__(self, *args) -> list:
        call, moving, shifted, _ = self.linear
        leaves, outcome, history = self.linear.open(args[: self.count])
        structure = jax.tree.structure(self.linear.results(outcome, history)[:2])
        bar = Cotangents(*jax.tree.unflatten(structure, args[self.count :]))
        bars: list = call.adjoint.backward(call.each(leaves), outcome, history, bar, moving, shifted)
        return [_lanes_first(x, mask) for x, mask, yes in zip(bars, call.masks, moving, strict=True) if yes]


class _Tangent(NamedTuple):
    """The tangents of a solve, as a function of flat arguments."""

    linear: Any
    count: int

    @property
    def adjoint(self):
        return self.linear.adjoint

    def also(self, moving):
        return self._replace(linear=self.linear.also(moving))

    def __call__(self, *args) -> list:
        return self.linear.push(args[: self.count], args[self.count :])


class _Guard(NamedTuple):
    """The identity, except that tangents of lost outputs are NaN, and so are cotangents of them that are not zero."""

    adjoint: Any

    def also(self, moving):
        return self

    def push(self, lost, dots) -> list:
        return [jnp.where(no, jnp.nan, t) for no, t in zip(lost, dots, strict=True)]

    def pull(self, lost, bars) -> list:
        bars = map(ad.instantiate_zeros, bars)
        return [jnp.where(no & (g != 0), jnp.nan, g) for no, g in zip(lost, bars, strict=True)]


class _Gate(NamedTuple):
    """The identity, except that cotangents of inputs that no step used are zero."""

    adjoint: Any

    def also(self, moving):
        return self

    def push(self, used, dots) -> list:
        return list(dots)

    def pull(self, used, bars) -> list:
        bars = map(ad.instantiate_zeros, bars)
        return [jnp.where(yes, g, jnp.zeros_like(g)) for yes, g in zip(used, bars, strict=True)]


class _Derivative(NamedTuple):
    """The tangent of a function of flat arguments; `what` says what its transpose would be."""

    fn: Any
    moving: tuple[bool, ...]
    what: str

    @property
    def adjoint(self):
        return self.fn.adjoint

    def also(self, moving):
        return self._replace(fn=self.fn.also(moving))

    def push(self, primals, dots) -> list:
        chosen = tuple(x for x, yes in zip(primals, self.moving, strict=True) if yes)
        fn = self.fn.also(self.moving)
        return jax.jvp(lambda *some: fn(*replaced(primals, self.moving, some)), chosen, tuple(dots))[1]

    def pull(self, primals, bars) -> list:
        raise _unsupported(self.adjoint, self.what)


class _Mapped(NamedTuple):
    """A linear map under `vmap`; all tangents have the new axis in front."""

    linear: Any
    dims: tuple
    size: int

    @property
    def adjoint(self):
        return self.linear.adjoint

    def also(self, moving):
        return self._replace(linear=self.linear.also(moving))

    def push(self, residuals, dots) -> list:
        return jax.vmap(self.linear.push, (list(self.dims), 0), axis_size=self.size)(list(residuals), list(dots))

    def pull(self, residuals, bars) -> list:
        known = [bar for bar in bars if type(bar) is not ad.Zero]

        def one(residuals, some):
            some = iter(some)
            return self.linear.pull(residuals, [_one_zero(b) if type(b) is ad.Zero else next(some) for b in bars])

        return jax.vmap(one, (list(self.dims), 0), axis_size=self.size)(list(residuals), known)


def _one_zero(bar: Any):
    return ad.Zero(ShapedArray(bar.aval.shape[1:], bar.aval.dtype))


class _MappedFunction(NamedTuple):
    """A function of flat arguments under `vmap`."""

    fn: Any
    dims: tuple
    size: int

    @property
    def adjoint(self):
        return self.fn.adjoint

    def also(self, moving):
        return self._replace(fn=self.fn.also(moving))

    def __call__(self, *args) -> list:
        return jax.vmap(self.fn, self.dims, axis_size=self.size)(*args)


def _unsupported(adjoint, what: str) -> Exception:
    return NotImplementedError(f"adjoint={adjoint!r} does not support {what}: {adjoint.remedy(what)}")


def _jvp(primals, tangents, *, recording, **params):
    call = _Call(**params)
    moving = tuple(type(t) is not ad.Zero for t in tangents)
    flat = call.solve(primals)
    linear = _Linear(call, moving, moving, recording)
    outcome, history = jax.tree.unflatten(call.structure(primals), flat)
    results = linear.results(outcome, history)
    dots = [t for t, yes in zip(tangents, moving, strict=True) if yes]
    if call.adjoint.plain:
        z1, rows, states = _plain_tangents(linear, primals, flat, dots, results)
    else:
        pushed = _bind_linear(linear, [*primals, *flat], dots, jax.tree.leaves(results))
        z1, rows, states = jax.tree.unflatten(jax.tree.structure(results), pushed)

    still = jax.tree.map(lambda _: _STILL, (outcome, history))
    save = call.save(len(moving))
    moved = still[0]._replace(z1=z1, out=save.with_rows(still[0].out, rows))
    history_dot = call.adjoint.with_states(still[1], states) if recording else ()
    outs = flat if recording else jax.tree.leaves(outcome)
    dots = jax.tree.leaves((moved, history_dot))
    return outs, [
        ad.Zero(jax.typeof(x).to_tangent_aval()) if t is _STILL else t for x, t in zip(outs, dots, strict=True)
    ]


def _plain_tangents(linear: _Linear, primals, flat, dots, results) -> tuple:
    """Push tangents by code that JAX transposes itself, guarded where a lane failed."""
    outcome = linear.open([*primals, *flat])[1]
    taken = outcome.stats.accepted > 0
    used = [
        _lanes_first(tree.any_missing(taken, m), m)
        for m, yes in zip(linear.call.masks, linear.moving, strict=True)
        if yes
    ]
    used = [jnp.expand_dims(u, range(u.ndim, t.ndim)) for u, t in zip(used, dots, strict=True)]
    dots = _bind_linear(_Gate(linear.adjoint), used, dots, dots)
    pushed = linear.push([*primals, *flat], dots)
    leaves, structure = jax.tree.flatten(results)
    return jax.tree.unflatten(
        structure, _bind_linear(_Guard(linear.adjoint), [jnp.isnan(x) for x in leaves], pushed, leaves)
    )


def _bind_linear(linear, residuals: Sequence, dots: Sequence, results: Sequence) -> list:
    avals = tuple(ShapedArray(x.shape, x.dtype) for x in results)
    return tangent_p.bind(*residuals, *dots, linear=linear, count=len(residuals), avals=avals)


def _lanes_first(x: Any, mask: Sequence[bool]) -> Any:
    return None if x is None else x.transpose(tree.lanes_first(x.shape, sum(mask)))


tangent_p = Primitive("odesolve_tangent")
tangent_p.multiple_results = True
backward_p = Primitive("odesolve_backward")
backward_p.multiple_results = True


def _tangent_transpose(bars, *args, linear, count, avals):
    return [None] * count + linear.pull(args[:count], bars)


def _tangent_jvp(primals, tangents, *, linear, count, avals):
    outs = tangent_p.bind(*primals, linear=linear, count=count, avals=avals)
    parts = []
    if any(type(t) is not ad.Zero for t in tangents[count:]):
        dots = [ad.instantiate_zeros(t) for t in tangents[count:]]
        parts.append(tangent_p.bind(*primals[:count], *dots, linear=linear, count=count, avals=avals))
    moving = tuple(type(t) is not ad.Zero for t in tangents[:count]) + (False,) * (len(primals) - count)
    if any(moving):
        second = _Derivative(_Tangent(linear, count), moving, "reverse over forward")
        dots = [t for t, yes in zip(tangents, moving, strict=True) if yes]
        parts.append(_bind_linear(second, list(primals), dots, outs))
    return outs, [sum(some) for some in zip(*parts, strict=True)]


def _more(avals, size: int) -> tuple:
    return tuple(ShapedArray((size, *x.shape), x.dtype) for x in avals)


def _tangent_batch(args, dims, *, linear, count, avals):
    size = next(x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None)
    dots = [
        jnp.broadcast_to(x, (size, *x.shape)) if d is None else jnp.moveaxis(x, d, 0)
        for x, d in zip(args[count:], dims[count:], strict=True)
    ]
    avals = _more(avals, size)
    linear = _Mapped(linear, tuple(dims[:count]), size)
    return tangent_p.bind(*args[:count], *dots, linear=linear, count=count, avals=avals), [0] * len(avals)


def _backward_jvp(primals, tangents, *, fn, avals):
    outs = backward_p.bind(*primals, fn=fn, avals=avals)
    moving = tuple(type(t) is not ad.Zero for t in tangents)
    derivative = _Derivative(fn, moving, "reverse over reverse")
    dots = [t for t, yes in zip(tangents, moving, strict=True) if yes]
    return outs, _bind_linear(derivative, list(primals), dots, outs)


def _backward_batch(args, dims, *, fn, avals):
    size = next(x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None)
    avals = _more(avals, size)
    return backward_p.bind(*args, fn=_MappedFunction(fn, tuple(dims), size), avals=avals), [0] * len(avals)


def _register(primitive: Primitive, run: Callable):
    primitive.def_impl(run)
    primitive.def_abstract_eval(lambda *args, avals, **_: list(avals))
    mlir.register_lowering(primitive, mlir.lower_fun(run, multiple_results=True))


_register(tangent_p, lambda *args, linear, count, avals: linear.push(args[:count], args[count:]))
_register(backward_p, lambda *args, fn, avals: fn(*args))
batching.primitive_batchers[tangent_p] = _tangent_batch
batching.primitive_batchers[backward_p] = _backward_batch
ad.primitive_jvps[tangent_p] = _tangent_jvp
ad.primitive_jvps[backward_p] = _backward_jvp
ad.primitive_transposes[tangent_p] = _tangent_transpose

solve_p.def_impl(lambda *leaves, **params: _compiled(**params)(*leaves))
solve_p.def_abstract_eval(_abstract)
mlir.register_lowering(solve_p, mlir.lower_fun(_run, multiple_results=True))
batching.primitive_batchers[solve_p] = _batch
ad.primitive_jvps[solve_p] = _jvp


def is_traced(values: PyTree) -> bool:
    """Whether any value belongs to a transformation that is still going on."""
    return any(isinstance(x, Tracer) for x in jax.tree.leaves(values))
