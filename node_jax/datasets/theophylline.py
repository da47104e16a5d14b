"""Concentrations of a drug in the blood of twelve people, a data set that comes with the package."""

from importlib import resources
from typing import NamedTuple

import numpy as np


class Theophylline(NamedTuple):
    """Concentrations after one oral dose.

    Attributes:
        weight: of each subject in kg, `(12,)`.
        dose: in mg per kg of body weight, `(12,)`.
        ts: times after the dose in hours, `(12, 11)`; each subject has its own.
        concentration: in serum, mg/l, `(12, 11)`.

    Example:
        >>> theophylline().ts[0, :3].tolist()
        [0.0, 0.25, 0.57]
    """

    weight: np.ndarray
    dose: np.ndarray
    ts: np.ndarray
    concentration: np.ndarray


def theophylline() -> Theophylline:
    """Load the serum concentrations of theophylline in twelve subjects, who took one oral dose each.

    A study of Upton, published in Boeckmann, Sheiner and Beal, NONMEM Users Guide, part V, 1994; the data set `Theoph`
    of R.

    Returns:
        Weights, doses, times and concentrations, arrays of float64.

    Example:
        >>> record = theophylline()
        >>> record.concentration.shape, float(record.dose[0]), float(record.concentration[0].max())
        ((12, 11), 4.02, 10.5)
    """
    with resources.files("node_jax").joinpath("data/theophylline.csv").open(encoding="utf-8") as file:
        rows = np.loadtxt(file, delimiter=",", skiprows=1).reshape(12, 11, 5)
    return Theophylline(rows[:, 0, 1], rows[:, 0, 2], rows[:, :, 3], rows[:, :, 4])
