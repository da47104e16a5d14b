"""Equinox modules: vector fields and the models built on them."""

from node_jax.nn.fields import MLPField
from node_jax.nn.neural_ode import NeuralODE

__all__ = ["MLPField", "NeuralODE"]
