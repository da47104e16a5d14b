"""Forward mode, of any order, along the steps that were taken."""

import equinox as eqx

from node_jax.adjoints.replay import has_lanes, recorder_of, replay
from node_jax.adjoints.slots import History, Slots
from node_jax.integrate import Each, Inputs, Outcome, Problem


class Forward(eqx.Module):
    """Push tangents along the steps that were taken: `jax.jvp`, `jax.jacfwd`, forward over forward.

    The cost grows with the number of tangents, the memory does not grow with the number of steps (8 bytes a step and
    lane apart). Better than reverse mode where there are few inputs and many outputs, such as a sensitivity at many
    times. Step sizes are constants of the derivative under `Adaptive`.

    Raises:
        NotImplementedError: where it is transposed (`jax.grad`); it names the strategy to use.

    Example:
        >>> import jax, node_jax as nj
        >>> def decayed(rate):
        ...     return nj.odesolve(nj.testing.decay, 1.0, 0.0, 1.0, rate, adjoint=Forward()).z1
        >>> bool(abs(jax.jacfwd(decayed)(1.0) + 0.36788) < 1e-5)
        True
    """

    records = True
    plain = False

    def remedy(self, what: str) -> str:
        """Say which strategy supports what this one does not."""
        return "use adjoint=Checkpointed(), or Direct() for reverse mode of higher order"

    def recorder(self, problem: Problem, inputs: Inputs) -> Slots:
        """Return what writes the history of a solve: step sizes only."""
        return recorder_of(self, problem, inputs, 0, None, states=False)

    def has_lanes(self, history: History) -> list[bool]:
        """Say for each leaf of a history whether it has lane axes."""
        return has_lanes(history)

    def states(self, history: History) -> tuple:
        """No states are kept."""
        return ()

    def with_states(self, history: History, states: tuple) -> History:
        """No states are kept."""
        return history

    def backward(self, each: Each, outcome: Outcome, history: History, bar, moving, shifted) -> list:
        """Refuse."""
        raise NotImplementedError(f"adjoint={self!r} does not support reverse mode: {self.remedy('reverse mode')}")

    def replay(self, each: Each, outcome: Outcome, history: History, shifted) -> tuple:
        """Return the state at `t1` and the saved rows, differentiable in the inputs."""
        recorder = self.recorder(each.problem, each.problem.unflatten(each.leaves))
        return replay(each, outcome, history, recorder, shifted)
