"""Adaptive steps, chosen so that the estimated error stays below a tolerance."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from node_jax import marks, norms, tree
from node_jax.arraylike import points_of
from node_jax.control.defaults import StepsDefaults
from node_jax.control.first_step import first_step
from node_jax.control.guards import PATIENCE, STALLED, before_wall, stalled
from node_jax.control.records import Control
from node_jax.types import Proposal, PyTree, Status, Step, Time, VectorField, Verdict, direction


class Adaptive(eqx.Module, StepsDefaults):
    """Choose each step so that the estimated error stays below a tolerance.

    The error of a step is `norm(error / (atol + rtol * max(|z(t)|, |z(t + h)|)))`; at most 1 is accepted. The next
    step is the last times `safety * e0**(-b0/k) * e1**(-b1/k) * e2**(-b2/k)` with the errors `e0, e1, e2` of the last
    three accepted steps, `k` the order of the estimate, `b0 = p + i + d`, `b1 = -(p + 2d)`, `b2 = d`. The first step
    is that of Hairer, Norsett and Wanner, Solving ODEs I, II.4. A trial that is not finite is
    rejected and tried again with a tenth of its size. The steps after it go at most half of the way to where it ended,
    until a few of them have succeeded.

    Args:
        rtol: relative tolerance: a scalar, or a pytree prefix of `z` with scalars or arrays shaped like its leaves; at
            least 4 machine epsilons of each leaf are used.
        atol: absolute tolerance, in units of `z`; same forms.
        first_step: size of the first step, in units of `t`; default: chosen.
        min_step: no step is smaller, in units of `t`, but the one that ends at `t1` or a breakpoint. A step of this
            size whose error is above the tolerance fails with `STEP_UNDERFLOW`; see `force_min_step`.
        max_step: no step is larger.
        breakpoints: array or list `(m,)` of times (or one time) at which `f` jumps (doses, switches), in any order:
            steps land on them, no step sees the field on both sides, and the slope is restarted.
        p: proportional coefficient of the PID controller of the step size.
        i: integral coefficient.
        d: derivative coefficient.
        safety: factor on the step that the controller proposes.
        min_factor: least ratio of a step to the one before. With `p = d = 0` an accepted step is never followed by a
            smaller one.
        max_factor: largest ratio of a step to the one before.
        force_min_step: whether a finite step of size `min_step` is accepted whatever its error, as torchdiffeq does.
            The error is then no longer controlled.
        stay_stable: whether a step at the limit of stability of the method is followed by a smaller one. At that limit
            the error is small, but the product of the steps' Jacobians is not: the solution of a stiff problem may be
            right and its gradient wrong by orders of magnitude. Staying below takes a few more steps.
        norm: maps a pytree shaped like `z` to a real scalar; a module-level function (a new one recompiles).
        controlled: maps `z` to the part by which steps are chosen; `rtol`, `atol` and `norm` are those of this part.
            The rest, such as an integral computed along with the state, affects no step. A module-level function that
            selects leaves or entries; default: all of `z`.

    Example:
        >>> Adaptive(rtol=1e-8, atol=1e-10).safety
        0.9
    """

    rtol: PyTree = 1e-6
    atol: PyTree = 1e-8
    first_step: Any = None
    min_step: Any = 0.0
    max_step: Any = jnp.inf
    breakpoints: Any = eqx.field(converter=functools.partial(points_of, "breakpoints"), default=None)
    p: float = eqx.field(static=True, default=0.2)
    i: float = eqx.field(static=True, default=0.65)
    d: float = eqx.field(static=True, default=0.0)
    safety: float = eqx.field(static=True, default=0.9)
    min_factor: float = eqx.field(static=True, default=0.2)
    max_factor: float = eqx.field(static=True, default=10.0)
    force_min_step: bool = eqx.field(static=True, default=False)
    stay_stable: bool = eqx.field(static=True, default=True)
    norm: Callable[..., Any] = eqx.field(static=True, default=norms.rms)
    controlled: Callable[..., Any] | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        """Refuse a `controlled` that is not callable."""
        if self.controlled is not None and not callable(self.controlled):
            raise TypeError(f"Adaptive(controlled=...) must be a function of the state, got {self.controlled!r}")

    times = ("breakpoints",)

    def part(self, z: PyTree) -> PyTree:
        """Return the part of a pytree like the state by which steps are chosen."""
        return z if self.controlled is None else self.controlled(z)

    def paired(self) -> "Adaptive":
        """Return the policy for a pair of states, each with these tolerances."""
        return dataclasses.replace(
            self,
            rtol=(self.rtol,) * 2,
            atol=(self.atol,) * 2,
            norm=_Both(self.norm),
            controlled=self.controlled and _Parts(self.controlled),
        )

    def anew(self) -> "Adaptive":
        """Return the policy for a solve of another system."""
        return self

    def tighter(self, factor: float) -> "Adaptive":
        """Return the policy with its tolerances multiplied by `factor`, as arrays, for which no warning is given."""
        scaled = jax.tree.map(lambda x: jnp.asarray(x) * factor, (self.rtol, self.atol))
        return dataclasses.replace(self, rtol=scaled[0], atol=scaled[1])

    def _rules(self) -> Iterator[tuple[str, str, Any, Any]]:
        """Yield name, requirement, value and validity of each value that is known only at run time."""
        for name in ("rtol", "atol"):
            for x in jax.tree.leaves(getattr(self, name)):
                yield name, "finite and not negative", x, (x >= 0) & jnp.isfinite(x)
        for name in ("first_step", "max_step"):
            if (x := getattr(self, name)) is not None:
                yield name, "positive", x, x > 0
        yield "min_step", "not negative", self.min_step, self.min_step >= 0
        if (x := self.breakpoints) is not None:
            yield "breakpoints", "numbers", x, ~jnp.isnan(x)

    def complaint(self, t0: Any, t1: Any) -> str | None:
        """Return a message about the first concrete value that is wrong; None if none is."""
        wrong = (
            f"Adaptive({name}=...) must be {kind}, got {x}" for name, kind, x, ok in self._rules() if not np.all(ok)
        )
        return next(wrong, None)

    def valid(self, t0: jax.Array, t1: jax.Array) -> jax.Array:
        """Whether the values known only at run time are valid."""
        return functools.reduce(jnp.logical_and, (jnp.all(ok) for *_, ok in self._rules()))

    def first_evaluations(self, method: Any) -> int:
        """Return the number of field evaluations before the first trial."""
        return 2 if self.first_step is None else int(method.first_same_as_last)

    def first(
        self, method: Any, field: VectorField, z0: PyTree, t0: jax.Array, t1: jax.Array, theta: PyTree, limit: Any
    ) -> tuple[Control, PyTree]:
        """Return the first control and the method's first memory; `limit` is the largest number of trials, or None."""
        memory = method.start(field, t0, z0, theta)
        span, tangent, rests = jnp.abs(t1 - t0), jnp.full_like(t0, jnp.nan), jnp.array(False)
        if self.first_step is not None:
            size = jnp.asarray(self.first_step, t0.dtype)
        else:
            slope = memory if method.first_same_as_last else field(z0, t0, theta)
            seen = self.part(z0)
            tolerance = norms.tolerances(seen, seen, self.rtol, self.atol)
            size, tangent, rests = first_step(
                lambda z, t: field(z, t, theta), self.norm, self.part, tolerance, method.error_order, z0, slope, t0, t1
            )
        # While the error estimate carries no information, steps grow at most to a thousandth of the interval, or to a
        # size that resolves a tangent. From a state at rest this limits the first step too, and all steps that change
        # the state by less than the tolerance.
        few = 1000 if limit is None else jnp.clip(limit // 4, 1, 1000).astype(t0.dtype)
        resolving = jnp.fmax(span / few, self._resolving(method.error_order).astype(t0.dtype) * tangent)
        size = jnp.where(rests, jnp.minimum(size, resolving), size)
        size = jnp.clip(size, self._least(t0, t1), self.max_step)
        unseen = jnp.maximum(self.max_factor * size, resolving)
        unseen = jnp.where(rests, -unseen, unseen)
        last, before = (jnp.zeros_like(t0) if used else None for used in (self.p or self.d, self.d))
        return Control(size, last, before, jnp.full_like(size, jnp.inf), jnp.zeros((), jnp.int32), unseen), memory

    def _resolving(self, order: int) -> jax.Array:
        """Return the step that resolves a tangent to `rtol`, in units of the time in which the tangent changes."""
        rtol = norms.largest(self.rtol, jnp.dtype(jnp.float32))
        return jnp.minimum(1.0, (math.factorial(order) * rtol) ** (1.0 / order))

    def _least(self, t0: jax.Array, t1: jax.Array) -> jax.Array:
        """Return the size of the smallest allowed step: one that still changes a compensated time."""
        eps, furthest = float(jnp.finfo(t0.dtype).eps), jnp.maximum(jnp.abs(t0), jnp.abs(t1))
        return jnp.maximum(jnp.asarray(self.min_step, t0.dtype), 4 * eps * eps * furthest)

    def _goal(self, t: Time, t0: jax.Array, t1: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return the next breakpoint or `t1`, its distance, and whether it is a breakpoint."""
        goal, breaks = t1, jnp.array(False)
        if self.breakpoints is not None and self.breakpoints.size:
            sign = direction(t0, t1)
            ahead = (self.breakpoints - t.high) * sign
            inside = (ahead > 0) & ((t1 - self.breakpoints) * sign > 0)
            nearest = jnp.argmin(jnp.where(inside, ahead, jnp.inf))
            breaks = jnp.any(inside)
            goal = jnp.where(breaks, self.breakpoints[nearest], t1)
        return goal, (goal - t.high) - t.low, breaks

    def propose(self, control: Control, t: Time, done: jax.Array, t0: jax.Array, t1: jax.Array) -> Proposal:
        """Propose a step of the current size, or one to the next breakpoint or `t1` if that is about as near."""
        goal, left, breaks = self._goal(t, t0, t1)
        arrives = 1.01 * control.size >= jnp.abs(left)
        asked = direction(t0, t1) * control.size
        return Proposal(
            jnp.where(arrives, left, asked), _end(t, asked, arrives, goal), arrives & ~breaks, arrives & breaks
        )

    def end(self, index: jax.Array, t: Time, h: jax.Array, t0: jax.Array, t1: jax.Array) -> Time:
        """Return the end of a recorded step of size `h` from `t`, exactly the breakpoint or `t1` if it ended there."""
        goal, left, _ = self._goal(t, t0, t1)
        return _end(t, h, h == left, goal)

    def judge(
        self, method: Any, step: Step, z: PyTree, t: Time, proposal: Proposal, control: Control, t0, t1
    ) -> Verdict:
        """Accept a trial whose error is within the tolerance, and choose the size of the next step."""
        ratio, moved = self._measured(step, z, t0.dtype)
        good = ~jnp.isnan(ratio) & jnp.isfinite(moved)
        fits = ratio <= 1.0
        if self.force_min_step:
            fits |= control.size <= self.min_step
        if step.ok is not True:
            good |= ~step.ok  # no result, but no wall either
            fits &= step.ok
        accepted = marks.once(good & fits)
        digits = float(jnp.finfo(tree.real_dtype(self.part(z))).eps)
        silent = (ratio <= 0.25 * digits * moved) | ((control.unseen < 0) & (moved <= 1))

        # in float32, whose digits suffice for a step size (docs/performance.md, Vectorisation)
        error = jnp.log(jnp.maximum(ratio, 1e-10).astype(jnp.float32)).astype(t0.dtype)
        size = jnp.abs(proposal.h) * self._factor(method, error, accepted, control)
        size = jnp.where(accepted & proposal.breaks, jnp.maximum(size, control.size), size)
        size = jnp.where(silent, jnp.minimum(size, jnp.maximum(jnp.abs(control.unseen), control.size)), size)
        streak = jnp.where(good, (control.counts & 7) + accepted, 0)
        size, wall = before_wall(size, good, accepted, streak, control)
        if step.ok is not True:
            size = jnp.where(step.ok, size, 0.5 * jnp.abs(proposal.h))
        limited = method.at_limit(step, self.part)
        if self.stay_stable:
            size = jnp.where(limited, jnp.minimum(size, 0.9 * control.size), size)

        weight = stalled(control.counts >> 3, accepted, moved, ratio, t, control.size, t1 - t0)
        least, furthest = self._least(t0, t1), jnp.maximum(jnp.abs(t0), jnp.abs(t1))
        nearest = jnp.maximum(self.min_step, max(1e-9, 4 * float(jnp.finfo(t0.dtype).eps)) * furthest)
        underflow = (~accepted & (control.size <= jnp.where(good, least, nearest))) | (weight >= STALLED)
        failure = jnp.where(underflow, jnp.where(good, Status.STEP_UNDERFLOW, Status.NON_FINITE), Status.SUCCESS)
        size = jnp.clip(size, least, self.max_step)
        counts = 8 * weight + jnp.minimum(streak, PATIENCE)
        after = Control(size, *_last_errors(error, accepted, control), wall, counts, control.unseen)
        return Verdict(accepted, limited, silent | (moved <= 1), after, failure)

    def _measured(self, step: Step, z: PyTree, dtype: Any) -> tuple[jax.Array, jax.Array]:
        """Return the norm of the error of a trial, and the largest change of the state, in units of the tolerance."""
        z, z1 = self.part(z), self.part(step.z1)
        tolerance = norms.tolerances(z, z1, self.rtol, self.atol)
        ratio = self._estimate(step, tolerance).astype(dtype)
        # several results read this and `accepted` (docs/performance.md, Fusion)
        return ratio, marks.once(norms.largest(tree.divide(tree.subtract(z1, z), tolerance), dtype))

    def _factor(self, method: Any, error: jax.Array, accepted: jax.Array, control: Control) -> jax.Array:
        """Return the factor of the step size, in float32 as in `judge`, from the logarithms of the last errors."""
        damped = (self.p + self.i + self.d) * error
        if control.last is not None:
            damped -= (self.p + 2 * self.d) * control.last
        if control.before is not None:
            damped += self.d * control.before
        exponent = jnp.where(accepted, damped, error)
        exponent = (exponent * (-1.0 / method.error_order)).astype(jnp.float32)
        factor = self.safety * jnp.exp(exponent).astype(error.dtype)
        one, least = factor.dtype.type(1), self.min_factor  # `where` of two Python numbers would have 64 bits
        least = least if self.p or self.d else jnp.where(accepted, one, least)
        return jnp.clip(factor, least, jnp.where(accepted, self.max_factor, one))

    def _estimate(self, step: Step, tolerance: PyTree) -> jax.Array:
        high, *low = (self.norm(tree.divide(self.part(error), tolerance)) for error in step.error)
        if not low:
            return high
        # DOP853: the 5th-order estimate, damped by the 3rd-order one; by their quotient, since squares can overflow
        return jnp.where(high == 0, 0.0, high / jnp.sqrt(1.0 + 0.01 * (low[0] / high) ** 2))


class _Both(NamedTuple):
    """The norm of a pair of states."""

    norm: Callable[..., Any]

    def __call__(self, pair: tuple[PyTree, PyTree]) -> jax.Array:
        return jnp.sqrt(0.5 * (self.norm(pair[0]) ** 2 + self.norm(pair[1]) ** 2))


class _Parts(NamedTuple):
    """The controlled parts of a pair of states."""

    controlled: Callable[..., Any]

    def __call__(self, pair: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        return self.controlled(pair[0]), self.controlled(pair[1])


def _last_errors(error: jax.Array, accepted: jax.Array, control: Control) -> tuple[Any, Any]:
    """Return the logarithms of the errors of the last two accepted steps, each None if it is not used."""
    last, before = control.last, control.before
    if before is not None and last is not None:
        before = jnp.where(accepted, last, before)
    if last is not None:
        last = jnp.where(accepted, jnp.maximum(error, -9.0), last)
    return last, before


def _end(t: Time, h: jax.Array, arrives: jax.Array, goal: jax.Array) -> Time:
    beyond = t.plus(h)
    return Time(jnp.where(arrives, goal, beyond.high), jnp.where(arrives, 0.0, beyond.low))
