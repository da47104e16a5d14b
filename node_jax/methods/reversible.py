"""A reversible scheme around any explicit Runge-Kutta method."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from node_jax import tree
from node_jax.methods.explicit import ExplicitRK
from node_jax.types import PyTree, Step


class Companion(NamedTuple):
    """The memory of the scheme: the second state of a lane, and the number of accepted steps."""

    z: PyTree
    steps: jax.Array


@dataclasses.dataclass(frozen=True, repr=False)
class Coupled(ExplicitRK):
    """Carry two states `y` and `z` so that each step can be undone algebraically.

    With `P_h(t, x)` the increment of the method over a step `h`: `y1 = c y + (1 - c) z + P_h(t, z)` and
    `z1 = z - P_-h(t + h, y1)` (McCallum and Foster, Efficient, accurate and stable gradients for neural ODEs, 2024).
    The solution is `y`. A solve starts with `z = y`, and every `restart` accepted steps `z` is set to `y` again. The
    paper has no restarts; without them `y - z` grows where trajectories contract. The error estimate is that of the
    method plus `|P_h(t, z) + P_-h(t + h, y1)|`, the change of `y - z`: with `|y1 - z1|`, steps of any size may fail.

    Args:
        coupling: the number `c`.
        restart: accepted steps between restarts; None: never.
    """

    coupling: float = 0.999
    restart: int | None = 16

    def __repr__(self) -> str:
        """Return the text of the inner method with coupling and restart."""
        return f"Coupled({super().__repr__()}, {self.coupling}, {self.restart})"

    @property
    def first_same_as_last(self) -> bool:
        """False: the slopes are those of two states."""
        return False

    @property
    def evaluations(self) -> int:
        """Field evaluations of one trial."""
        return len(self.c) + self.replay_evaluations

    def restarts(self, steps: jax.Array) -> jax.Array:
        """Whether the step after `steps` accepted ones starts from two equal states."""
        return steps == 0 if self.restart is None else steps % self.restart == 0

    def start(self, field, t, z, theta) -> Companion:
        """Return the memory for two equal states."""
        return Companion(z, jnp.zeros((), jnp.int32))

    def step(self, field, t, y, h, theta, memory: Companion) -> Step:
        """Try a step of both states from `t` to `t + h`."""
        z = tree.where(self.restarts(memory.steps), y, memory.z)
        slopes = self.stages(field, t, z, h, theta)
        y1 = tree.combine(tree.mix(1 - self.coupling, y, z), h, self.b, slopes)
        back = self.increment(field, t + h, y1, -h, theta)
        z1 = tree.subtract(z, back)
        apart = tree.combine(back, h, self.b, slopes)
        errors = (tree.scale(h, b, slopes) for b in (self.b_error, self.b_error_low) if b)
        return Step(y1, tuple(tree.moduli(e, apart) for e in errors), slopes, Companion(z1, memory.steps + 1))

    def undone(self, y1: PyTree, z: PyTree, increment: PyTree) -> PyTree:
        """Return `y` from `y1`, `z` and the increment from `z`."""
        return tree.mix(1 - 1 / self.coupling, tree.subtract(y1, increment), z)


def coupled(method: Any, coupling: float, restart: int | None) -> Coupled:
    """Return the reversible scheme around a method."""
    if type(method) is not ExplicitRK:
        raise TypeError(f"adjoint=Reversible() needs an explicit Runge-Kutta method, got method={method!r}")
    numbers = {f.name: getattr(method, f.name) for f in dataclasses.fields(method)}
    return Coupled(**numbers, coupling=coupling, restart=restart)
