"""The exact gradient of the discrete solve, from recorded step sizes and checkpoints.

The forward pass records the size of every accepted step, and states at checkpoints. The backward pass takes accepted
steps again, without error estimates and step control, and transposes each.
"""

from typing import Any

import equinox as eqx

from node_jax.adjoints.defaults import AdjointDefaults
from node_jax.adjoints.parts.backward import back_over_steps
from node_jax.adjoints.parts.boundary import Cotangents, Ends, moving_times
from node_jax.adjoints.parts.history import History, Slots, recorder_of, stored_bytes
from node_jax.adjoints.parts.pullback import pullback_of_steps
from node_jax.adjoints.parts.replay import replay
from node_jax.adjoints.parts.transition import within_steps
from node_jax.engine.each import Each
from node_jax.engine.lane import Outcome
from node_jax.protocols import Method
from node_jax.types import PyTree, is_count


class Checkpointed(eqx.Module, AdjointDefaults):
    """Differentiate the steps that were taken, exactly, within a memory budget.

    A state is kept at every `s`-th recorded step. `s` starts at 1; whenever the slots are full it doubles, and every
    second state is dropped. The backward pass replays the segment between two kept states into a buffer of at most as
    many states; if that does not hold a segment, into one more buffer for each factor of `slots` in its length. With
    `k` buffers, `slots ** (k + 1) / 2` steps need at most `(k + 1) slots` states and `k` replays; no replay if all
    steps fit the slots (for the optimum see Griewank and Walther, Evaluating Derivatives, ch. 12). Step sizes are
    constants of the gradient under `Adaptive`, an error of the order of the tolerance; under `Fixed` and `Grid` they
    are differentiated.

    Args:
        memory: budget for the slots, in bytes. Default: 16 MiB, or 256 states if these are more, at most 256 MiB.
        checkpoints: number of slots instead of a budget.

    Raises:
        ValueError: if `memory` or `checkpoints` is not positive.

    Example:
        >>> Checkpointed(checkpoints=64).checkpoints
        64
    """

    memory: int | None = eqx.field(static=True, default=None)
    checkpoints: int | None = eqx.field(static=True, default=None)

    remedy = "use adjoint=Direct()"

    def __check_init__(self):
        """Refuse a budget that is not a positive integer."""
        for name in ("memory", "checkpoints"):
            value = getattr(self, name)
            if value is not None and not is_count(value):
                raise ValueError(f"Checkpointed({name}=...) must be a positive integer, got {value!r}")

    def recorder(self, each: Each) -> Slots:
        """Return the recorder of step sizes and states."""
        return recorder_of(self, each, self.memory, self.checkpoints, states=True)

    def stored(self, limit: int, state: int, sizes: int) -> int:
        """Return the bytes kept for `limit` steps: states have `state` bytes each, step sizes `sizes` in all."""
        return sizes + stored_bytes(self.memory, self.checkpoints, limit, state)

    def backward(self, each: Each, outcome: Outcome, history: History, bar: Cotangents) -> list[Any]:
        """Transpose the recorded steps, the last first."""
        ends, bar = Ends.of(each, outcome, bar, moving_times(each))
        late, bar = ends.pull_arrival(bar)
        inner, exact = within_steps(ends.each), each.inputs.steps.exact_times
        z_bar, along = back_over_steps(ends, inner, history, bar, pullback_of_steps(inner), self.recorder(each), exact)
        return ends.total(late, along, ends.pull_departure(bar, z_bar))

    def replay(self, each: Each, outcome: Outcome, history: History) -> tuple[PyTree, PyTree, PyTree]:
        """Return the state at `t1`, the saved rows and the checkpoints, differentiable in the inputs."""
        return replay(each, outcome, history, self.recorder(each))

    def replayed(self, method: Method) -> int | None:
        """Return the evaluations of a step in the backward pass, not counting replays between checkpoints."""
        return method.replay_evaluations
