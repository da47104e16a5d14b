"""Data sets that come with the package or are generated from a key."""

from node_jax.datasets.events import poisson
from node_jax.datasets.hare_lynx import HareLynx, hare_lynx
from node_jax.datasets.images import Images, digits, idx
from node_jax.datasets.planes import (
    Checkerboard,
    Circles,
    EightGaussians,
    Moons,
    checkerboard,
    circles,
    eight_gaussians,
    moons,
    nested_spheres,
)
from node_jax.datasets.ragged import pad
from node_jax.datasets.spirals import Spirals, spirals
from node_jax.datasets.theophylline import Theophylline, theophylline

__all__ = [
    "Checkerboard",
    "Circles",
    "EightGaussians",
    "HareLynx",
    "Images",
    "Moons",
    "Spirals",
    "Theophylline",
    "checkerboard",
    "circles",
    "digits",
    "eight_gaussians",
    "hare_lynx",
    "idx",
    "moons",
    "nested_spheres",
    "pad",
    "poisson",
    "spirals",
    "theophylline",
]
