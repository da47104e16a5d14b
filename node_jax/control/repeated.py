"""Steps that were chosen before, taken again."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from node_jax import norms, tree
from node_jax.control.adaptive import Adaptive
from node_jax.control.records import Control
from node_jax.types import Proposal, PyTree, Status, Step, Time, Verdict


class Repeated(Adaptive):
    """End each step where it ended in a solve before, whatever the error estimate.

    A solve that is compiled into another program rounds otherwise, and may choose other steps: with rows that belong
    to steps, cotangents of the first would meet other rows in the second.
    """

    ends: Any = None  # times at which the steps of that solve ended; NaN where it took none

    @classmethod
    def of(cls, steps: Adaptive, ends: Any) -> "Repeated":
        """Repeat the steps that a policy chose."""
        return cls(**_fields(steps), ends=ends)

    def anew(self) -> Adaptive:
        """Return the policy that chose the steps."""
        return Adaptive(**{name: x for name, x in _fields(self).items() if name != "ends"})

    def propose(self, control: Control, t: Time, done: jax.Array, t0: jax.Array, t1: jax.Array) -> Proposal:
        """Aim at the end of the step that was taken."""
        size = jnp.abs((tree.row(self.ends, done) - t.high) - t.low)
        return super().propose(control._replace(size=size), t, done, t0, t1)

    def judge(
        self, method: Any, step: Step, z: PyTree, t: Time, proposal: Proposal, control: Control, t0, t1
    ) -> Verdict:
        """Accept every finite trial; the first that is not has no end, or should not have been accepted."""
        verdict = super().judge(method, step, z, t, proposal, control, t0, t1)
        good = jnp.isfinite(norms.largest(step.z1, t0.dtype)) & jnp.isfinite(proposal.h)
        return verdict._replace(accepted=good, failure=jnp.where(good, Status.SUCCESS, Status.NON_FINITE))


def _fields(steps: Adaptive) -> dict[str, Any]:
    return {field.name: getattr(steps, field.name) for field in dataclasses.fields(steps)}
