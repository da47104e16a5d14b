"""Parameters of differential equations from measurements, and how well they are known."""

from node_jax.estimate.bands import Prediction, Profile
from node_jax.estimate.fitting import fit_parameters
from node_jax.estimate.result import ParameterFit, Starts

__all__ = ["ParameterFit", "Prediction", "Profile", "Starts", "fit_parameters"]
