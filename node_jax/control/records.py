"""The state of the adaptive step controller."""

from typing import Any, NamedTuple

import jax


class Control(NamedTuple):
    """What is carried from one trial to the next; None if a policy does not use it."""

    size: jax.Array  # size of the step to try next, without the sign of its direction
    last: Any  # logarithm of error over tolerance of the last accepted step
    before: Any  # the same for the accepted step before
    wall: jax.Array  # distance to the wall; infinite if there is none or it was forgotten
    # 8 * (weight of accepted steps in a row that led nowhere) + (accepted steps in a row, at most `PATIENCE`): two
    # counts in one array (docs/performance.md, Loops)
    counts: jax.Array
    unseen: jax.Array  # largest step if the error estimate carries no information; negative if the state began at rest
