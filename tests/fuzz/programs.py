"""Write a short program, with nothing of this package in it, that shows what a draw found."""

import inspect

import jax
import numpy as np

from .comparing import Finding
from .solves import observed
from .structures import CONTROLS, TREES, Structure
from .values import Draw

SWITCHES = {
    "disable_jit": 'jax.config.update("jax_disable_jit", True)',
    "debug_nans": 'jax.config.update("jax_debug_nans", True)',
    "leaks": 'jax.config.update("jax_check_tracer_leaks", True)',
    "rank": 'jax.config.update("jax_numpy_rank_promotion", "raise")',
    "strict": 'jax.config.update("jax_numpy_dtype_promotion", "strict")',
}
LARGEST = 400  # numbers that a program may hold


class Text(str):
    """A string that is shown without quotes inside of a container."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def program(s: Structure, draw: Draw, finding: Finding) -> str:
    """Return the text of a program that prints `finding.got`."""
    if sum(x.size for x in draw.values.values()) > LARGEST:
        return "(too large to be shown: use --show)"
    looks = finding.check in ("status", "value", "t_reached", "nodes", "not NaN", "value before the failure")
    looks |= finding.check.startswith("not NaN")
    settings = [] if s.switch == "x32" else ['jax.config.update("jax_enable_x64", True)']
    settings += [SWITCHES[s.switch]] if s.switch in SWITCHES else []
    used = _used(s, draw, looks)
    lines = ["; ".join(["import equinox as eqx, jax, jax.numpy as jnp, node_jax as nj", *settings]), *_field(s)]
    lines += [f"A = {used!r}", f"def solve(a): return {_call(s)}"]
    lines += _looking(s) if looks else [*_loss(s, used), _derivative(s)]
    where = f"{finding.key}{[int(i) for i in finding.lane]}" if len(finding.lane) else finding.key
    lines.append(f"# {finding.check}: {where} is {finding.got} for {finding.want}")
    return "\n".join(lines)


def literal(x: np.ndarray) -> Text:
    """Write an array down."""
    if x.dtype.kind not in "fcb":
        return Text(repr(x.tolist()))
    numbers = repr(x.tolist()).replace("nan", "jnp.nan").replace("inf", "jnp.inf")
    dtype = "" if x.dtype.name in ("float64", "complex128", "bool") else f", jnp.{x.dtype.name}"
    if x.dtype.kind in "fc" and x.size > 1 and np.all(x == 1):
        return Text(f"jnp.ones({x.shape}{dtype})")
    if x.size == 0:
        return Text(f"jnp.zeros({x.shape}{dtype})")
    return Text(f"jnp.array({numbers}{dtype})")


def _field(s: Structure) -> list[str]:
    name = s.of.slope.__name__
    lines = inspect.getsource(s.of.slope).rstrip().splitlines()
    lines += [f"def field(z, t, p): return jax.tree.map(lambda x: {name}(x, t, p).astype(x.dtype), z)"]
    if s.home == "module":
        lines += [
            "class Model(eqx.Module):",
            "    p: dict",
            "    def __call__(self, z, t, _): return field(z, t, self.p)",
        ]
    if s.save == "fn":
        body = inspect.getsource(observed).rstrip().splitlines()
        lines += [line for line in body if '"""' not in line]
    return lines


def _used(s: Structure, draw: Draw, looks: bool) -> dict:
    names = list(s.arguments)
    if not looks and any(np.any(x != 1) for k, x in draw.values.items() if k.startswith("w.")):
        names.append("w")
    if s.derivative in ("jvp", "vmap_jvp", "hvp_fr", "vmap_hvp", "hvp_ff", "hvp_rr") and not looks:
        names.append("v")
    parts = ("z1",) * s.reads_end + ("rows",) * s.reads_rows
    kept = {k: literal(x) for k, x in draw.values.items() if k in names or k.split(".")[0] in names}
    return {k: x for k, x in kept.items() if not k.startswith("w.") or k.split(".")[1] in parts}


def _call(s: Structure) -> str:
    def tree(name: str) -> str:
        if name != "z0" and s.steps != "leaf":
            return f'a["{name}"]'
        return repr(jax.tree.map(lambda i: Text(f'a["{name}.{i}"]'), TREES[s.tree][0]))

    p = {name: Text(f'a["p.{name}"]') for name in s.of.params}
    p |= {"tau": Text(f'a["points"][{s.tau}]')} if s.field == "jump" else {}
    f, theta = "field", repr(p)
    if s.home == "module":
        f, theta = f"Model({p!r})", "None"
    if s.home == "closure":
        f, theta = f"lambda z, t, _: field(z, t, {p!r})", "None"
    ends = 'a["grid"][0], a["grid"][-1]' if s.steps == "grid" else 'a["t0"], a["t1"]'
    points = ', breakpoints=a["points"]' if s.points else ""
    points += "".join(f", {k}={v}" for k, v in CONTROLS[s.control].items())
    steps = {"fixed": f"nj.Fixed({s.n})", "grid": 'nj.Grid(a["grid"])'}
    saves = {"at": 'nj.SaveAt(a["ts"])', "fn": 'nj.SaveAt(a["ts"], observed)', "end": "nj.SaveEnd()"}
    saves |= {"steps": f"nj.SaveSteps({s.capacity})", "dense": f"nj.Dense({s.capacity})"}
    adaptive = f"nj.Adaptive({tree('rtol')}, {tree('atol')}{points})"
    chosen = f"method=nj.{s.method}, steps={steps.get(s.steps, adaptive)}, save={saves[s.save]}, adjoint={s.adjoint}"
    chosen += f", max_steps={s.max_steps}" + (f", lane_width={s.width}" if s.width else "")
    return f"nj.odesolve({f}, {tree('z0')}, {ends}, {theta}, {chosen}, throw=False)"


