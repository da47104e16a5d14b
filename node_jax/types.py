"""Records and protocols that every other module shares."""

import enum
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, Protocol, runtime_checkable

import jax

from node_jax import hints

PyTree = Any
VectorField = Callable[[PyTree, Any, PyTree], PyTree]  # f(z, t, theta) -> dz/dt, shaped like z


class Status(enum.IntEnum):
    """Say how the solve of one lane ended.

    Attributes:
        SUCCESS: `t1` was reached.
        MAX_STEPS: `max_steps` trials were not enough: the problem is stiff, or the tolerance is too tight.
        NON_FINITE: the field or the state is NaN or infinite.
        STEP_UNDERFLOW: the step became too small to matter: the solution blows up, or the field jumps.
        BAD_INPUT: times are out of order or not finite, or a tolerance is negative.
        CAPACITY: the rows of `SaveSteps` or `Dense` ran out.

    Example:
        >>> import node_jax as nj
        >>> sol = nj.odesolve(nj.testing.decay, 1.0, 0.0, 9.0, 1.0, max_steps=3, throw=False)
        >>> nj.Status(int(sol.status)).name
        'MAX_STEPS'
    """

    SUCCESS = 0
    MAX_STEPS = 1
    NON_FINITE = 2
    STEP_UNDERFLOW = 3
    BAD_INPUT = 4
    CAPACITY = 5


def is_count(x: Any) -> bool:
    """Whether `x` is a positive integer (and not a bool)."""
    return isinstance(x, int) and not isinstance(x, bool) and x > 0


RUNNING = -1  # a lane that has neither succeeded nor failed yet


class Time(NamedTuple):
    """A compensated time `high + low`: float32 solves with a large `t` neither stall nor drift."""

    high: Any
    low: Any


class Step(NamedTuple):
    """What one trial step of a method returns.

    `error` holds one or two embedded error estimates (none for a method without), `slopes` the stage slopes
    that dense output needs, `memory` what the method wants to find at the next step.
    """

    z1: PyTree
    error: tuple[PyTree, ...]
    slopes: tuple[PyTree, ...]
    memory: PyTree


@runtime_checkable
class Method(Protocol):
    """The seam between the loop and a one-step method; all arrays are those of one lane."""

    order: int

    @property
    def first_same_as_last(self) -> bool:
        """Whether `memory` is the slope at the start of the next step."""
        ...

    @property
    def has_error(self) -> bool:
        """Whether `step` returns an error estimate."""
        ...

    @property
    def error_order(self) -> int:
        """Exponent `k` of the local error estimate, which behaves like `h**k`."""
        ...

    def start(self, field: VectorField, t: jax.Array, z: PyTree, theta: PyTree) -> PyTree:
        """Build the memory that the first step from `(t, z)` expects."""
        ...

    def step(self, field: VectorField, t: jax.Array, z: PyTree, h: jax.Array, theta: PyTree, memory: PyTree) -> Step:
        """Try a step from `t` to `t + h`."""
        ...

    def at_limit(self, slopes: tuple[PyTree, ...]) -> jax.Array:
        """Whether a step with these slopes is as large as stability allows; false if it cannot tell."""
        ...

    def advance(self, field: VectorField, t: jax.Array, z: PyTree, h: jax.Array, theta: PyTree) -> PyTree:
        """Return `z1` of the same step and nothing else: what a replay for the gradient needs."""
        ...


class Stats(NamedTuple):
    """Counts of one lane (int32, shape `lanes`).

    Attributes:
        nfe: field evaluations, first step and rejected trials included.
        accepted: accepted steps.
        rejected: rejected trials.
        limited: accepted steps at the limit of stability of the method (after Hairer and Wanner, Solving ODEs II,
            IV.2); -1 for a method that cannot tell. Where many are, the problem is stiff, and a gradient should be
            checked: `check_gradient`.
        idle: trials of the other lanes that passed while the lane of this solve was done and not yet taken by another.
        unseen: accepted steps whose error estimate says nothing: it vanished, as for a state at rest, or the step
            changed every component by less than its tolerance, as where a state stays below `atol`. Where all steps
            are such, neither the solution nor its gradient was controlled; `with_tangent` controls both. -1 under
            prescribed steps.

    Example:
        >>> import node_jax as nj
        >>> stats = nj.odesolve(nj.testing.decay, 1.0, 0.0, 1.0, 1.0, method=nj.rk4, steps=nj.Fixed(10)).stats
        >>> int(stats.accepted), int(stats.rejected), int(stats.nfe)
        (10, 0, 40)
    """

    nfe: jax.Array
    accepted: jax.Array
    rejected: jax.Array
    limited: jax.Array
    idle: jax.Array
    unseen: jax.Array

    def __getitem__(self, i: Any) -> Any:
        """Return a count by its place; names are attributes."""
        if isinstance(i, str):
            hints.missing("stats", i, hints.COUNTS, self._fields)
        return tuple.__getitem__(self, i)

    def __getattr__(self, name: str) -> NoReturn:
        """Say what is used here instead of a name of another package."""
        hints.missing("stats", name, hints.COUNTS, self._fields)
