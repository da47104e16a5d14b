"""How far a result may be from what is expected of it."""

import numpy as np

from .structures import SECOND, Structure
from .values import ends

EXACT = 1e-12  # rounding of a few dozen steps
SINGLE = 4e-6
BACK = 1e-6  # tolerance of a way back that chooses its own steps, under prescribed ones


def furthest(values: dict) -> float:
    """Return the largest time."""
    times = [np.abs(values[k][np.isfinite(values[k])]).max(initial=0.0) for k in ("t0", "t1", "grid") if k in values]
    return float(max(times, default=0.0))


def resolution(s: Structure, values: dict) -> float:
    """Return what a unit in the last place of a time amounts to."""
    return float(np.finfo(s.time_dtype).eps) * furthest(values)


def of_steps(s: Structure, values: dict) -> float:
    """Return the error that steps may have, relative to a state of size one."""
    if s.adaptive:
        asked = max(float(np.max(x)) for k, x in values.items() if k.startswith(("rtol", "atol")))
        return max(asked, SINGLE if s.single else EXACT)
    return SINGLE if s.single else EXACT


def of_values(s: Structure, values: dict) -> float:
    """Return the relative tolerance of states."""
    return min(0.05, (30 if s.adaptive else 10) * of_steps(s, values) + 4 * resolution(s, values))


def of_derivatives(s: Structure, values: dict) -> float:
    """Return the relative tolerance of derivatives.

    An adaptive solve has the derivative of the flow up to its own tolerance times what the problem amplifies; the exact
    strategies have that of prescribed steps up to rounding, which the reversible scheme amplifies by undoing them.
    """
    error = (100 if s.adaptive else 10) * of_steps(s, values)
    if s.strategy.of == "flow":
        error = 3 * (error if s.adaptive else max(error, 100 * BACK))
    if s.strategy.of == "scheme" and not s.adaptive:
        error *= 100
    if s.single and s.method == "dopri8" and s.save in ("at", "fn", "dense"):
        error *= 10  # numbers up to a thousand cancel in the slope of its dense output
    if s.derivative in SECOND:
        error *= 10 * max(1.0, 0.01 / shortest(s, values))
        if s.adaptive and s.save == "dense" and "times" in s.wrt:
            # a polynomial with an error of h**5, differentiated twice in the time that is asked for, has one of h**3
            error = max(error, 30 * of_steps(s, values) ** 0.6)
    return min(0.1, error + 10 * resolution(s, values))


def shortest(s: Structure, values: dict) -> float:
    """Return the shortest prescribed step: rounding in a second derivative with respect to times is divided by it."""
    if s.adaptive:
        return np.inf
    ways = np.diff(values["grid"]) if s.steps == "grid" else np.subtract(*ends(s, values)) / s.n
    sizes = np.abs(ways)[np.isfinite(ways) & (ways != 0)]
    return float(np.min(sizes, initial=np.inf))


def of_zero(s: Structure, values: dict) -> float:
    """Return the error that is allowed where zero is expected: second derivatives are differences of larger numbers.

    Those of a field that looks at t, in a frequency too, have terms of the size of t.
    """
    if s.derivative not in SECOND:
        return 0.0
    return (1e-5 if s.single else 1e-9) + s.of.timed * of_derivatives(s, values) * furthest(values)


def of_rounding(s: Structure, values: dict) -> float:
    """Return the relative tolerance of two programs that take the same steps.

    The nodes of prescribed steps are computed again on the way back, where they may be rounded otherwise.
    """
    least = 1e-3 if s.single else (1e-7 if s.derivative in SECOND else 1e-8)
    return least if s.adaptive else least + resolution(s, values)


def of_order(s: Structure) -> float:
    """Return the relative tolerance of one program whose sums have another order."""
    return 2e-5 if s.single else 1e-12
