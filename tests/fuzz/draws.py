"""Draw a structure at random: what may be combined, and how often."""

import numpy as np

from .fields import FIELDS
from .structures import ADJOINTS, CONTROLS, METHODS, PAIRS, SECOND, TREES, Structure

SWITCHES = ("disable_jit", "debug_nans", "leaks", "rank", "strict", "x32")
LANES = {(): 0.28, (1,): 0.08, (2,): 0.14, (3,): 0.16, (7,): 0.12, (2, 3): 0.12, (3, 1): 0.05, (300,): 0.05}
SAVES = {"end": 0.28, "at": 0.32, "fn": 0.1, "steps": 0.15, "dense": 0.15}
STEPS = {"adaptive": 0.45, "leaf": 0.08, "breakpoints": 0.12, "fixed": 0.2, "grid": 0.15}
WRAPPERS = {"plain": 0.6, "jit": 0.08, "scan": 0.12, "cond": 0.1, "checkpoint": 0.1}
WRT = ("z0",), ("p",), ("z0", "p"), ("z0", "p", "times"), ("times",), ("z0", "times"), ("p", "times")


def draw_structure(seed: int, number: int, switches: float = 0.05) -> Structure:
    """Return structure `number` of a seed; a share of `switches` runs under one of JAX's."""
    rng = np.random.default_rng([seed, number])
    s = _steps(rng, _state(rng))
    s = _derivative(rng, _lanes(rng, _adjoint(rng, s)))
    if rng.random() < switches:
        s = switched(s, str(rng.choice(SWITCHES)))
    return _checks(rng, s)


def pick(rng, options):
    """Choose from a sequence, or from a dict by its weights."""
    names = list(options)
    weights = np.array([options[n] for n in names]) if isinstance(options, dict) else np.ones(len(names))
    return names[rng.choice(len(names), p=weights / weights.sum())]


def chance(rng, probability: float) -> bool:
    """Say yes so often."""
    return bool(rng.random() < probability)


def _state(rng) -> Structure:
    name = pick(rng, list(FIELDS))
    field = FIELDS[name]
    dtypes = {"float64": 0.7, "float32": 0.2} if field.complex != "must" else {}
    if field.complex != "never":
        dtypes |= {"complex128": 0.12, "complex64": 0.04}
    dtype = pick(rng, dtypes)
    trees = PAIRS if field.pairs else [t for t in TREES if not t.startswith("pair")]
    tree = pick(rng, [t for t in trees if t != "mixed" or dtype == "float64"])
    single = dtype in ("float32", "complex64")
    time_dtype = "float32" if chance(rng, 0.5 if single else 0.04) else "float64"
    home = pick(rng, {"theta": 0.6, "module": 0.2, "closure": 0.2})
    return Structure(name, tree, dtype, time_dtype, home)


def _steps(rng, s: Structure) -> Structure:
    steps = "breakpoints" if s.field == "jump" else pick(rng, STEPS)
    s = s.replace(steps=steps, n=int(pick(rng, (1, 2, 5, 20))))
    usable = [m for m in METHODS if METHODS[m].has_error or not s.adaptive]
    method = pick(rng, {m: 4.0 if m == "tsit5" else 1.0 for m in usable})
    control = pick(rng, list(CONTROLS)) if s.adaptive and chance(rng, 0.2) else ""
    low = METHODS[method].order < 5
    points = int(pick(rng, (1, 2, 3))) if steps == "breakpoints" else 0
    save = pick(rng, SAVES)
    if s.adaptive and METHODS[method].order < 3 and save in ("steps", "dense"):
        save = "at"  # they take more steps than there is room for
    if save == "fn" and s.home != "theta":
        save = "at"
    return s.replace(
        method=method,
        control=control,
        points=points,
        tau=int(rng.integers(max(points, 1))),
        save=save,
        rows=int(pick(rng, (1, 3, 4))),
        max_steps=4096 if low else 600,
    )


def _adjoint(rng, s: Structure) -> Structure:
    adjoints = list(ADJOINTS)
    if s.method == "dopri8" and s.save in ("at", "fn", "dense"):
        adjoints.remove("nj.Reversible()")
    s = s.replace(adjoint=pick(rng, adjoints))
    if s.strategy.of == "flow" and not s.adaptive:  # steps that follow the flow closely
        method = s.method if METHODS[s.method].order > 2 else "rk4"
        s = s.replace(n=40, method=method)
    return s


