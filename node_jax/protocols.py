"""The protocols of the parts that users may replace: methods, step policies, saves, adjoints and back ends.

A class needs these members and no base class. Their arguments are given by position, so a class may name them as it
likes. `node_jax.extending` holds base classes with defaults.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax

from node_jax.types import Inputs, Proposal, PyTree, Results, Step, Time, Trial, VectorField, Verdict


@runtime_checkable
class Method(Protocol):
    """A one-step method: a hashable record, whose arrays are those of one lane. Equal methods share a compilation.

    `node_jax.extending.MethodDefaults` defines the members that have a default.
    """

    @property
    def order(self) -> int:
        """Order of convergence of `z1`."""
        ...

    @property
    def error_order(self) -> int:
        """Exponent `k` of the error estimate, which behaves like `h**k` for small `h`."""
        ...

    @property
    def has_error(self) -> bool:
        """Whether `step` returns an error estimate."""
        ...

    @property
    def first_same_as_last(self) -> bool:
        """Whether `memory` is the slope at the start of the next step; it is then built anew behind a breakpoint."""
        ...

    @property
    def evaluations(self) -> int | None:
        """Field evaluations of one trial; None if each `Step` holds its own as `work`."""
        ...

    @property
    def replay_evaluations(self) -> int | None:
        """Field evaluations of `replay` without dense output; None if not known."""
        ...

    @property
    def degree(self) -> int:
        """Degree of the polynomial of the dense output; 0 if the method has none."""
        ...

    @property
    def dense_size(self) -> int:
        """Number of states in `Step.dense`."""
        ...

    @property
    def dense_evaluations(self) -> int:
        """Field evaluations of `complete`, which returns as many states."""
        ...

    @property
    def sees_limit(self) -> bool:
        """Whether `at_limit` can detect a step at the limit of stability."""
        ...

    def start(self, field: VectorField, t: jax.Array, z: PyTree, theta: PyTree, /) -> PyTree:
        """Return the memory that the first step from `(t, z)` needs."""
        ...

    def step(self, field: VectorField, t: jax.Array, z: PyTree, h: jax.Array, theta: PyTree, memory: PyTree, /) -> Step:
        """Try a step from `t` to `t + h`; one of size 0, as idle lanes take, must be finite and end at `z`."""
        ...

    def replay(
        self, field: VectorField, t: jax.Array, z: PyTree, h: jax.Array, theta: PyTree, dense: bool, /
    ) -> tuple[PyTree, tuple[Any, ...]]:
        """Take the same step again, to be differentiated; return `z1`, and the completed `dense` if asked, else ()."""
        ...

    def complete(
        self, field: VectorField, t: jax.Array, z: PyTree, h: jax.Array, theta: PyTree, dense: tuple[Any, ...], /
    ) -> tuple[PyTree, ...]:
        """Return the states that dense output needs beyond `Step.dense`; callers append them to it."""
        ...

    def at(self, z: PyTree, h: jax.Array, dense: tuple[Any, ...], x: jax.Array, /) -> PyTree:
        """Return the state at `t + x h` of a step from `z`, from its completed `dense`."""
        ...

    def polynomial(self, z: PyTree, h: jax.Array, dense: tuple[Any, ...], /) -> tuple[PyTree, ...]:
        """Return `degree + 1` coefficients `q_j`, shaped like `z`, of `z(t + x h) = sum_j q_j x**j`."""
        ...

    def quadrature(self, z: PyTree, h: jax.Array, dense: tuple[Any, ...], /) -> tuple[Sequence, Sequence, Sequence]:
        """Return states along a step, their places as fractions of `h`, and quadrature weights of sum 1."""
        ...

    def at_limit(self, step: Step, part: Callable[..., Any], /) -> jax.Array:
        """Whether the step is at the limit of stability, judged by `part` of the state; false if not detected."""
        ...


@runtime_checkable
class Steps(Protocol):
    """A policy that chooses the steps: a pytree, whose arrays are those of one lane.

    `node_jax.extending.StepsDefaults` defines the members that have a default.
    """

    @property
    def times(self) -> tuple[str, ...]:
        """Names of the attributes that hold times."""
        ...

    @property
    def breakpoints(self) -> Any:
        """Times, shape `(m,)`, at which the field jumps and steps must end; None if there are none."""
        ...

    @property
    def exact_times(self) -> bool:
        """Whether steps are known functions of the times, and are differentiated as such."""
        ...

    def trials(self, max_steps: Any, /) -> Any:
        """Return an upper bound on the trials of one lane; None if there is none."""
        ...

    def fixed_count(self) -> int | None:
        """Return the number of steps if it is known beforehand, else None."""
        ...

    def interval(self, i: jax.Array, t0: jax.Array, t1: jax.Array, /) -> tuple[jax.Array, jax.Array]:
        """Return start and end of step `i`; used if `exact_times`."""
        ...

    def aligned(self, t0: jax.Array, t1: jax.Array, blur: float = 0.0, /) -> "Steps":
        """Return the policy with `t0` or `t1` for each of its times that is equal to it up to rounding."""
        ...

    def complaint(self, t0: Any, t1: Any, /) -> str | None:
        """Return a message about the first concrete value that is wrong; None if none is."""
        ...

    def valid(self, t0: jax.Array, t1: jax.Array, /) -> jax.Array:
        """Whether the values known only at run time are valid."""
        ...

    def part(self, z: PyTree, /) -> PyTree:
        """Return the part of a pytree like the state by which steps are chosen."""
        ...

    def first_evaluations(self, method: Method, /) -> int:
        """Return the number of field evaluations before the first trial."""
        ...

    def first(
        self, method: Method, field: VectorField, z0: PyTree, t0: jax.Array, t1: jax.Array, theta: PyTree, limit: Any, /
    ) -> tuple[PyTree, PyTree]:
        """Return the first control, any pytree, and the method's first memory; `limit`: the most trials, or None."""
        ...

    def propose(self, control: PyTree, t: Time, done: jax.Array, t0: jax.Array, t1: jax.Array, /) -> Proposal:
        """Choose the step to try from `t`, after `done` accepted steps."""
        ...

    def judge(
        self, method: Method, step: Step, z: PyTree, t: Time, proposal: Proposal, control: PyTree, t0: Any, t1: Any, /
    ) -> Verdict:
        """Decide whether a trial is accepted, and choose the control to carry on."""
        ...

    def end(self, index: jax.Array, t: Time, h: jax.Array, t0: jax.Array, t1: jax.Array, /) -> Time:
        """Return the end of a recorded step of size `h` from `t`, to the last bit."""
        ...

    def anew(self) -> Any:
        """Return an `Adaptive` for the solve of a continuous adjoint; None for `Adaptive()`.

        Its values are numbers, or arrays of the policy.
        """
        ...


