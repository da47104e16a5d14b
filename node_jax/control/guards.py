"""Guards of adaptive steps: against walls behind which a field is not finite, and against leading nowhere."""

import jax.numpy as jnp

from node_jax.control.records import Control
from node_jax.types import Time

STALLED = 10_000  # weight of accepted steps in a row that ends a solve which leads nowhere
PATIENCE = 4  # accepted steps in a row after which a trial that was not finite is forgotten


def before_wall(size, good, accepted, streak, control: Control):
    """Stay before the end of a trial that was not finite, where there may be a wall.

    The room before it is halved by every step; after a few that were accepted it is forgotten, from the next trial on:
    with that count in the kernel that finds the step, a CPU would not vectorise its exponential. (Here and in
    `stalled` the step asked for stands for the one taken, which is shorter only before `t1` and breakpoints: a CPU
    would compute the latter once more for each result.)
    """
    asked = control.size
    room = control.room - jnp.where(accepted, asked, 0.0)
    shrink = jnp.where(
        control.room < jnp.inf, room.dtype.type(0.5), 0.1
    )  # isinf would cost a fifth of the time of 256 lanes
    size = jnp.where(good, jnp.minimum(size, 0.5 * room), shrink * asked)
    return size, jnp.where(good, jnp.where(streak < PATIENCE, room, jnp.inf), asked)


def stalled(weight, accepted, moved, ratio, t: Time, size, span):
    """Count steps that leave z and t as they are, and with less weight such as would need 1e9 for the way.

    The second kind ends solves that chatter about a jump: 10,000 of them in a row cover 1e-5 of the way at most.
    """
    stuck = (moved == 0) & (ratio > 0) & (t.high + size == t.high)
    tiny = size < 1e-9 * jnp.abs(span)
    more = jnp.where(stuck, STALLED // 20, tiny.astype(jnp.int32))
    return jnp.where(accepted, jnp.where(more > 0, weight + more, 0), weight)
