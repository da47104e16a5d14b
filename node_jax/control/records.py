"""What a step-size policy carries, proposes and decides."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from node_jax.types import Time


def direction(t0: jax.Array, t1: jax.Array) -> jax.Array:
    """Return -1 where time runs backwards from `t0` to `t1`, else 1.

    The direction is a fact of the solve. It is never read off the sign of a step, which may be zero.
    """
    one = t0.dtype.type(1)
    return jnp.where(t1 < t0, -one, one)


class Control(NamedTuple):
    """What a policy carries from one trial to the next; None where it has no use for it."""

    size: Any = None  # size of the step to try next, without the sign of its direction
    last: Any = None  # logarithm of error over tolerance of the last accepted step
    before: Any = None  # of the one before that
    room: Any = None  # distance to the end of the last trial that was not finite; infinite if forgotten
    # Two counts in one array, 8 * weight of accepted steps in a row that led nowhere + accepted steps since the last
    # trial that was not finite: with one array more in the loop XLA on a CPU took twice as long (256 lanes, float32).
    counts: Any = None
    unseen: Any = None  # largest step on an error estimate that says nothing; negative if the state began at rest


class Proposal(NamedTuple):
    """A step to try: its size, where it ends, whether that is `t1`, whether that is a breakpoint."""

    h: jax.Array
    end: Time
    last: jax.Array
    breaks: jax.Array


class Verdict(NamedTuple):
    """Whether a trial counts, what is to be counted of it, what to carry on, and a failure (else `SUCCESS`)."""

    accepted: jax.Array
    limited: jax.Array  # the step is at the limit of stability of the method
    unseen: jax.Array  # the step moved the state by less than the tolerance
    control: Control
    failure: jax.Array


def add_time(t: Time, h: jax.Array) -> Time:
    """Add `h` to a compensated time (Knuth's two-sum, then Dekker's renormalisation)."""
    total = t.high + h
    virtual = total - t.high
    rounding = (t.high - (total - virtual)) + (h - virtual) + t.low
    high = total + rounding
    return Time(high, rounding - (high - total))
