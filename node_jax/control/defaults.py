"""Defaults for the members of a step policy."""

from typing import Any

import jax

from node_jax.times import TimesDefaults
from node_jax.types import PyTree, Time


class StepsDefaults(TimesDefaults):
    """All members of `node_jax.protocols.Steps` except `first`, `propose` and `judge`.

    By default a policy holds no times, knows no step beforehand, and fits only the solve that it was made for.
    """

    breakpoints: Any = None
    exact_times: Any = False

    def trials(self, max_steps: Any) -> Any:
        """Return `max_steps`."""
        return max_steps

    def fixed_count(self) -> int | None:
        """Return None: the number of steps is not known beforehand."""
        return None

    def interval(self, i: jax.Array, t0: jax.Array, t1: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Raise NotImplementedError: no step is known beforehand."""
        raise NotImplementedError(f"{type(self).__name__}.interval(i, t0, t1) is needed, as exact_times is true")

    def part(self, z: PyTree) -> PyTree:
        """Return the whole state."""
        return z

    def first_evaluations(self, method: Any) -> int:
        """Return the field evaluations of `method.start`."""
        return int(method.first_same_as_last)

    def end(self, index: jax.Array, t: Time, h: jax.Array, t0: jax.Array, t1: jax.Array) -> Time:
        """Return `t + h`."""
        return t.plus(h)

    def anew(self) -> Any:
        """Return None: the policy fits only its solve."""
        return
