"""Neural ordinary differential equations in JAX."""

from typing import TYPE_CHECKING, NoReturn

from node_jax import datasets, estimate, extending, hints, nn, testing, train
from node_jax.adapters import from_diffrax, from_torchdiffeq, odeint
from node_jax.adjoints.backsolve import Backsolve
from node_jax.adjoints.checkpointed import Checkpointed
from node_jax.adjoints.direct import Direct
from node_jax.adjoints.forward import Forward
from node_jax.adjoints.interpolated import Interpolated
from node_jax.adjoints.reversible import Reversible
from node_jax.certificate import GradientReport, check_gradient
from node_jax.control import Adaptive, Fixed, Grid
from node_jax.devices import shard
from node_jax.estimate import ParameterFit, fit_parameters
from node_jax.info import Info, info
from node_jax.memory import MemoryEstimate, estimate_memory
from node_jax.methods import (
    ExplicitRK,
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
from node_jax.nn import NeuralODE
from node_jax.odesolve import odesolve
from node_jax.save import Dense, SaveAt, SaveEnd, SaveSteps
from node_jax.solution import InputError, Solution, SolveError
from node_jax.tangent import with_tangent
from node_jax.train import fit
from node_jax.types import Stats, Status

__version__ = "0.2.0"

__all__ = [
    "Adaptive",
    "Backsolve",
    "Checkpointed",
    "Dense",
    "Direct",
    "ExplicitRK",
    "Fixed",
    "Forward",
    "GradientReport",
    "Grid",
    "Info",
    "InputError",
    "Interpolated",
    "MemoryEstimate",
    "NeuralODE",
    "ParameterFit",
    "Reversible",
    "SaveAt",
    "SaveEnd",
    "SaveSteps",
    "Solution",
    "SolveError",
    "Stats",
    "Status",
    "bosh3",
    "check_gradient",
    "datasets",
    "dopri5",
    "dopri8",
    "estimate",
    "estimate_memory",
    "euler",
    "extending",
    "fit",
    "fit_parameters",
    "from_diffrax",
    "from_torchdiffeq",
    "heun",
    "info",
    "midpoint",
    "nn",
    "odeint",
    "odesolve",
    "ralston",
    "rk4",
    "rk38",
    "shard",
    "testing",
    "train",
    "tsit5",
    "with_tangent",
]


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


if not TYPE_CHECKING:  # a checker shall know what there is

    def __getattr__(name: str) -> NoReturn:
        hints.missing("node_jax", name, hints.NAMES, __all__)