def _rows(s: Structure) -> str:
    return 'sol.evaluate(a["tq"])' if s.save == "dense" else "sol.zs"


def _looking(s: Structure) -> list[str]:
    end = "jnp.minimum(t0, t1) - 0.25, jnp.maximum(t0, t1) + 0.25"
    ends = 't0, t1 = (a["grid"][0], a["grid"][-1])' if s.steps == "grid" else 't0, t1 = a["t0"], a["t1"]'
    more = f", sol.evaluate(jnp.stack([{end}]))" if s.save == "dense" else ""
    tail = f"    return sol.status, sol.t_reached, sol.z1, sol.ts, {_rows(s)}{more}"
    return ["def look(a):", f"    sol = solve(a); {ends}", tail, f"print({_mapped(s, 'look')}(A))"]


def _loss(s: Structure, used: dict) -> list[str]:
    masked = "jnp.where(sol.ok, x, 0)"
    if s.save == "steps":
        masked = "jax.vmap(lambda x, used: jnp.where(used, x, 0))(x, sol.ok & (jnp.arange(len(x)) < sol.count))"
    ends = "[jnp.where(sol.ok, x, 0) for x in jax.tree.leaves(sol.z1)]" if s.reads_end else "[]"
    rows = f" + [{masked} for x in jax.tree.leaves({_rows(s)})]" if s.reads_rows else ""
    lines = ["def outputs(a):", f"    sol = solve(a); return {ends}{rows}"]
    keys = [Text(f'a["{k}"]') for k in used if k.startswith("w.")]
    ordered = sorted(keys, key=lambda k: "rows" in k)
    weighted = f"(w * x).real) for w, x in zip({ordered!r}, outputs(a))" if keys else "x.real) for x in outputs(a)"
    lines.append(f"def one(a): return sum(jnp.sum({weighted})")
    wrapped = {
        "scan": "jax.tree.map(lambda x: x[1], jax.lax.scan(lambda c, a: (c, g(a)), 0, "
        "jax.tree.map(lambda x: jnp.stack([x, x]), a))[1])",
        "cond": "jax.lax.cond(jnp.array(True), g, lambda a: jax.tree.map(jnp.zeros_like, g(a)), a)",
        "checkpoint": "jax.checkpoint(g)(a)",
        "jit": "jax.jit(g)(a)",
    }
    if s.wrapper in wrapped:
        which = "outputs" if s.derivative in ("none", "jvp", "vmap_jvp", "jacrev") else "one"
        lines.append(f"{which} = (lambda g: lambda a: {wrapped[s.wrapper]})({which})")
    return lines


def _mapped(s: Structure, fn: str) -> str:
    for level in reversed(range(len(s.lanes))):
        shared = sorted(key for key in s.arguments if not s.mask(key)[level])
        axes = f"{{k: None if k.removeprefix('v.') in {shared} else 0 for k in A}}"
        fn = f"jax.vmap({fn}, in_axes=({axes},), axis_size={s.lanes[level]})"
    return fn


def _derivative(s: Structure) -> str:
    wrt = list(s.differentiated)
    d, v = f"{{k: A[k] for k in {wrt!r}}}", f'{{k: A["v." + k] for k in {wrt!r}}}'
    full = "{**A, **d}"
    sums = f"jnp.sum({_mapped(s, 'one')}({full}))" if s.lanes else f"one({full})"
    total = f"(lambda d: {sums})"
    each = f"(lambda d: {_mapped(s, 'outputs')}({full}))"
    lane = f"{_mapped(s, 'lambda a: jax.grad(lambda d: one({**a, **d}))({k: a[k] for k in WRT})')}(A)"
    kinds = {
        "none": f"{each}({{}})",
        "grad": f"jax.grad({total})({d})",
        "jacfwd": f"jax.jacfwd({total})({d})",
        "vmap_grad": lane.replace("WRT", repr(wrt)),
        "jacrev": lane.replace("WRT", repr(wrt)).replace("jax.grad", "jax.jacrev").replace("one(", "outputs("),
        "jvp": f"jax.jvp({each}, ({d},), ({v},))[1]",
        "vmap_jvp": f"jax.jvp({each}, ({d},), ({v},))[1]",
        "hvp_fr": f"jax.jvp(jax.grad({total}), ({d},), ({v},))[1]",
        "vmap_hvp": f"jax.jvp(jax.grad({total}), ({d},), ({v},))[1]",
        "hvp_ff": f"(lambda f: jax.jvp(lambda d: jax.jvp(f, (d,), ({v},))[1], ({d},), ({v},))[1])({total})",
        "hvp_rr": f"jax.grad(lambda d: sum(jnp.vdot({v}[k], g) for k, g in jax.grad({total})(d).items()))({d})",
    }
    return f"print({kinds[s.derivative]})"