def _lanes(rng, s: Structure) -> Structure:
    lanes = pick(rng, LANES)

    def some(probability):
        return tuple(chance(rng, probability) for _ in lanes)

    every, none = (True,) * len(lanes), (False,) * len(lanes)
    masks = {f"z0.{i}": some(0.7) for i in range(len(s.shapes))}
    masks |= {f"p.{name}": some(0.5) for name in s.of.params}
    masks["rtol"] = some(0.2)
    moving = pick(rng, {"all": 0.5, "none": 0.25, "some": 0.1, "t0": 0.075, "t1": 0.075})
    if moving in ("t0", "t1") and s.steps != "grid":
        masks[moving] = every
    else:
        mask = {"all": every, "some": some(0.5)}.get(moving, none)
        masks |= dict.fromkeys(s.times, mask)
    for i in range(len(s.shapes)):
        masks |= {f"w.z1.{i}": every, f"w.rows.{i}": every}
    masks |= dict.fromkeys(("keep", "nodes", "count"), every)
    width = int(pick(rng, (1, 2, 64))) if lanes and chance(rng, 0.2) else None
    return s.replace(lanes=lanes, masks=tuple(masks.items()), width=width)


def _derivative(rng, s: Structure) -> Structure:
    kinds = dict.fromkeys(s.strategy.derivatives, 1.0)
    kinds |= {"grad": 3.0} if "grad" in kinds else {}
    kinds |= {"none": 0.5}
    left_out = ("jacfwd", "jacrev", *SECOND) if s.dtype.startswith("complex") else ()
    if s.lanes == (300,):
        left_out = (*left_out, "jacfwd")
    kinds = {k: v for k, v in kinds.items() if k not in left_out}
    wrt = _supported(s, pick(rng, WRT))
    if wrt == ("times",) and chance(rng, 0.5):
        wrt = (pick(rng, s.times),)
    if s.steps == "breakpoints" and s.field == "jump" and chance(rng, 0.3):
        wrt = ("points",)
    derivative = pick(rng, kinds)
    uses = pick(rng, {"both": 0.6, "rows": 0.2, "z1": 0.2})
    wrapper, compiled = pick(rng, WRAPPERS), not chance(rng, 0.05)
    if not compiled:  # control flow outside of a compiled program is compiled for every draw
        wrapper = "plain"
    return s.replace(derivative=derivative, wrt=wrt, uses=uses, wrapper=wrapper, compiled=compiled)


def _supported(s: Structure, wrt: tuple) -> tuple:
    """Leave out times where an adjoint refuses them by name."""
    if s.strategy.of == "flow" and not s.adaptive and s.save == "steps":
        return tuple(g for g in wrt if g not in (*s.times, "times")) or ("z0", "p")
    return wrt


def switched(s: Structure, switch: str) -> Structure:
    """Return a structure like `s` that can run under a switch of JAX."""
    if switch == "strict" and s.of.complex == "must":  # its slope is a real times a complex number
        switch = "rank"
    s = s.replace(switch=switch)
    real = s.real.name
    if switch == "disable_jit":  # every operation is run by Python
        derivative = s.derivative if s.derivative in ("none", "grad", "jvp") else "none"
        steps, method = ("fixed", "euler") if s.field != "jump" else (s.steps, s.method)
        s = s.replace(lanes=(), masks=(), derivative=derivative, method=method, wrapper="plain")
        s = s.replace(steps=steps, points=s.points if s.field == "jump" else 0, n=2, compiled=False)
        s = s.replace(wrt=_supported(s, s.wrt))
    if switch == "debug_nans" and not s.lanes:  # an eager call checks more than a compiled one
        s = s.replace(compiled=False, wrapper="plain")
    if switch == "strict":
        kind = real if s.dtype.startswith("complex") else s.dtype
        s = s.replace(dtype=kind, time_dtype=real, tree="dict" if s.tree == "mixed" else s.tree)
    if switch == "x32":
        kind = "complex64" if s.dtype.startswith("complex") else "float32"
        s = s.replace(dtype=kind, time_dtype="float32", tree="dict" if s.tree == "mixed" else s.tree)
    return s


def _checks(rng, s: Structure) -> Structure:
    alone = bool(s.lanes) and s.lanes != (300,) and s.compiled and chance(rng, 0.2)
    partner = ""
    if s.strategy.of == "steps" and s.adaptive and s.derivative != "none" and chance(rng, 0.25):
        others = [a for a, b in ADJOINTS.items() if b.of == "steps" and s.derivative in b.derivatives]
        partner = pick(rng, others)
    plain = s.switch in ("", "x32")
    if s.wrapper == "checkpoint" and s.save == "steps" and s.adaptive and s.single:
        s = s.replace(wrapper="plain")  # JAX would solve again on the way back, with other rounding and so other steps
    return s.replace(alone=alone and plain, partner=partner if plain and partner != s.adjoint else "")
