"""Forward mode, of any order, along the steps that were taken."""

from typing import Any

import equinox as eqx

from node_jax.adjoints.defaults import AdjointDefaults
from node_jax.adjoints.parts.history import History
from node_jax.adjoints.parts.replay import replay
from node_jax.engine.each import Each
from node_jax.engine.lane import Outcome


class Forward(eqx.Module, AdjointDefaults):
    """Push tangents along the steps that were taken: `jax.jvp`, `jax.jacfwd`, forward over forward.

    The cost grows with the number of tangents. The memory does not grow with the number of steps, except for the size
    of each step (8 bytes for each lane in float64). It suits few inputs and many outputs, such as a sensitivity at many
    times. Step sizes are constants of the derivative under `Adaptive`.

    Raises:
        NotImplementedError: if it is transposed, as by `jax.grad`; the message names the strategy to use.

    Example:
        >>> import jax, node_jax as nj
        >>> def decayed(rate):
        ...     return nj.odesolve(nj.testing.decay, 1.0, 0.0, 1.0, rate, adjoint=Forward()).z1
        >>> bool(abs(jax.jacfwd(decayed)(1.0) + 0.36788) < 1e-5)
        True
    """

    remedy = "use adjoint=Checkpointed(), or Direct() for reverse mode of higher order"

    def stored(self, limit: int, state: int, sizes: int) -> int:
        """Return the bytes kept along the steps: their sizes."""
        return sizes

    def replay(self, each: Each, outcome: Outcome, history: History) -> tuple[Any, ...]:
        """Return the state at `t1` and the saved rows, differentiable in the inputs."""
        return replay(each, outcome, history, self.recorder(each))