@runtime_checkable
class Save(Protocol):
    """What a solve saves: a pytree that says when a row is due and what it holds.

    All arrays are those of one lane. A lane carries a `cursor`, any pytree, from step to step. The engine writes the
    rows into a table and transposes `row` by `jax.vjp`. `node_jax.extending.SaveDefaults` defines the members that have
    a default: one row for each accepted step.
    """

    @property
    def times(self) -> tuple[str, ...]:
        """Names of the attributes that hold times."""
        ...

    @property
    def ts(self) -> Any:
        """Times, shape `(n,)`, at which the rows are the states; None for other rows.

        The `cursor` has then a `target`, the time of the next row, and derivatives reach the times.
        """
        ...

    @property
    def size(self) -> int:
        """Number of rows."""
        ...

    @property
    def capacity(self) -> int | None:
        """Largest number of accepted steps; beyond it a solve ends with status `CAPACITY`. None: no limit."""
        ...

    @property
    def reads_dense(self) -> bool:
        """Whether `row` reads the dense output of a step."""
        ...

    @property
    def repeats(self) -> bool:
        """Whether one step may write several rows."""
        ...

    @property
    def tells_times(self) -> bool:
        """Whether rows hold the times at which steps end."""
        ...

    def aligned(self, t0: jax.Array, t1: jax.Array, blur: float = 0.0, /) -> "Save":
        """Return the save with `t0` or `t1` for each of its times that lies beyond it by rounding."""
        ...

    def complaint(self, t0: Any, t1: Any, /) -> str | None:
        """Return a message about the first concrete value that is wrong; None if none is."""
        ...

    def valid(self, t0: jax.Array, t1: jax.Array, /) -> jax.Array:
        """Whether the values known only at run time are valid."""
        ...

    def start(self, inputs: Inputs, /) -> PyTree:
        """Return the cursor before the first step."""
        ...

    def blank(self, method: Method, inputs: Inputs, z: PyTree, still: jax.Array, /) -> PyTree:
        """Return the content of a row that no step writes; `still`: the lane has nothing to integrate."""
        ...

    def due(self, inputs: Inputs, trial: Trial, cursor: PyTree, /) -> jax.Array:
        """Whether a trial writes the next row; false for a rejected trial."""
        ...

    def place(self, trial: Trial, cursor: PyTree, /) -> jax.Array:
        """Return the index of the row that is written next, int32."""
        ...

    def row(self, method: Method, inputs: Inputs, trial: Trial, cursor: PyTree, /) -> PyTree:
        """Return what is written into it: floating arrays, a function of the trial and of the `target` of the cursor.

        Derivatives take all else that it reads for constants. Rows of a trial that is not due are thrown away.
        """
        ...

    def passed(self, inputs: Inputs, trial: Trial, cursor: PyTree, due: jax.Array, /) -> PyTree:
        """Return the cursor after that row if it was due, else the cursor as it is."""
        ...

    def undone(self, inputs: Inputs, trial: Trial, cursor: PyTree, /) -> tuple[jax.Array, PyTree]:
        """Whether the step wrote the last row before the cursor, and the cursor before that row.

        The backward pass calls this; with the second result `place` and `row` return that row again.
        """
        ...

    def count(self, cursor: PyTree, accepted: jax.Array, ok: jax.Array, /) -> jax.Array:
        """Return how many rows hold a value, int32; `ok`: whether the lane reached `t1`."""
        ...

    def constant(self, rows_bar: PyTree, z0: PyTree, /) -> PyTree:
        """Return the cotangent of `z0` from the rows of a lane that had nothing to integrate."""
        ...

    def ends(self, rows: PyTree, /) -> Any:
        """Return the end times of the steps, NaN after the last, if each row belongs to a step; else None."""
        ...

    def results(self, rows: PyTree, start: tuple[PyTree, Any, PyTree], written: jax.Array, /) -> Results:
        """Return the rows as fields of a `Solution`; `start` is `(z0, t0, theta)`, `written` says which hold values."""
        ...


