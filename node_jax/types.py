"""Records that the other modules exchange."""

import enum
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from node_jax import hints

PyTree = Any
Size = Any  # of an axis: an integer, or a dimension of `jax.export.symbolic_shape`
AnyArray = jax.Array | np.ndarray  # what functions take; they return jax.Array
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


RUNNING = -1  # status of a lane that has neither succeeded nor failed yet


def is_count(x: Any) -> bool:
    """Whether `x` is a positive integer (and not a bool)."""
    return isinstance(x, int) and not isinstance(x, bool) and x > 0


def direction(t0: jax.Array, t1: jax.Array) -> jax.Array:
    """Return -1 where time runs backwards from `t0` to `t1`, else 1; the sign of a step could be 0."""
    one = t0.dtype.type(1)
    return jnp.where(t1 < t0, -one, one)


class Time(NamedTuple):
    """A time as the unevaluated sum `high + low`, so that rounding loses no small step at a large `t`."""

    high: Any
    low: Any

    def plus(self, h: jax.Array) -> "Time":
        """Return the time after `h` (Knuth's two-sum, then Dekker's renormalisation)."""
        total = self.high + h
        virtual = total - self.high
        rounding = (self.high - (total - virtual)) + (h - virtual) + self.low
        high = total + rounding
        return Time(high, rounding - (high - total))


class Inputs(NamedTuple):
    """The values that a solve depends on; the lane axes of a leaf, if it has any, are its last axes."""

    z0: PyTree
    t0: jax.Array
    t1: jax.Array
    theta: PyTree  # in `odesolve` a flat list of the arrays that the field reads
    steps: Any
    save: Any
    expected_cost: Any = None  # of one lane, in any unit; None: not known
    limit: Any = None  # largest number of trials of a lane; None: `max_steps` of the problem

    @property
    def sign(self) -> jax.Array:
        """Return -1 where time runs backwards, else 1."""
        return direction(self.t0, self.t1)


class Step(NamedTuple):
    """What a method returns for one trial step.

    Attributes:
        z1: state at the end of the step.
        error: one or two embedded error estimates, each shaped like `z1`; empty for a method that has none.
        dense: states from which the method builds its dense output, for example the slopes of the stages.
        memory: what the method needs for the next step if this one is accepted.
        ok: whether there is a result. If false, as where Newton's method does not converge, the step is rejected and
            its size is halved. (A result that is not finite is rejected too, and its end is taken for a wall.)
        work: field evaluations of the trial, int32; read only if `evaluations` of the method is None.
        retry: what the method needs for the next trial if this one is rejected; None: the memory of this trial.
    """

    z1: PyTree
    error: tuple[PyTree, ...]
    dense: tuple[PyTree, ...]
    memory: PyTree
    ok: Any = True
    work: Any = None
    retry: PyTree = None


class Trial(NamedTuple):
    """An attempted step of one lane from `(t, z)` to `(end, z1)`; `index` is the number of steps accepted before it."""

    accepted: jax.Array
    index: jax.Array
    t: Time
    h: jax.Array
    end: jax.Array
    z: PyTree
    z1: PyTree
    dense: tuple[PyTree, ...]


class StepBar(NamedTuple):
    """Cotangents of one step of one lane, as far as they come from the rows that it saved."""

    t: jax.Array
    h: jax.Array
    z: PyTree
    z1: PyTree
    dense: tuple[PyTree, ...]


class Proposal(NamedTuple):
    """A step to try: its size, its end, and whether that end is `t1` (`last`) or a breakpoint (`breaks`)."""

    h: jax.Array
    end: Time
    last: jax.Array
    breaks: jax.Array


class Verdict(NamedTuple):
    """The decision about a trial: acceptance, what to count, the control to carry on, a failure (else `SUCCESS`)."""

    accepted: jax.Array
    limited: jax.Array  # the step is at the limit of stability of the method
    unseen: jax.Array  # the error estimate of the step carries no information (see `Stats`)
    control: PyTree
    failure: jax.Array


class Results(NamedTuple):
    """The fields of a `Solution` that a save fills; None for the others."""

    ts: Any = None
    zs: PyTree = None
    interpolant: Any = None


class Stats(NamedTuple):
    """Counts of one lane (int32, shape `lanes`).

    Attributes:
        nfe: field evaluations, including those of the first step size and of rejected trials.
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
        """Return the count at a position; for a name, raise an error that shows the attribute."""
        if isinstance(i, str):
            hints.missing("stats", i, hints.COUNTS, self._fields)
        return tuple.__getitem__(self, i)

    def __getattr__(self, name: str) -> NoReturn:
        """Raise an error that shows which attribute stands for a name of another package."""
        hints.missing("stats", name, hints.COUNTS, self._fields)
