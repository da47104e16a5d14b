"""Defaults for the members of an adjoint."""

from typing import Any

import jax

from node_jax.adjoints.parts.boundary import unsupported
from node_jax.adjoints.parts.history import recorder_of
from node_jax.types import PyTree


class AdjointDefaults:
    """All members of `node_jax.protocols.Adjoint` except `stored`, and `replay` or `backward`.

    By default an adjoint records step sizes, uses the method of the user, and refuses the modes that it does not
    define.
    """

    records: Any = True
    plain: Any = False
    remedy: Any = "use adjoint=Checkpointed() or Direct()"

    def scheme(self, method: Any) -> Any:
        """Return the method of the user."""
        return method

    def recorder(self, each: Any) -> Any:
        """Return the recorder of step sizes, without states."""
        return recorder_of(self, each)

    def replay(self, each: Any, outcome: Any, history: Any) -> tuple[PyTree, PyTree, PyTree]:
        """Raise NotImplementedError."""
        raise unsupported(self, "forward mode")

    def backward(self, each: Any, outcome: Any, history: Any, bar: Any) -> list[Any]:
        """Raise NotImplementedError."""
        raise unsupported(self, "reverse mode")

    def reconstruct(self, each: Any, z1_bar: PyTree) -> tuple[PyTree, jax.Array] | None:
        """Return None: the backward pass does not reconstruct the state at `t0`."""
        return None

    def replayed(self, method: Any) -> int | None:
        """Return None: evaluations of the backward pass are not counted."""
        return None

    def tighter(self, factor: float) -> Any:
        """Return the adjoint unchanged: it has no tolerances."""
        return self
