"""Standard non-stiff initial value problems, in jax.numpy, and their solutions.

Classes A to E are DETEST: Hull, Enright, Fellen and Sedgwick, Comparing numerical methods for ordinary differential
equations, SIAM J. Numer. Anal. 9 (1972); Enright and Pryce, ACM TOMS 13 (1987). Every one runs from t=0 to t=20.
Pleiades, Arenstorf and Lorenz: Hairer, Norsett and Wanner, Solving ODEs I, II.10 and I.16.

`REFERENCES` holds the state at `times(problem)`, computed with SciPy by `make_references.py` and stored in
`references.json`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np


class Problem(NamedTuple):
    """An initial value problem from t=0; `exact(t)`, in NumPy, where a formula is known."""

    name: str
    field: Callable
    z0: tuple
    t1: float = 20.0
    exact: Callable | None = None


# Class A: single equations.


def a1(z, t, theta):
    return -z


def a2(z, t, theta):
    return -(z**3) / 2


def a3(z, t, theta):
    return z * jnp.cos(t)


def a4(z, t, theta):
    return z / 4 * (1 - z / 20)


def a5(z, t, theta):
    return (z - t) / (z + t)


# Class B: small systems.


def b1(z, t, theta):
    return jnp.stack([2 * (z[0] - z[0] * z[1]), -(z[1] - z[0] * z[1])])


def b2(z, t, theta):
    return jnp.stack([z[1] - z[0], z[0] - 2 * z[1] + z[2], z[1] - z[2]])


def b3(z, t, theta):
    return jnp.stack([-z[0], z[0] - z[1] ** 2, z[1] ** 2])


def b4(z, t, theta):
    x, y, w = z
    r = jnp.hypot(x, y)
    return jnp.stack([-y - x * w / r, x - y * w / r, x / r])


def b5(z, t, theta):
    return jnp.stack([z[1] * z[2], -z[0] * z[2], -0.51 * z[0] * z[1]])


# Class C: moderate systems.


def c1(z, t, theta):
    return jnp.concatenate([-z[:1], z[:-2] - z[1:-1], z[-2:-1]])


def c2(z, t, theta):
    flow = jnp.arange(1.0, len(z)) * z[:-1]
    return jnp.concatenate([-flow[:1], flow[:-1] - flow[1:], flow[-1:]])


def c3(z, t, theta):
    zero = jnp.zeros(1)
    return jnp.concatenate([z[1:], zero]) - 2 * z + jnp.concatenate([zero, z[:-1]])


K2 = 2.95912208286
SUN = 1.00000597682
PLANETS = (0.000954786104043, 0.000285583733151, 0.0000437273164546, 0.0000517759138449, 0.00000277777777778)


def c5(z, t, theta):
    """Five outer planets around the sun, which is held in the origin."""
    x, v = z.reshape(2, 5, 3)
    m = jnp.array(PLANETS)[:, None]
    pull = x / jnp.linalg.norm(x, axis=1, keepdims=True) ** 3
    gap = x[None] - x[:, None] + jnp.eye(5)[:, :, None]  # no distance of zero on the diagonal
    near = gap / jnp.linalg.norm(gap, axis=2, keepdims=True) ** 3 * (1 - jnp.eye(5))[:, :, None]
    others = jnp.sum((near - pull[None] * (1 - jnp.eye(5))[:, :, None]) * m[None], axis=1)
    return jnp.concatenate([v.ravel(), (K2 * (others - (SUN + m) * pull)).ravel()])


PLANETS_AT_0 = (
    (3.42947415189, 3.35386959711, 1.35494901715),
    (6.64145542550, 5.97156957878, 2.18231499728),
    (11.2630437207, 14.6952576794, 6.27960525067),
    (-30.1552268759, 1.65699966404, 1.43785752721),
    (-21.1238353380, 28.4465098142, 15.3882659679),
    (-0.557160570446, 0.505696783289, 0.230578543901),
    (-0.415570776342, 0.365682722812, 0.169143213293),
    (-0.325325669158, 0.189706021964, 0.0877265322780),
    (-0.0240476254170, -0.287659532608, -0.117219543175),
    (-0.176860753121, -0.216393453025, -0.0148647893090),
)


# Class D: two bodies, eccentricity 0.1 to 0.9.


ECCENTRICITIES = {"D1": 0.1, "D2": 0.3, "D3": 0.5, "D4": 0.7, "D5": 0.9}


def kepler(z, t, theta):
    x, v = z[:2], z[2:]
    return jnp.concatenate([v, -x / (x @ x) ** 1.5])


def kepler_start(e):
    return (1 - e, 0.0, 0.0, float(np.sqrt((1 + e) / (1 - e))))


def kepler_exact(e):
    def exact(t):
        u = np.asarray(t, float)
        for _ in range(200):  # Newton, from a start that converges for every e < 1
            u = u - np.clip((u - e * np.sin(u) - t) / (1 - e * np.cos(u)), -1.0, 1.0)
        s = np.sqrt(1 - e * e)
        rate = 1 / (1 - e * np.cos(u))
        return np.stack([np.cos(u) - e, s * np.sin(u), -np.sin(u) * rate, s * np.cos(u) * rate], axis=-1)

    return exact


# Class E: higher-order equations.


def e1(z, t, theta):
    return jnp.stack([z[1], -(z[1] / (t + 1) + (1 - 0.25 / (t + 1) ** 2) * z[0])])


def e2(z, t, theta):
    return jnp.stack([z[1], (1 - z[0] ** 2) * z[1] - z[0]])


def e3(z, t, theta):
    return jnp.stack([z[1], z[0] ** 3 / 6 - z[0] + 2 * jnp.sin(2.78535 * t)])


def e4(z, t, theta):
    return jnp.stack([z[1], 0.032 - 0.4 * z[1] ** 2])


def e5(z, t, theta):
    return jnp.stack([z[1], jnp.sqrt(1 + z[1] ** 2) / (25 - t)])


def e1_exact(t):
    s = np.asarray(t) + 1
    amplitude = np.sqrt(2 / (np.pi * s))
    return np.stack([amplitude * np.sin(s), amplitude * (np.cos(s) - np.sin(s) / (2 * s))], axis=-1)


def e5_exact(t):
    # slope p with asinh(p) = log(25 / (25 - t))
    u = 25 - np.asarray(t)
    height = (u**2 - 625) / 100 - 12.5 * np.log(u / 25)
    return np.stack([height, (25 / u - u / 25) / 2], axis=-1)


# Others.


def lotka_volterra(z, t, theta):
    x, y = z
    return jnp.stack([1.5 * x - x * y, x * y - 3 * y])


def lorenz(z, t, theta):
    x, y, w = z
    return jnp.stack([10 * (y - x), x * (28 - w) - y, x * y - 8 / 3 * w])


def pleiades(z, t, theta):
    x, v = z[:14].reshape(2, 7), z[14:]
    gap = x[:, None, :] - x[:, :, None]
    squares = jnp.sum(gap**2, axis=0) + jnp.eye(7)
    return jnp.concatenate(
        [v, (jnp.sum(gap * jnp.arange(1.0, 8.0)[None, None] / squares[None] ** 1.5, axis=2)).ravel()]
    )


MOON = 0.012277471
PERIOD = 17.0652165601579625588917206249


def arenstorf(z, t, theta):
    x, y, u, v = z
    d1, d2 = ((x + MOON) ** 2 + y**2) ** 1.5, ((x - 1 + MOON) ** 2 + y**2) ** 1.5
    a = x + 2 * v - (1 - MOON) * (x + MOON) / d1 - MOON * (x - 1 + MOON) / d2
    b = y - 2 * u - (1 - MOON) * y / d1 - MOON * y / d2
    return jnp.stack([u, v, a, b])


def unit(n):
    return (1.0,) + (0.0,) * (n - 1)


PROBLEMS = [
    Problem("A1", a1, (1.0,), exact=lambda t: np.exp(-t)[:, None]),
    Problem("A2", a2, (1.0,), exact=lambda t: 1 / np.sqrt(1 + t)[:, None]),
    Problem("A3", a3, (1.0,), exact=lambda t: np.exp(np.sin(t))[:, None]),
    Problem("A4", a4, (1.0,), exact=lambda t: 20 / (1 + 19 * np.exp(-t / 4))[:, None]),
    Problem("A5", a5, (4.0,)),
    Problem("B1", b1, (1.0, 3.0)),
    Problem("B2", b2, (2.0, 0.0, 1.0)),
    Problem("B3", b3, (1.0, 0.0, 0.0)),
    Problem("B4", b4, (3.0, 0.0, 0.0)),
    Problem("B5", b5, (0.0, 1.0, 1.0)),
    Problem("C1", c1, unit(10)),
    Problem("C2", c2, unit(10)),
    Problem("C3", c3, unit(10)),
    Problem("C4", c3, unit(51)),
    Problem("C5", c5, tuple(np.ravel(PLANETS_AT_0).tolist())),
    *(Problem(name, kepler, kepler_start(e), exact=kepler_exact(e)) for name, e in ECCENTRICITIES.items()),
    Problem("E1", e1, (0.6713967071418030, 0.09540051444747446), exact=e1_exact),
    Problem("E2", e2, (2.0, 0.0)),
    Problem("E3", e3, (0.0, 0.0)),
    Problem("E4", e4, (30.0, 0.0)),
    Problem("E5", e5, (0.0, 0.0), exact=e5_exact),
    Problem("Lotka-Volterra", lotka_volterra, (1.0, 1.0), 10.0),
    Problem("Lorenz", lorenz, (1.0, 1.0, 1.0), 2.0),
    Problem(
        "Pleiades",
        pleiades,
        (3, 3, -1, -3, 2, -2, 2, 3, -3, 2, 0, 0, -4, 4, 0, 0, 0, 0, 0, 1.75, -1.5, 0, 0, 0, -1.25, 1, 0, 0),
        3.0,
    ),
    Problem("Arenstorf", arenstorf, (0.994, 0.0, 0.0, -2.00158510637908252240537862224), PERIOD),
]  # fmt: skip

REFERENCE_FILE = Path(__file__).with_name("references.json")
REFERENCES = json.loads(REFERENCE_FILE.read_text()) if REFERENCE_FILE.exists() else {}


def times(problem):
    """Four times from a quarter to the end."""
    return problem.t1 * np.array([0.25, 0.5, 0.75, 1.0])


def solution(problem):
    """States at `times(problem)`, by the formula if there is one."""
    ts = times(problem)
    return problem.exact(ts) if problem.exact else np.array(REFERENCES[problem.name])
