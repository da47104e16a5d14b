"""One-step methods: explicit Runge-Kutta tableaux, their step, and a reversible scheme around them."""

from node_jax.methods.explicit import ExplicitRK
from node_jax.methods.reversible import Coupled, coupled
from node_jax.methods.tableaux import (
    METHODS,
    bosh3,
    dopri5,
    dopri8,
    euler,
    heun,
    midpoint,
    ralston,
    rk4,
    rk38,
    tsit5,
)

__all__ = [
    "METHODS",
    "Coupled",
    "ExplicitRK",
    "bosh3",
    "coupled",
    "dopri5",
    "dopri8",
    "euler",
    "heun",
    "midpoint",
    "ralston",
    "rk4",
    "rk38",
    "tsit5",
]
