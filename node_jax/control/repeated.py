"""The steps of an earlier solve, taken again."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from node_jax import norms, tree
from node_jax.control.adaptive import Adaptive
from node_jax.control.records import Control
from node_jax.types import Proposal, PyTree, Status, Step, Time, Verdict


class Repeated(Adaptive):
    """End each step where the same step of an earlier solve ended, whatever the error estimate.

    A solve compiled as part of another program rounds differently and may choose other steps. Cotangents of rows that
    belong to steps would then meet rows of other steps.
    """

    ends: Any = None  # end times of the steps of the earlier solve, shape `(n,)`; NaN after the last

    @classmethod
    def of(cls, steps: Adaptive, ends: Any) -> "Repeated":
        """Return the policy that repeats the steps chosen by `steps`, which ended at `ends`."""
        return cls(**_fields(steps), ends=ends)

    def anew(self) -> Adaptive:
        """Return the policy that chose the steps."""
        return Adaptive(**{name: x for name, x in _fields(self).items() if name != "ends"})

    def propose(self, control: Control, t: Time, done: jax.Array, t0: jax.Array, t1: jax.Array) -> Proposal:
        """Propose the step to the recorded end."""
        size = jnp.abs((tree.entry(self.ends, done) - t.high) - t.low)
        return super().propose(control._replace(size=size), t, done, t0, t1)

    def judge(
        self, method: Any, step: Step, z: PyTree, t: Time, proposal: Proposal, control: Control, t0, t1
    ) -> Verdict:
        """Accept every finite trial; after the last recorded end the proposed end is NaN, and the trial fails."""
        verdict = super().judge(method, step, z, t, proposal, control, t0, t1)
        good = jnp.isfinite(norms.largest(step.z1, t0.dtype)) & jnp.isfinite(proposal.h)
        return verdict._replace(accepted=good, failure=jnp.where(good, Status.SUCCESS, Status.NON_FINITE))


def _fields(steps: Adaptive) -> dict[str, Any]:
    return {field.name: getattr(steps, field.name) for field in dataclasses.fields(steps)}
