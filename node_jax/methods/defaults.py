"""Defaults for the members of a method."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from node_jax.methods import polynomial
from node_jax.types import PyTree, Step


class MethodDefaults:
    """All members of `node_jax.protocols.Method` except `order`, `step` and, if it has dense output, `polynomial`.

    By default a method has an error estimate, no memory and no dense output (`degree` 0), reports its evaluations as
    `Step.work`, and is replayed by `step` itself.
    """

    has_error: bool = True
    first_same_as_last: bool = False
    evaluations: int | None = None
    degree: int = 0
    dense_size: int = 0
    dense_evaluations: int = 0
    sees_limit: bool = False

    @property
    def error_order(self) -> int:
        """Return `order`, for an embedded method whose order is lower by one."""
        return self.order  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def replay_evaluations(self) -> int | None:
        """Return the evaluations of a trial."""
        return self.evaluations

    def start(self, field, t, z, theta) -> PyTree:
        """Return empty memory."""
        return ()

    def replay(self, field, t, z, h, theta, dense: bool) -> tuple[PyTree, tuple[Any, ...]]:
        """Take the step again."""
        step: Step = self.step(  # pyright: ignore[reportAttributeAccessIssue]
            field, t, z, h, theta, self.start(field, t, z, theta)
        )
        return step.z1, step.dense if dense else ()

    def complete(self, field, t, z, h, theta, dense) -> tuple[PyTree, ...]:
        """Return no more states."""
        return ()

    def polynomial(self, z, h, dense) -> tuple[PyTree, ...]:
        """Refuse: a method with dense output defines it."""
        raise NotImplementedError(f"method={self!r} has degree {self.degree}, and no polynomial")

    def at(self, z, h, dense, x) -> PyTree:
        """Evaluate the polynomial."""
        return polynomial.horner(self.polynomial(z, h, dense), x)

    def quadrature(self, z, h, dense) -> tuple[Sequence, Sequence, Sequence]:
        """Return the Gauss-Legendre points on the dense output."""
        return polynomial.gauss(self, z, h, dense)

    def at_limit(self, step: Step, part: Callable[..., Any]) -> jax.Array:
        """Return false: the limit of stability is not detected."""
        return jnp.array(False)
