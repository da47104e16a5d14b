"""Step-size policies: what to try next, and whether a trial counts. All arrays are those of one lane."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax import tree
from node_jax.types import Method, PyTree, Status, Step, Time, VectorField, is_count


_STALLED = 10_000


class Control(NamedTuple):
    """What a policy carries from one trial to the next; None where it has no use for it."""

    h: Any = None  # signed step to try next
    last: Any = None  # logarithm of error over tolerance of the last accepted step
    before: Any = None  # of the one before that
    stalled: Any = None  # weight of the accepted steps in a row that led nowhere
    wall: Any = None  # end of the last trial that was not finite; infinite if forgotten
    streak: Any = None  # accepted steps since


class Proposal(NamedTuple):
    """A step to try: its size, where it ends, whether that is `t1`, whether that is a breakpoint."""

    h: jax.Array
    end: Time
    last: jax.Array
    breaks: jax.Array


class Verdict(NamedTuple):
    """Whether a trial counts, what to carry on, and the status if the lane must stop (else `SUCCESS`)."""

    accepted: jax.Array
    control: Control
    failure: jax.Array


def add_time(t: Time, h: jax.Array) -> Time:
    """Add `h` to a compensated time (Knuth's two-sum, then Dekker's renormalisation)."""
    total = t.high + h
    virtual = total - t.high
    rounding = (t.high - (total - virtual)) + (h - virtual) + t.low
    high = total + rounding
    return Time(high, rounding - (high - total))


class Adaptive(eqx.Module):
    """Choose each step so that the estimated error stays below a tolerance.

    The error of a step is `norm(error / (atol + rtol * max(|z(t)|, |z(t + h)|)))`; at most 1 is accepted. The next
    step is the last times `safety * e0**(-b0/k) * e1**(-b1/k) * e2**(-b2/k)` with the errors `e0, e1, e2` of the last
    three accepted steps, `k` the order of the estimate, `b0 = p + i + d`, `b1 = -(p + 2d)`, `b2 = d`. The first step
    is that of Hairer, Norsett and Wanner, Solving ODEs I, II.4. A trial that is not finite is
    rejected with factor 0.1, and from then on the way to its end is halved, until a few steps have succeeded.

    Args:
        rtol: relative tolerance: a scalar, or a pytree prefix of `z` with scalars or arrays shaped like its leaves.
        atol: absolute tolerance, in units of `z`; same forms.
        first_step: size of the first step, in units of `t`; default: chosen.
        min_step: a rejected step of this size fails with `STEP_UNDERFLOW`.
        max_step: no step is larger.
        breakpoints: array `(m,)` of times at which `f` jumps (doses, switches), in any order: steps land on them, no
            step sees the field on both sides, and the slope is restarted.
        p: proportional coefficient of the PID controller; `i`, `d`: integral and derivative ones.
        safety, min_factor, max_factor: limits on the change of the step.
        norm: maps a pytree shaped like `z` to a real scalar; a module-level function (a new one recompiles).

    Example:
        >>> Adaptive(rtol=1e-8, atol=1e-10).safety
        0.9
    """

    rtol: PyTree = 1e-6
    atol: PyTree = 1e-8
    first_step: Any = None
    min_step: Any = 0.0
    max_step: Any = jnp.inf
    breakpoints: Any = None
    p: float = eqx.field(static=True, default=0.2)
    i: float = eqx.field(static=True, default=0.65)
    d: float = eqx.field(static=True, default=0.0)
    safety: float = eqx.field(static=True, default=0.9)
    min_factor: float = eqx.field(static=True, default=0.2)
    max_factor: float = eqx.field(static=True, default=10.0)
    norm: Callable = eqx.field(static=True, default=tree.rms)

    exact_times = False  # step sizes are constants of the gradient

    def trials(self, max_steps: int | None) -> int | None:
        """Upper bound on the trials of one lane."""
        return max_steps

    def fixed_count(self) -> None:
        """No number of steps is known beforehand."""
        return

    def valid(self, t0: jax.Array, t1: jax.Array) -> jax.Array:
        """Whether the values known only at run time make sense."""
        tolerances = jax.tree.leaves((self.rtol, self.atol))
        ok = jnp.all(jnp.array([jnp.all((x >= 0) & jnp.isfinite(x)) for x in tolerances]))
        steps = [x for x in (self.first_step, self.max_step) if x is not None]
        ok &= jnp.all(jnp.array([x > 0 for x in steps])) & (self.min_step >= 0)
        if self.breakpoints is not None:
            ok &= ~jnp.any(jnp.isnan(self.breakpoints))
        return ok

    def first_evaluations(self, method: Method) -> int:
        """Field evaluations before the first trial."""
        return 2 if self.first_step is None else int(method.first_same_as_last)

    def first(
        self, method: Method, field: VectorField, z0: PyTree, t0: jax.Array, t1: jax.Array, theta: PyTree
    ) -> tuple[Control, PyTree]:
        """Return the first control and the method's memory."""
        memory = method.start(field, t0, z0, theta)
        direction = jnp.where(t1 < t0, -1.0, 1.0).astype(t0.dtype)
        if self.first_step is not None:
            size = jnp.asarray(self.first_step, t0.dtype)
        else:
            slope = field(z0, t0, theta) if memory is None else memory
            size = self._guess(method, field, z0, t0, direction, theta, slope, jnp.abs(t1 - t0))
        size = jnp.minimum(size, self.max_step)
        last, before = (jnp.zeros_like(t0) if used else None for used in (self.p or self.d, self.d))
        zero = jnp.zeros((), jnp.int32)
        return Control(direction * size, last, before, zero, direction * jnp.inf, zero), memory

    def _guess(self, method, field, z0, t0, direction, theta, slope, span):
        def size_of(x):
            return self._ratio(x, z0, z0)

        d0, d1 = size_of(z0), size_of(slope)
        h0 = jnp.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1)
        h0 = jnp.minimum(h0, span)
        probe = field(tree.combine(z0, direction * h0, (1.0,), (slope,)), t0 + direction * h0, theta)
        d2 = size_of(tree.subtract(probe, slope)) / h0
        steepest = jnp.maximum(d1, d2)
        h1 = jnp.where(
            steepest <= 1e-15, jnp.maximum(1e-6, 1e-3 * h0), (0.01 / steepest) ** (1.0 / (method.error_order))
        )
        size = jnp.minimum(jnp.where(jnp.isfinite(h1) & (h1 > 0), jnp.minimum(100 * h0, h1), h0), span)
        return jnp.where(jnp.isfinite(size), size, span).astype(t0.dtype)

    def propose(self, control: Control, t: Time, done: jax.Array, t0: jax.Array, t1: jax.Array) -> Proposal:
        """Aim at the next breakpoint or `t1`, and take it if the step comes near."""
        goal, breaks = t1, jnp.array(False)
        if self.breakpoints is not None and self.breakpoints.size:
            direction = jnp.where(t1 < t0, -1.0, 1.0).astype(t1.dtype)
            ahead = (self.breakpoints - t.high) * direction
            inside = (ahead > 0) & ((t1 - self.breakpoints) * direction > 0)
            nearest = jnp.argmin(jnp.where(inside, ahead, jnp.inf))
            breaks = jnp.any(inside)
            goal = jnp.where(breaks, self.breakpoints[nearest], t1)
        left = (goal - t.high) - t.low
        arrives = 1.01 * jnp.abs(control.h) >= jnp.abs(left)
        h = jnp.where(arrives, left, control.h)
        beyond = add_time(t, control.h)
        end = Time(jnp.where(arrives, goal, beyond.high), jnp.where(arrives, 0.0, beyond.low))
        return Proposal(h, end, arrives & ~breaks, arrives & breaks)

    def judge(
        self, method: Method, step: Step, z: PyTree, t: Time, proposal: Proposal, control: Control, t0, t1
    ) -> Verdict:
        """Accept a trial whose error is within the tolerance, and choose the next step size."""
        dtype = control.h.dtype
        ratio = self._estimate(step, z)
        change = tree.largest(tree.subtract(step.z1, z), dtype)
        good = ~jnp.isnan(ratio) & jnp.isfinite(change)
        accepted = good & (ratio <= 1.0)

        # one logarithm and one exponential: a power costs twenty times a product
        error = jnp.log(jnp.maximum(ratio, 1e-10))
        damped = (self.p + self.i + self.d) * error
        if control.last is not None:
            damped -= (self.p + 2 * self.d) * control.last
        if control.before is not None:
            damped += self.d * control.before
        exponent = jnp.where(accepted, damped, error)
        factor = self.safety * jnp.exp(exponent * (-1.0 / method.error_order))
        factor = jnp.clip(factor, self.min_factor, jnp.where(accepted, self.max_factor, 1.0))
        size = jnp.abs(proposal.h) * factor
        size = jnp.where(accepted & proposal.breaks, jnp.maximum(size, jnp.abs(control.h)), size)

        # beyond the end of a trial that was not finite there may be a wall: close in by halves, forget it after a while
        streak = jnp.where(good, control.streak + accepted, 0)
        wall = jnp.where(streak < 4, control.wall, jnp.copysign(jnp.inf, control.h))
        half = 0.5 * jnp.abs(wall - jnp.where(accepted, proposal.end.high, t.high))
        first = jnp.where(jnp.isinf(control.wall), 0.1, 0.5)
        size = jnp.where(good, jnp.minimum(size, half), first * jnp.abs(proposal.h))
        wall = jnp.where(good, wall, proposal.end.high)

        eps, furthest = jnp.finfo(dtype).eps, jnp.maximum(jnp.abs(t0), jnp.abs(t1))
        floor = jnp.maximum(self.min_step, jnp.where(good, 4 * eps * eps, max(1e-10, 4 * eps)) * furthest)
        stalled = self._stalled(accepted, change, ratio, t, proposal, control, t1 - t0)
        underflow = (~accepted & (jnp.abs(proposal.h) <= floor)) | (stalled >= _STALLED)
        failure = jnp.where(
            underflow, jnp.where(good, Status.STEP_UNDERFLOW, Status.NON_FINITE), Status.SUCCESS
        )

        size = jnp.clip(size, jnp.maximum(self.min_step, 4 * eps * eps * furthest), self.max_step)
        last, before = control.last, control.before
        if before is not None:
            before = jnp.where(accepted, last, before)
        if last is not None:
            last = jnp.where(accepted, jnp.maximum(error, -9.0), last)
        control = Control(jnp.copysign(size, control.h), last, before, stalled, wall, streak)
        return Verdict(accepted, control, failure)

    def _stalled(self, accepted, change, ratio, t, proposal, control, span):
        """Count steps that leave z and t as they are, and with less weight such as would need 1e9 for the way.

        The second kind ends solves that chatter about a jump: 10,000 of them in a row cover 1e-5 of the way at most.
        """
        stuck = (change == 0) & (ratio > 0) & (proposal.end.high == t.high)
        tiny = jnp.abs(proposal.h) < 1e-9 * jnp.abs(span)
        weight = jnp.where(stuck, _STALLED // 20, tiny.astype(jnp.int32))
        return jnp.where(accepted, jnp.where(weight > 0, control.stalled + weight, 0), control.stalled)

    def _estimate(self, step: Step, z: PyTree) -> jax.Array:
        high, *low = (self._ratio(error, z, step.z1) for error in step.error)
        if not low:
            return high
        # DOP853: the 5th-order estimate, damped by the 3rd-order one
        return high * jnp.where(high == 0, 0.0, high / jnp.sqrt(high**2 + 0.01 * low[0] ** 2))

    def _ratio(self, error: PyTree, z: PyTree, z1: PyTree) -> jax.Array:
        return self.norm(tree.error_ratio_terms(error, z, z1, self.rtol, self.atol))


class _Prescribed(eqx.Module):
    """What `Fixed` and `Grid` share: every finite trial counts."""

    exact_times = True  # step sizes are functions of the times and are differentiated with them

    def first_evaluations(self, method):
        return int(method.first_same_as_last)

    def first(self, method, field, z0, t0, t1, theta):
        memory = method.start(field, t0, z0, theta)
        return Control(), memory

    def propose(self, control, t, done, t0, t1):
        start, end = self.interval(done, t0, t1)
        return Proposal(
            end - start, Time(end, jnp.zeros_like(end)), done == self.fixed_count() - 1, jnp.array(False)
        )

    def judge(self, method, step, z, t, proposal, control, t0, t1):
        good = jnp.isfinite(tree.largest(step.z1, t0.dtype))
        return Verdict(good, control, jnp.where(good, Status.SUCCESS, Status.NON_FINITE))

    def trials(self, max_steps):
        return self.fixed_count()


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
        """The number of steps."""
        return self.n

    def valid(self, t0, t1):
        """Always true: `n` was checked when the record was made."""
        return jnp.array(True)

    def interval(self, i, t0, t1):
        """Start and end of step `i`."""
        h = (t1 - t0) / self.n
        end = jnp.where(i == self.n - 1, t1, t0 + (i + 1).astype(h.dtype) * h)
        return t0 + i.astype(h.dtype) * h, end


class Grid(_Prescribed):
    """Take the steps between given times.

    Args:
        ts: array `(n + 1,)`, `n >= 1`, monotonic, from `t0` to `t1`, in units of `t`.

    Raises:
        ValueError: if `ts` is not one-dimensional or has fewer than two entries. A grid whose ends are not `t0` and
            `t1`, or that turns back, ends with status `BAD_INPUT`.

    Example:
        >>> import jax.numpy as jnp
        >>> Grid(jnp.array([0.0, 0.1, 1.0])).fixed_count()
        2
    """

    ts: Any

    def __check_init__(self):
        """Refuse a grid of the wrong shape."""
        shape = jnp.shape(self.ts) if not isinstance(self.ts, jax.ShapeDtypeStruct) else self.ts.shape
        if len(shape) != 1 or shape[0] < 2:
            raise ValueError(f"Grid(ts): ts must have shape (n + 1,) with n >= 1, got shape {shape}")

    def fixed_count(self) -> int:
        """The number of steps."""
        return self.ts.shape[-1] - 1

    def valid(self, t0, t1):
        """Whether the grid goes from `t0` to `t1` without turning back."""
        steps = jnp.diff(self.ts) * jnp.where(t1 < t0, -1.0, 1.0).astype(t0.dtype)
        return (self.ts[0] == t0) & (self.ts[-1] == t1) & jnp.all(steps >= 0)

    def interval(self, i, t0, t1):
        """Start and end of step `i`."""
        return self.ts[i], self.ts[i + 1]
