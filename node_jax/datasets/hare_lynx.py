"""A record of predator and prey that comes with the package."""

from importlib import resources
from typing import NamedTuple

import numpy as np


class HareLynx(NamedTuple):
    """Yearly pelt counts.

    Attributes:
        years: whole years `(21,)`.
        hare: thousands of pelts `(21,)`.
        lynx: thousands of pelts `(21,)`.

    Example:
        >>> record = hare_lynx()
        >>> record.years.shape, float(record.hare.max())
        ((21,), 77.4)
    """

    years: np.ndarray
    hare: np.ndarray
    lynx: np.ndarray


def hare_lynx() -> HareLynx:
    """Load the pelts of snowshoe hare and Canada lynx that the Hudson's Bay Company took in, 1900 to 1920.

    The figures are those of Howard, Modeling Basics, 2009.

    Returns:
        Years and counts in thousands, arrays `(21,)` of float64.

    Example:
        >>> record = hare_lynx()
        >>> int(record.years[0]), float(record.hare[0]), float(record.lynx[0])
        (1900, 30.0, 4.0)
    """
    with resources.files("node_jax").joinpath("data/hare_lynx.csv").open(encoding="utf-8") as file:
        return HareLynx(*np.loadtxt(file, delimiter=",", skiprows=1, unpack=True))
