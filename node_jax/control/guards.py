"""Guards of adaptive steps: against walls, beyond which a field is not finite, and against solves that stall."""

import jax.numpy as jnp

from node_jax.control.records import Control
from node_jax.types import Time

STALLED = 10_000  # weight of accepted steps in a row that lead nowhere, at which the solve ends
PATIENCE = 4  # accepted steps in a row after which a wall is forgotten


def before_wall(size, good, accepted, streak, control: Control):
    """Keep steps before the end of a trial that was not finite, where there may be a wall.

    Each step covers at most half of the distance to it, until `PATIENCE` accepted steps in a row. Then the wall is
    forgotten, from the next trial on. The proposed size stands for the size taken, which is smaller only before `t1`
    and breakpoints. Both keep the computation of the step size fast (docs/performance.md, Vectorisation).
    """
    asked = control.size
    wall = control.wall - jnp.where(accepted, asked, 0.0)
    shrink = jnp.where(control.wall < jnp.inf, wall.dtype.type(0.5), 0.1)  # not isinf (docs/performance.md)
    size = jnp.where(good, jnp.minimum(size, 0.5 * wall), shrink * asked)
    return size, jnp.where(good, jnp.where(streak < PATIENCE, wall, jnp.inf), asked)


def stalled(weight, accepted, moved, ratio, t: Time, size, span):
    """Add weight for steps that change neither z nor t and, less, for steps so small that the solve would need 1e9.

    The second kind ends solves that chatter about a jump: 10,000 in a row cover at most 1e-5 of the interval.
    """
    stuck = (moved == 0) & (ratio > 0) & (t.high + size == t.high)
    tiny = size < 1e-9 * jnp.abs(span)
    more = jnp.where(stuck, STALLED // 20, tiny.astype(jnp.int32))
    return jnp.where(accepted, jnp.where(more > 0, weight + more, 0), weight)
