"""Step policies: which step to try, and whether a trial is accepted. All arrays are those of one lane."""

from node_jax.control.adaptive import Adaptive
from node_jax.control.defaults import StepsDefaults
from node_jax.control.prescribed import Fixed, Grid
from node_jax.control.repeated import Repeated

__all__ = ["Adaptive", "Fixed", "Grid", "Repeated", "StepsDefaults"]
