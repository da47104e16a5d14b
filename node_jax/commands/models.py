"""The models that `node-jax fit` knows: equations, parameters, and where the search for them starts.

Starts are read off the data: balances, slopes of logarithms and the place of the peak. They need to be right within a
factor of a few, since further starts are spread around them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from node_jax.types import PyTree


class Problem(NamedTuple):
    """What is fitted to one series: arguments of `fit_parameters`."""

    field: Callable
    observe: Callable | None
    theta: dict[str, Any]
    z0: PyTree
    transform: dict[str, Any]
    fit_z0: PyTree


class Known(NamedTuple):
    """A model with documented parameters.

    Attributes:
        field: vector field.
        observe: for a number of columns, `observe(z, theta)`, which returns what they measure.
        begin: `begin(ts, values, dose)`, theta and z0 to start from; values `(n, columns)`, none missing.
        fit_z0: marks of z0.
        columns: what the columns are, in order.
        t0: time of z0; None: the first time of a series.
        errors: `additive`, or `multiplicative`: then logarithms are compared.
        about: equations and parameters, for the help.
    """

    field: Callable
    observe: dict[int, Callable]
    begin: Callable
    fit_z0: PyTree
    columns: tuple[str, ...]
    t0: float | None
    errors: str
    about: str


def lotka_volterra(z: dict, t: Any, theta: dict) -> dict:
    """Return the slopes of prey and predators."""
    prey, predators = z["prey"], z["predators"]
    return {
        "prey": (theta["growth"] - theta["predation"] * predators) * prey,
        "predators": (theta["gain"] * prey - theta["death"]) * predators,
    }


def both(z: dict, theta: dict) -> jax.Array:
    """Observe prey and predators."""
    return jnp.stack([z["prey"], z["predators"]])


def begin_lotka_volterra(ts: np.ndarray, values: np.ndarray, dose: float) -> tuple[dict, dict]:
    """Over whole cycles the means are death / gain and growth / predation; the logarithms give the two rates."""
    prey, predators = _means(ts, values)
    logs = np.log(np.maximum(values, 1e-3 * values.max()))
    growth = _rate(ts, logs[:, 0], 1 - values[:, 1] / predators)
    death = _rate(ts, logs[:, 1], values[:, 0] / prey - 1)
    theta = {"growth": growth, "predation": growth / predators, "death": death, "gain": death / prey}
    first = np.maximum(values[0], 1e-2 * values.max())
    return theta, {"prey": first[0], "predators": first[1]}


def sir(z: dict, t: Any, theta: dict) -> dict:
    """Return the slopes of the share that is still susceptible, of the infected and of the removed."""
    infections = theta["transmission"] * z["share"] * z["infected"]
    recoveries = theta["recovery"] * z["infected"]
    return {"share": -infections / theta["susceptible"], "infected": infections - recoveries, "removed": recoveries}


def infected(z: dict, theta: dict) -> jax.Array:
    """Observe the infected."""
    return z["infected"][None]


def infected_and_removed(z: dict, theta: dict) -> jax.Array:
    """Observe the infected and the removed."""
    return jnp.stack([z["infected"], z["removed"]])


def begin_sir(ts: np.ndarray, values: np.ndarray, dose: float) -> tuple[dict, dict]:
    """Growth of the logarithm to the peak, its fall afterwards, and the peak's height in the equations."""
    seen = np.maximum(values[:, 0], 1e-3 * values[:, 0].max())
    peak = int(np.argmax(seen))
    span = ts[-1] - ts[0] or 1.0
    growth = _slope(ts[: peak + 1], np.log(seen[: peak + 1]), 4 / span)
    recovery = -_slope(ts[peak:], np.log(seen[peak:]), -growth / 2)
    ratio = 1 + growth / recovery
    people = seen[peak] / (1 - (1 + np.log(ratio)) / ratio)
    theta = {"transmission": growth + recovery, "recovery": recovery, "susceptible": people}
    removed = values[0, 1] if values.shape[1] > 1 else 0.0
    return theta, {"share": 1.0, "infected": seen[0], "removed": removed}


def one_compartment(z: dict, t: Any, theta: dict) -> dict:
    """Return the slopes of the amount that is not absorbed yet, and of the concentration."""
    absorbed = (theta["elimination"] + theta["excess"]) * z["gut"]
    return {
        "gut": -absorbed,
        "concentration": absorbed / theta["volume"] - theta["elimination"] * z["concentration"],
    }


def concentration(z: dict, theta: dict) -> jax.Array:
    """Observe the concentration."""
    return z["concentration"][None]


def begin_one_compartment(ts: np.ndarray, values: np.ndarray, dose: float) -> tuple[dict, dict]:
    """Elimination is the fall of the logarithm after the peak; absorption is nearly over at the peak."""
    seen = np.maximum(values[:, 0], 1e-3 * values[:, 0].max())
    peak = int(np.argmax(seen))
    elimination = -_slope(ts[peak:], np.log(seen[peak:]), -1 / (ts[-1] - ts[0] or 1.0))
    excess = 3 / (ts[peak] or ts[-1] - ts[0] or 1.0)
    volume = dose / seen[peak]
    return {"elimination": elimination, "excess": excess, "volume": volume}, {"gut": dose, "concentration": 0.0}


def _means(ts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the means over time."""
    if ts[-1] == ts[0]:
        return values.mean(axis=0)
    return np.trapezoid(values, ts, axis=0) / (ts[-1] - ts[0])


def _rate(ts: np.ndarray, logs: np.ndarray, drive: np.ndarray) -> float:
    """Return the rate r in `dlogs/dt = r drive`, by least squares of the differences; a few cycles if that fails."""
    area = np.diff(ts) * (drive[1:] + drive[:-1]) / 2
    total = area @ area
    rate = float(np.diff(logs) @ area / total) if total > 0 else 0.0
    return rate if rate > 0 else 10 / float(ts[-1] - ts[0] or 1.0)


def _slope(ts: np.ndarray, logs: np.ndarray, otherwise: float) -> float:
    """Return the slope of a line through the points; another one if it has not the sign of that."""
    if ts[-1] == ts[0]:
        return otherwise
    slope = float(np.polyfit(ts - ts[0], logs, 1)[0])
    return slope if slope * otherwise > 0 else otherwise


MODELS = {
    "lotka-volterra": Known(
        lotka_volterra,
        {2: both},
        begin_lotka_volterra,
        "log",
        ("prey", "predators"),
        None,
        "multiplicative",
        "dx/dt = growth x - predation x y, dy/dt = gain x y - death y; all positive. Columns: prey x, predators y. "
        "Their initial state is fitted too.",
    ),
    "sir": Known(
        sir,
        {1: infected, 2: infected_and_removed},
        begin_sir,
        {"share": False, "infected": "log", "removed": False},
        ("infected", "removed"),
        None,
        "additive",
        "ds/dt = -transmission s I / susceptible, dI/dt = transmission s I - recovery I, dR/dt = recovery I, s the "
        "share of those susceptible at first; all positive. Columns: infected I, and removed R if there is one more. "
        "The infected at first are fitted too; transmission / recovery is the basic reproduction number.",
    ),
    "one-compartment": Known(
        one_compartment,
        {1: concentration},
        begin_one_compartment,
        False,
        ("concentration",),
        0.0,
        "additive",
        "a dose at time 0 that is absorbed at a rate of elimination + excess into a volume and eliminated from there, "
        "dc/dt = (elimination + excess) gut / volume - elimination c; all positive, absorption being the faster. "
        "Column: concentration c. --dose gives the dose (default 1).",
    ),
}
