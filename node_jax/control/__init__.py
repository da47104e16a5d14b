"""Step-size policies: what to try next, and whether a trial counts. All arrays are those of one lane."""

from node_jax.control.adaptive import Adaptive
from node_jax.control.prescribed import Fixed, Grid
from node_jax.control.records import Control, Proposal, Verdict, add_time, direction
from node_jax.control.repeated import Repeated

__all__ = ["Adaptive", "Control", "Fixed", "Grid", "Proposal", "Repeated", "Verdict", "add_time", "direction"]
