"""The solve of a structure, and the derivatives that are taken of it."""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

import node_jax as nj

from .structures import CONTROLS, METHODS, Structure


class Named(NamedTuple):
    """A field that is applied to every leaf of a state."""

    slope: Callable

    def __call__(self, z, t, p):
        return jax.tree.map(lambda x: self.slope(x, t, p).astype(x.dtype), z)


class Model(eqx.Module):
    """A field that holds its parameters."""

    p: dict
    field: Named = eqx.field(static=True)

    def __call__(self, z, t, theta):
        return self.field(z, t, self.p)


def closed(field: Callable, p: dict) -> Callable:
    """Return a field that closes over its parameters."""

    def f(z, t, theta):
        return field(z, t, p)

    return f


def observed(z, t, p):
    """What `SaveAt(ts, fn)` saves."""
    factor = (1 + t / 8) * jnp.sum(jax.tree.leaves(p)[0])
    return jax.tree.map(lambda x: (factor * x).astype(x.dtype), z)


def parameters(s: Structure, a: dict) -> dict:
    """Return what the field takes for parameters."""
    p = {name: a[f"p.{name}"] for name in s.of.params}
    return p | {"tau": a["points"][s.tau]} if s.field == "jump" else p


def options(s: Structure, a: dict) -> dict:
    """Return the options of the solve."""

    def tolerance(name):
        return s.state([a[f"{name}.{i}"] for i in range(len(s.shapes))]) if s.steps == "leaf" else a[name]

    if s.adaptive:
        points = {"breakpoints": a["points"]} if s.points else {}
        steps = nj.Adaptive(tolerance("rtol"), tolerance("atol"), **points, **CONTROLS[s.control])
    else:
        steps = nj.Fixed(s.n) if s.steps == "fixed" else nj.Grid(a["grid"])
    saves = {
        "end": lambda: nj.SaveEnd(),
        "at": lambda: nj.SaveAt(a["ts"]),
        "fn": lambda: nj.SaveAt(a["ts"], observed),
        "steps": lambda: nj.SaveSteps(s.capacity),
        "dense": lambda: nj.Dense(s.capacity),
    }
    return {
        "method": METHODS[s.method],
        "steps": steps,
        "adjoint": s.strategy.adjoint,
        "save": saves[s.save](),
        "max_steps": s.max_steps,
        "lane_width": s.width,
    }


def solve(s: Structure, a: dict) -> tuple[dict, dict]:
    """Solve one lane; return what a loss reads, zero where it failed, and everything else that is looked at."""
    p, field = parameters(s, a), Named(s.of.slope)
    f, theta = field, None
    if s.home == "theta":
        theta = p
    elif s.home == "module":
        f = Model(p, field)
    else:
        f = closed(field, p)
    z0 = s.state([a[f"z0.{i}"] for i in range(len(s.shapes))])
    t0, t1 = (a["grid"][0], a["grid"][-1]) if s.steps == "grid" else (a["t0"], a["t1"])
    sol = nj.odesolve(f, z0, t0, t1, theta, throw=False, **options(s, a))
    rows = sol.evaluate(a["tq"]) if s.save == "dense" else sol.zs
    ok = sol.ok & a["keep"]
    y: dict[str, Any] = {}
    if s.reads_end:
        y["z1"] = [jnp.where(ok, x, jnp.zeros_like(x)) for x in jax.tree.leaves(sol.z1)]
    if s.reads_rows:
        used = jnp.arange(s.capacity, dtype=jnp.int32) < sol.count if s.save == "steps" else jnp.array(True)
        y["rows"] = [_masked(ok & used, x) for x in jax.tree.leaves(rows)]
    seen = {"z1": jax.tree.leaves(sol.z1), "status": sol.status, "t_reached": sol.t_reached, "stats": sol.stats}
    if rows is not None:
        seen["rows"] = jax.tree.leaves(rows)
    if s.save == "steps":
        seen["nodes"] = sol.ts
    if s.switch == "debug_nans":  # rows that are not used are NaN, and so would be the outputs of this program
        return y, lax.stop_gradient(jax.tree.map(jnp.nan_to_num, seen))
    if s.save == "dense":
        beyond = jnp.stack([jnp.minimum(t0, t1) - 0.25, jnp.maximum(t0, t1) + 0.25])
        seen["beyond"] = jax.tree.leaves(sol.evaluate(beyond))
    return y, lax.stop_gradient(seen)


def _masked(used, x):
    return jnp.where(jnp.reshape(used, used.shape + (1,) * (x.ndim - used.ndim)), x, jnp.zeros_like(x))


