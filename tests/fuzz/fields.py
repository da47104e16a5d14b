"""Vector fields with closed forms, for one leaf of a state: slope `f(x, t, p)`, solution `x(x0, t0, t, p)`.

To add one: write both, with parameters in the dict `p`, and add a row to `FIELDS`. The slope must be a short function,
since programs that show faults quote it, and closed forms must be smooth where `t == t0`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp


class Field(NamedTuple):
    """A vector field and what may be drawn for it."""

    slope: Callable
    exact: Callable
    params: dict  # name -> interval of its values, or shape (2, 2)
    start: tuple[float, float] = (-1.0, 1.0)  # interval of the components of the first state
    anywhere: bool = True  # whether it may be solved around any time
    timed: bool = False
    pairs: bool = False  # whether the last axis of a leaf has two components
    complex: str = "may"  # be complex: may, must, never
    stiff: str | None = None  # parameter that makes it stiff
    rest: bool = False  # whether zero stays zero


def decay(x, t, p):
    return -p["k"] * x


def decay_exact(x, t0, t, p):
    return x * jnp.exp(-p["k"] * (t - t0))


def spin(x, t, p):
    return (-p["k"] + 1j * p["w"]) * x


def spin_exact(x, t0, t, p):
    return x * jnp.exp((-p["k"] + 1j * p["w"]) * (t - t0))


def rotation(x, t, p):
    return jnp.einsum("ij,...j->...i", p["m"].astype(x.dtype), x)


def rotation_exact(x, t0, t, p):
    m = p["m"] * (t - t0) / 16
    power, total = jnp.eye(2), jnp.eye(2)
    for k in range(1, 14):
        power = power @ m / k
        total = total + power
    for _ in range(4):
        total = total @ total
    return jnp.einsum("ij,...j->...i", total.astype(x.dtype), x)


def logistic(x, t, p):
    return p["r"] * x * (1 - x / p["cap"])


def logistic_exact(x, t0, t, p):
    return x * p["cap"] / (x + (p["cap"] - x) * jnp.exp(-p["r"] * (t - t0)))


def forced(x, t, p):
    return -p["k"] * x + p["a"] * jnp.sin(p["w"] * t)


def forced_exact(x, t0, t, p):
    def particular(t):
        k, w = p["k"], p["w"]
        return p["a"] / (k**2 + w**2) * (k * jnp.sin(w * t) - w * jnp.cos(w * t))

    return particular(t) + (x - particular(t0)) * jnp.exp(-p["k"] * (t - t0))


def polynomial(x, t, p):
    return jnp.broadcast_to(p["a"] + p["b"] * t + p["c"] * t**2, x.shape)


def polynomial_exact(x, t0, t, p):
    return x + p["a"] * (t - t0) + p["b"] * (t**2 - t0**2) / 2 + p["c"] * (t**3 - t0**3) / 3


def warming(x, t, p):
    return -p["k"] * t * x


def warming_exact(x, t0, t, p):
    return x * jnp.exp(-p["k"] * (t**2 - t0**2) / 2)


def domain(x, t, p):
    return p["r"] * jnp.sqrt(p["end"] - t) * x


def domain_exact(x, t0, t, p):
    return x * jnp.exp(p["r"] * ((p["end"] - t0) ** 1.5 - (p["end"] - t) ** 1.5) * 2 / 3)


def blowup(x, t, p):
    return p["c"] * x**2


def blowup_exact(x, t0, t, p):
    return x / (1 - p["c"] * x * (t - t0))


def jump(x, t, p):
    return -p["k"] * x + jnp.where(t >= p["tau"], p["a"], 0)


def jump_exact(x, t0, t, p):
    k, a, tau = p["k"], p["a"], p["tau"]

    def driven(s):  # antiderivative of a [s >= tau] exp(-k (t - s)), up to a constant
        return a / k * jnp.exp(-k * (t - jnp.maximum(s, tau)))

    return x * jnp.exp(-k * (t - t0)) + driven(t) - driven(t0)


UNIT = (-1.0, 1.0)

FIELDS = {
    "decay": Field(decay, decay_exact, {"k": (0.2, 1.5), "spare": UNIT}, stiff="k", rest=True),
    "spin": Field(spin, spin_exact, {"k": (0.2, 1.0), "w": (-2.0, 2.0)}, complex="must", stiff="k", rest=True),
    "rotation": Field(rotation, rotation_exact, {"m": (2, 2)}, pairs=True, rest=True),
    "logistic": Field(
        logistic, logistic_exact, {"r": (0.3, 1.5), "cap": (1.5, 3.0)}, (0.3, 1.0), complex="never", rest=True
    ),
    "forced": Field(forced, forced_exact, {"k": (0.2, 1.5), "a": UNIT, "w": (0.5, 3.0)}, timed=True, stiff="k"),
    "polynomial": Field(
        polynomial, polynomial_exact, dict.fromkeys("abc", UNIT), anywhere=False, timed=True, complex="never"
    ),
    "warming": Field(warming, warming_exact, {"k": (0.1, 0.4)}, anywhere=False, timed=True, rest=True),
    "domain": Field(domain, domain_exact, {"r": (-0.8, 0.8), "end": (0.3, 1.0)}, timed=True),
    "blowup": Field(blowup, blowup_exact, {"c": (-0.28, 0.28)}, (0.3, 1.0), complex="never"),
    "jump": Field(jump, jump_exact, {"k": (0.3, 1.2), "a": (0.5, 1.5)}, timed=True, complex="never"),
}
