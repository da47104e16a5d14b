"""What a method, a step policy, a save or an adjoint of your own is made of.

`docs/extending.md` shows one of each. `node_jax.protocols` describes the members; the classes named `...Defaults`
define those that have a default, and the rest are records and functions that members take and return. Check a part with
`assert_method`, `assert_steps`, `assert_save` or `assert_adjoint` of `node_jax.testing`.
"""

from node_jax.adjoints.defaults import AdjointDefaults
from node_jax.adjoints.parts.backward import back_over_steps
from node_jax.adjoints.parts.boundary import Cotangents, Ends, moving_times
from node_jax.adjoints.parts.history import recorder_of
from node_jax.adjoints.parts.observations import observe
from node_jax.adjoints.parts.pullback import pullback_of_steps
from node_jax.adjoints.parts.replay import replay
from node_jax.adjoints.parts.transition import within_steps
from node_jax.control.defaults import StepsDefaults
from node_jax.methods.defaults import MethodDefaults
from node_jax.protocols import Adjoint, Method, Save, Steps
from node_jax.save.defaults import SaveDefaults
from node_jax.types import Inputs, Proposal, Results, Status, Step, Time, Trial, Verdict, direction

__all__ = [
    "Adjoint",
    "AdjointDefaults",
    "Cotangents",
    "Ends",
    "Inputs",
    "Method",
    "MethodDefaults",
    "Proposal",
    "Results",
    "Save",
    "SaveDefaults",
    "Status",
    "Step",
    "Steps",
    "StepsDefaults",
    "Time",
    "Trial",
    "Verdict",
    "back_over_steps",
    "direction",
    "moving_times",
    "observe",
    "pullback_of_steps",
    "recorder_of",
    "replay",
    "within_steps",
]
