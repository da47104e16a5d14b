"""What an adjoint need not say."""

from typing import Any

import jax

from node_jax.adjoints.parts.boundary import unsupported
from node_jax.adjoints.parts.history import recorder_of
from node_jax.types import PyTree


class AdjointDefaults:
    """The members of `node_jax.protocols.Adjoint` beside `stored`, and `replay` or `backward`.

    By default an adjoint records steps, takes them with the method of the user, and refuses the modes that it does not
    define.
    """

    records: Any = True
    plain: Any = False
    remedy: Any = "use adjoint=Checkpointed() or Direct()"

    def scheme(self, method: Any) -> Any:
        """Return the method of the user."""
        return method

    def recorder(self, each: Any) -> Any:
        """Return what writes step sizes down, and no states."""
        return recorder_of(self, each)

    def replay(self, each: Any, outcome: Any, history: Any, wanted: Any) -> tuple[PyTree, PyTree, PyTree]:
        """Refuse."""
        raise unsupported(self, "forward mode")

    def backward(self, each: Any, outcome: Any, history: Any, bar: Any, wanted: Any) -> list:
        """Refuse."""
        raise unsupported(self, "reverse mode")

    def reconstruct(self, each: Any, z1_bar: PyTree) -> tuple[PyTree, jax.Array] | None:
        """Return none: the way back does not find the state at `t0` again."""
        return None

    def replayed(self, method: Any) -> int | None:
        """Return none: evaluations of the way back are not counted."""
        return None

    def tighter(self, factor: float) -> Any:
        """Return the adjoint as it is: it has no tolerances."""
        return self
