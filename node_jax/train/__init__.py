"""Training: one loop for every model, and the losses of the models."""

from node_jax.train.checkpoint import CheckpointError
from node_jax.train.loop import Fit, Update, fit
from node_jax.train.losses import cross_entropy, elbo, flow_matching, nll, point_process, squared_error
from node_jax.train.outcome import Counts

__all__ = [
    "CheckpointError",
    "Counts",
    "Fit",
    "Update",
    "cross_entropy",
    "elbo",
    "fit",
    "flow_matching",
    "nll",
    "point_process",
    "squared_error",
]
