"""Equinox modules: vector fields and the models built on them."""

from node_jax.nn.augmented import Augmented, Batched, Residual
from node_jax.nn.classifier import Classifier, ConvStem, PoolHead
from node_jax.nn.concat import ConcatField, ConcatSquashField
from node_jax.nn.conv import ConvField
from node_jax.nn.encoders import GRUEncoder, ODERNNEncoder
from node_jax.nn.flow import CNF, FlowSolution, StandardNormal
from node_jax.nn.frozen import Frozen
from node_jax.nn.galerkin import Galerkin
from node_jax.nn.integrals import state_of
from node_jax.nn.latent_ode import LatentODE, LatentSolution
from node_jax.nn.mlp import MLPField
from node_jax.nn.neural_ode import NeuralODE
from node_jax.nn.ode_rnn import GRU, ODERNN
from node_jax.nn.planar import HyperField, PlanarField
from node_jax.nn.planar_flow import PlanarFlow
from node_jax.nn.poisson import Events, PoissonProcess, PoissonSolution
from node_jax.nn.regularizers import (
    JacobianFrobenius,
    Kinetic,
    RandomEnd,
    SolverError,
    TotalDerivative,
    with_penalties,
)
from node_jax.nn.traces import Exact, Hutchinson

__all__ = [
    "CNF",
    "GRU",
    "ODERNN",
    "Augmented",
    "Batched",
    "Classifier",
    "ConcatField",
    "ConcatSquashField",
    "ConvField",
    "ConvStem",
    "Events",
    "Exact",
    "FlowSolution",
    "Frozen",
    "GRUEncoder",
    "Galerkin",
    "Hutchinson",
    "HyperField",
    "JacobianFrobenius",
    "Kinetic",
    "LatentODE",
    "LatentSolution",
    "MLPField",
    "NeuralODE",
    "ODERNNEncoder",
    "PlanarField",
    "PlanarFlow",
    "PoissonProcess",
    "PoissonSolution",
    "PoolHead",
    "RandomEnd",
    "Residual",
    "SolverError",
    "StandardNormal",
    "TotalDerivative",
    "state_of",
    "with_penalties",
]
