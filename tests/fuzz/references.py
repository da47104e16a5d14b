"""What a solve should return: closed forms, and for prescribed steps a plain loop over them. In double precision."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .solves import Named, observed, parameters
from .structures import METHODS, Structure


def expected(s: Structure, a: dict, of: str = "steps") -> tuple[dict, dict]:
    """Return what `solve` returns for one lane that does not fail: of the steps if they are prescribed, or the flow.

    `a` holds `nodes`, the ends of the steps taken, and `count`, their number, where these are saved.
    """
    a = {k: _double(x) for k, x in a.items()}
    if s.steps == "grid":
        a |= {"t0": a["grid"][0], "t1": a["grid"][-1]}
    z1, rows = flow(s, a)
    if not s.adaptive and of == "steps":
        z1, rows = loop(s, a)
    seen = {"z1": z1, "rows": rows}
    y: dict[str, Any] = {}
    if s.reads_end:
        y["z1"] = [_where(a["keep"], x) for x in z1]
    if s.reads_rows:
        used = jnp.arange(s.capacity) < a["count"] if s.save == "steps" else jnp.array(True)
        y["rows"] = [_where(a["keep"] & used, x) for x in rows]
    return y, seen


def flow(s: Structure, a: dict) -> tuple[list, list]:
    """Return the state at `t1` and the rows, of the closed form."""
    p = parameters(s, a)

    def at(t):
        return [s.of.exact(a[f"z0.{i}"], a["t0"], t, p) for i in range(len(s.shapes))]

    def saved(t):
        z = at(t)
        return observed(z, t, p) if s.save == "fn" else z

    ts = {"at": "ts", "fn": "ts", "dense": "tq", "steps": "nodes"}.get(s.save)
    return at(a["t1"]), [] if ts is None else jax.vmap(saved)(a[ts])


def loop(s: Structure, a: dict) -> tuple[list, list]:
    """Return the same of prescribed steps of the method, taken one by one."""
    p, method, sign = parameters(s, a), METHODS[s.method], jnp.where(a["t1"] < a["t0"], -1.0, 1.0)
    nodes = a["grid"] if s.steps == "grid" else a["t0"] + (a["t1"] - a["t0"]) * jnp.linspace(0.0, 1.0, s.n + 1)
    field = Named(s.of.slope)
    z0 = [a[f"z0.{i}"] for i in range(len(s.shapes))]
    take = _coupled if s.strategy.of == "scheme" else _plain

    def body(carry, ends):
        t, end = ends
        base, slopes, carry = take(method, field, carry, t, end - t, p)
        return carry, (base, slopes, carry[0])

    start = (z0, z0, jnp.zeros((), int))
    (z1, *_), (bases, slopes, states) = lax.scan(body, start, (nodes[:-1], nodes[1:]))
    if s.save == "steps":
        return z1, states
    if s.save == "end":
        return z1, []
    reached = sign * lax.stop_gradient(nodes)

    def row(t):
        ahead = sign * lax.stop_gradient(t)
        i = jnp.sum(reached[1:-1] <= ahead) if s.save == "dense" else jnp.sum(reached[1:-1] < ahead)
        base, some = jax.tree.map(lambda x: x[i], (bases, slopes))
        h = nodes[i + 1] - nodes[i]
        h = jnp.where(h == 0, 1.0, h)  # all slopes are equal there: any length will do
        x = (t - nodes[i]) / h
        weights = [sum(c * x ** (j + 1) for j, c in enumerate(numbers)) for numbers in method.dense]
        z = _combined(base, h, weights, some)
        return observed(z, t, p) if s.save == "fn" else z

    return z1, jax.vmap(row)(a["tq" if s.save == "dense" else "ts"])


def _plain(method, field, carry, t, h, p):
    z, other, k = carry
    slopes = _slopes(method, field, z, t, h, p)
    return z, slopes, (_combined(z, h, method.b, slopes), other, k + 1)


def _coupled(method, field, carry, t, h, p, coupling=0.999, restart=16):
    """Take a step of the reversible scheme of McCallum and Foster (2024), restarted as `Reversible` does."""
    y, z, k = carry
    z = [jnp.where(k % restart == 0, a, b) for a, b in zip(y, z, strict=True)]
    slopes = _slopes(method, field, z, t, h, p)
    mixed = [coupling * a + (1 - coupling) * b for a, b in zip(y, z, strict=True)]
    y1 = _combined(mixed, h, method.b, slopes)
    back = _slopes(method, field, y1, t + h, -h, p)
    return y, slopes, (y1, _combined(z, h, method.b, back), k + 1)


def _slopes(method, field, z, t, h, p):
    slopes: list = []
    for c, row in (*zip(method.c, method.a, strict=True), *zip(method.c_dense, method.a_dense, strict=True)):
        slopes.append(field(_combined(z, h, row, slopes), t + c * h, p))
    return slopes


def _combined(z, h, weights, slopes):
    for w, slope in zip(weights, slopes, strict=False):
        z = [x + h * w * k for x, k in zip(z, slope, strict=True)]
    return z


def _double(x):
    kind = jnp.complex128 if jnp.iscomplexobj(x) else jnp.float64
    return x.astype(kind) if jnp.issubdtype(x.dtype, jnp.inexact) else x


def _where(used, x):
    return jnp.where(jnp.reshape(used, used.shape + (1,) * (x.ndim - used.ndim)), x, 0.0)
