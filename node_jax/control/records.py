"""What adaptive steps carry from one trial to the next."""

from typing import Any, NamedTuple

import jax


class Control(NamedTuple):
    """What is known of the steps so far; None where a policy has no use for it."""

    size: jax.Array  # size of the step to try next, without the sign of its direction
    last: Any  # logarithm of error over tolerance of the last accepted step
    before: Any  # of the one before that
    room: jax.Array  # distance to the end of the last trial that was not finite; infinite if forgotten
    # Two counts in one array, 8 * weight of accepted steps in a row that led nowhere + accepted steps since the last
    # trial that was not finite: every array more in a loop costs (docs/performance.md, Loops).
    counts: jax.Array
    unseen: jax.Array  # largest step on an error estimate that says nothing; negative if the state began at rest