@runtime_checkable
class Recorder(Protocol):
    """What an adjoint records while the engine runs, at one index that all lanes share.

    The history that it writes is a `node_jax.adjoints.parts.history.History`.
    """

    def blank(self, z: PyTree, t: jax.Array, /) -> Any:
        """Allocate the buffers for states like `z` and times like `t`."""
        ...

    def write(self, history: Any, t: Time, z: PyTree, trial: Trial, rounds: Any, memory: PyTree = (), /) -> Any:
        """Record the steps accepted in a trial from `(t, z)`, after which the method's memory is `memory`."""
        ...

    def fits(self, size: int, lanes: int, /) -> bool:
        """Whether with `lanes` times as many lanes, whose states now have `size` bytes, as many states fit of each."""
        ...


@runtime_checkable
class Adjoint(Protocol):
    """A strategy for derivatives. Arrays are those of all lanes, and lane axes come last.

    `each` is the engine, which knows the leaves of the inputs that are moving, `outcome` what the solve returned, and
    `history` what the `recorder` wrote. `node_jax.extending.AdjointDefaults` defines the members that have a default.
    """

    @property
    def records(self) -> bool:
        """Whether the solve records a history."""
        ...

    @property
    def plain(self) -> bool:
        """Whether JAX transposes the code of `replay` itself."""
        ...

    @property
    def remedy(self) -> str:
        """What to use for an unsupported mode: the end of an error message."""
        ...

    def scheme(self, method: Method, /) -> Method:
        """Return the method that the solve uses, given that of the user."""
        ...

    def recorder(self, each: Any, /) -> Recorder:
        """Return the recorder of a solve."""
        ...

    def stored(self, limit: int, state: int, sizes: int, /) -> int:
        """Return the bytes kept for `limit` steps: states have `state` bytes each, step sizes `sizes` in all."""
        ...

    def replay(self, each: Any, outcome: Any, history: Any, /) -> tuple[PyTree, PyTree, PyTree]:
        """Return the state at `t1`, the saved rows and the recorded states as functions that JAX can differentiate."""
        ...

    def backward(self, each: Any, outcome: Any, history: Any, bar: Any, /) -> list[Any]:
        """Return the cotangents of the leaves that are moving, None for the others."""
        ...

    def reconstruct(self, each: Any, z1_bar: PyTree, /) -> tuple[PyTree, jax.Array] | None:
        """Solve one lane; return `z(t0)` as the backward pass finds it, and its field evaluations; or None."""
        ...

    def replayed(self, method: Method, /) -> int | None:
        """Return the field evaluations of the backward pass per accepted step; None if they are not counted."""
        ...

    def tighter(self, factor: float, /) -> "Adjoint":
        """Return the strategy with its own tolerances, if any, multiplied by `factor`."""
        ...


@runtime_checkable
class Backend(Protocol):
    """What a platform makes of the marks in a program: the functions of a module of `node_jax.backends`."""

    def room(self, jaxpr: Any, /) -> int:
        """Return the most lanes for which a loop around this computation of one lane becomes one function."""
        ...

    def is_emitted(self, fn: Callable[..., Any], *args: Any) -> bool:
        """Whether a loop around `fn(*args)` becomes one function, as far as `fn` allows it."""
        ...

    def why_not(self) -> str:
        """Return the reason why marks have no effect; empty if they have one."""
        ...
