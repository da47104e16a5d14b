"""Prescribed steps, which are known before the solve."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax import norms
from node_jax.arraylike import times_of
from node_jax.control.defaults import StepsDefaults
from node_jax.times import from_end_to_end, misplaced
from node_jax.types import Proposal, Status, Time, Verdict, direction, is_count


class _Prescribed(eqx.Module, StepsDefaults):
    """What `Fixed` and `Grid` share: every finite trial is accepted."""

    exact_times = True

    def fixed_count(self) -> int:
        raise NotImplementedError

    def trials(self, max_steps):
        return self.fixed_count()

    def first(self, method, field, z0, t0, t1, theta, limit):
        return (), method.start(field, t0, z0, theta)

    def propose(self, control, t, done, t0, t1):
        start, end = self.interval(done, t0, t1)
        return Proposal(end - start, Time(end, jnp.zeros_like(end)), done == self.fixed_count() - 1, jnp.array(False))

    def judge(self, method, step, z, t, proposal, control, t0, t1):
        good = jnp.isfinite(norms.largest(step.z1, t0.dtype))
        if step.ok is not True:
            good &= step.ok
        limited = method.at_limit(step, self.part)
        return Verdict(good, limited, jnp.array(False), control, jnp.where(good, Status.SUCCESS, Status.NON_FINITE))

    def end(self, index, t, h, t0, t1):
        """Return the end of step `index`."""
        end = self.interval(index, t0, t1)[1]
        return Time(end, jnp.zeros_like(end))


class Fixed(_Prescribed):
    """Take `n` steps of equal size.

    Args:
        n: number of steps, a static positive integer.

    Raises:
        ValueError: if `n` is not a positive integer.

    Example:
        >>> Fixed(40).n
        40
    """

    n: int = eqx.field(static=True)

    def __check_init__(self):
        """Refuse a number of steps that is not a positive integer."""
        if not is_count(self.n):
            raise ValueError(f"Fixed(n): n must be a positive integer, got {self.n!r}")

    def fixed_count(self) -> int:
        """Return the number of steps."""
        return self.n

    def interval(self, i, t0, t1):
        """Return start and end of step `i`."""
        h = (t1 - t0) / self.n
        end = jnp.where(i == self.n - 1, t1, t0 + (i + 1).astype(h.dtype) * h)
        return t0 + i.astype(h.dtype) * h, end


class Grid(_Prescribed):
    """Take the steps between given times.

    Args:
        ts: array or list of real numbers `(n + 1,)`, `n >= 1`, monotonic, from `t0` to `t1`, in units of `t`.

    Raises:
        ValueError: if `ts` is not one-dimensional or has fewer than two entries. With a grid whose ends are not `t0`
            and `t1`, or that turns back, the solve ends with status `BAD_INPUT`.

    Example:
        >>> import jax.numpy as jnp
        >>> Grid(jnp.array([0.0, 0.1, 1.0])).fixed_count()
        2
    """

    ts: Any = eqx.field(converter=functools.partial(times_of, "Grid(ts): ts"))

    times = ("ts",)

    def __check_init__(self):
        """Refuse a grid of the wrong shape."""
        shape = jnp.shape(self.ts) if not isinstance(self.ts, jax.ShapeDtypeStruct) else self.ts.shape
        if len(shape) != 1 or shape[0] < 2:
            raise ValueError(f"Grid(ts): ts must have shape (n + 1,) with n >= 1, got shape {shape}")

    def fixed_count(self) -> int:
        """Return the number of steps."""
        return self.ts.shape[0] - 1

    def aligned(self, t0, t1, blur=0.0):
        """Return the grid with its ends replaced by those of the solve, if they are equal up to rounding."""
        return Grid(from_end_to_end(self.ts, t0, t1, blur))

    def complaint(self, t0, t1):
        """Return a message about concrete times that are wrong; None if none is."""
        return misplaced("Grid(ts): ts", self.ts, t0, t1) or (
            f"Grid(ts): ts must begin at t0={t0} and end at t1={t1}, got {self.ts[0]} and {self.ts[-1]}"
        )

    def valid(self, t0, t1):
        """Whether the grid goes from `t0` to `t1` without turning back."""
        steps = jnp.diff(self.ts) * direction(t0, t1)
        return (self.ts[0] == t0) & (self.ts[-1] == t1) & jnp.all(steps >= 0)

    def interval(self, i, t0, t1):
        """Return start and end of step `i`."""
        return self.ts[i], self.ts[i + 1]