def wrapped(s: Structure, one: Callable) -> Callable:
    """Put the solve of a lane into a transformation or into control flow."""

    def scanned(a):
        twice = {k: jnp.stack([x, x]) for k, x in a.items()}
        _, out = lax.scan(lambda carry, a: (carry, one(a)), (), twice)
        return jax.tree.map(lambda x: x[1], out)

    def conditional(a):
        shapes = jax.eval_shape(one, a)
        return lax.cond(a["yes"], one, lambda a: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), a)

    table = {"scan": scanned, "cond": conditional, "checkpoint": jax.checkpoint(one), "jit": jax.jit(one)}
    return table.get(s.wrapper, one)


def weigh(y: dict, a: dict) -> jax.Array:
    """Return a linear loss."""
    terms = [jnp.sum((a[f"w.{part}.{i}"] * x).real) for part, xs in y.items() for i, x in enumerate(xs)]
    return sum(terms[1:], terms[0].astype(jnp.result_type(*terms)))


class Lanes(NamedTuple):
    """A structure and what maps a function of the arguments of one lane over all."""

    s: Structure

    def axes(self, keys, level: int) -> dict:
        """Return `in_axes` of a vmap."""
        return {k: 0 if self.s.mask(k.removeprefix("v."))[level] else None for k in keys}

    def mapped(self, fn: Callable) -> Callable:
        """Map `fn(d, rest, v)`, all dicts of arguments, over all lane axes."""

        def call(*dicts):
            inner = fn
            for level in reversed(range(len(self.s.lanes))):
                axes = tuple(self.axes(d, level) for d in dicts)
                inner = jax.vmap(inner, in_axes=axes, axis_size=self.s.lanes[level])
            return inner(*dicts)

        return call


def push(fn: Callable) -> Callable:
    """Return the tangent of `fn(d, rest)`, which returns what was seen besides."""

    def pushed(d, rest, v):
        _, dot, seen = jax.jvp(lambda d: fn(d, rest), (d,), (v,), has_aux=True)
        return dot, seen

    return pushed


def pull(fn: Callable) -> Callable:
    """Return the gradient."""
    return jax.grad(fn, has_aux=True)


def only(fn: Callable) -> Callable:
    """Leave the tangents out."""
    return lambda d, rest, v: fn(d, rest)


def derivative_of(s: Structure, one: Callable) -> Callable:
    """Return `(d, rest, v) -> (derivative with respect to d, what was seen)`; `v` are tangents of `d`."""
    each = Lanes(s).mapped

    def lane(d, rest):
        return one({**d, **rest})

    def loss(d, rest):
        y, seen = lane(d, rest)
        return weigh(y, rest), seen

    def total(d, rest):
        losses, seen = each(loss)(d, rest)
        return jnp.sum(losses), seen

    def vector(d, rest):
        y, seen = lane(d, rest)
        return jnp.concatenate([x.ravel() for x in jax.tree.leaves(y)]), seen

    def along(d, rest, v):
        gradient, seen = pull(total)(d, rest)
        return sum(jnp.vdot(v[k], g) for k, g in gradient.items()), seen

    kinds = {
        "none": only(each(lane)),
        "grad": only(pull(total)),
        "vmap_grad": only(each(pull(loss))),
        "jacrev": only(each(jax.jacrev(vector, has_aux=True))),
        "jacfwd": only(jax.jacfwd(total, has_aux=True)),
        "jvp": push(each(lane)),
        "vmap_jvp": each(push(lane)),
        "hvp_fr": push(pull(total)),
        "vmap_hvp": each(push(pull(loss))),
        "hvp_ff": lambda d, rest, v: push(lambda d, rest: push(total)(d, rest, v))(d, rest, v),
        "hvp_rr": lambda d, rest, v: pull(lambda d: along(d, rest, v))(d),
    }
    return kinds[s.derivative]


@contextlib.contextmanager
def under(switch: str):
    """Run under one of JAX's switches."""
    table = {
        "disable_jit": lambda: jax.disable_jit(),
        "debug_nans": lambda: jax.debug_nans(True),
        "leaks": lambda: jax.checking_leaks(),
        "rank": lambda: jax.numpy_rank_promotion("raise"),
        "strict": lambda: jax.numpy_dtype_promotion("strict"),
        "x32": lambda: jax.enable_x64(False),
    }
    with table.get(switch, contextlib.nullcontext)():
        yield


def split(s: Structure, values: dict) -> tuple[dict, dict, dict]:
    """Separate arguments that are differentiated, others, and tangents."""
    keys = s.differentiated
    v = {k: values[f"v.{k}"] for k in keys}
    rest = {k: x for k, x in values.items() if k not in keys and not k.startswith("v.")}
    return {k: values[k] for k in keys}, rest, v
