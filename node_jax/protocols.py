"""The seams of the package: what a method, a policy of steps, a save, an adjoint and a back end are asked for.

A part of a user's own has these members and need not inherit anything. `node_jax.extending` holds classes with
defaults.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax

from node_jax.types import Inputs, Proposal, PyTree, Results, Step, Time, Trial, VectorField, Verdict


@runtime_checkable
class Method(Protocol):
    """A one-step method. All arrays are those of one lane; equal methods, which must be hashable, share a compilation.

    `node_jax.extending.MethodDefaults` has all that a method need not say.
    """

    @property
    def order(self) -> int:
        """Order of convergence of `z1`."""
        ...

    @property
    def error_order(self) -> int:
        """Exponent `k` of the local error estimate, which behaves like `h**k`."""
        ...

    @property
    def has_error(self) -> bool:
        """Whether `step` returns an error estimate."""
        ...

    @property
    def first_same_as_last(self) -> bool:
        """Whether `memory` is the slope at the start of the next step."""
        ...

    @property
    def evaluations(self) -> int | None:
        """Field evaluations of one trial; None: each `Step` says its own as `work`."""
        ...

    @property
    def replay_evaluations(self) -> int | None:
        """Field evaluations of `replay` without dense output; None: not known."""
        ...

    @property
    def degree(self) -> int:
        """Degree of the polynomial that dense output is; 0: the method has none."""
        ...

    @property
    def dense_size(self) -> int:
        """Number of states in the `dense` of a step."""
        ...

    @property
    def dense_evaluations(self) -> int:
        """Field evaluations, and states in `dense`, that `complete` adds."""
        ...

    @property
    def sees_limit(self) -> bool:
        """Whether `at_limit` can tell that a step is as large as stability allows."""
        ...

    def start(self, field: VectorField, t: jax.Array, z: PyTree, theta: PyTree) -> PyTree:
        """Build the memory that the first step from `(t, z)` expects."""
        ...

    def step(self, field: VectorField, t: jax.Array, z: PyTree, h: jax.Array, theta: PyTree, memory: PyTree) -> Step:
        """Try a step from `t` to `t + h`; one of size 0, as idle lanes take, is finite and ends where it starts."""
        ...

    def replay(
        self, field: VectorField, t: jax.Array, z: PyTree, h: jax.Array, theta: PyTree, dense: bool
    ) -> tuple[PyTree, tuple]:
        """Return `z1` of the same step, and if asked its completed `dense`: what a gradient takes again."""
        ...

    def complete(
        self, field: VectorField, t: jax.Array, z: PyTree, h: jax.Array, theta: PyTree, dense: tuple
    ) -> tuple[PyTree, ...]:
        """Return what dense output needs beyond the `dense` of a step, which it is appended to."""
        ...

    def at(self, z: PyTree, h: jax.Array, dense: tuple, x: jax.Array) -> PyTree:
        """Return the state at `t + x h` of a step from `z`, from its completed `dense`."""
        ...

    def polynomial(self, z: PyTree, h: jax.Array, dense: tuple) -> tuple[PyTree, ...]:
        """Return states `q_j` with `z(t + x h) = sum_j q_j x**j`: `degree + 1` of them."""
        ...

    def quadrature(self, z: PyTree, h: jax.Array, dense: tuple) -> tuple[Sequence, Sequence, Sequence]:
        """Return states along a step, where they are as parts of it, and the weights of an integral over the step."""
        ...

    def at_limit(self, step: Step, part: Callable) -> jax.Array:
        """Whether a step is as large as stability allows, judged by `part` of the state; false if it cannot tell."""
        ...


@runtime_checkable
class Steps(Protocol):
    """A policy that chooses steps: a pytree. All arrays are those of one lane.

    `node_jax.extending.StepsDefaults` has all that a policy need not say.
    """

    @property
    def times(self) -> tuple[str, ...]:
        """Names of the fields that hold times."""
        ...

    @property
    def breakpoints(self) -> Any:
        """Times, shape `(m,)`, at which steps end since the field jumps there; None: there are none."""
        ...

    @property
    def exact_times(self) -> bool:
        """Whether steps are known beforehand, as functions of the times, and are differentiated with these."""
        ...

    def trials(self, max_steps: Any) -> Any:
        """Upper bound on the trials of one lane."""
        ...

    def fixed_count(self) -> int | None:
        """Number of steps if it is known beforehand."""
        ...

    def interval(self, i: jax.Array, t0: jax.Array, t1: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Start and end of step `i`, if `exact_times`."""
        ...

    def aligned(self, t0: jax.Array, t1: jax.Array, blur: float = 0.0) -> "Steps":
        """Return the policy with the ends of the solve in the place of times that are these up to rounding."""
        ...

    def complaint(self, t0: Any, t1: Any) -> str | None:
        """Say which concrete value is wrong; None if none is."""
        ...

    def valid(self, t0: jax.Array, t1: jax.Array) -> jax.Array:
        """Whether the values known only at run time make sense."""
        ...

    def part(self, z: PyTree) -> PyTree:
        """Return the part of a pytree like the state that chooses the steps."""
        ...

    def first_evaluations(self, method: Method) -> int:
        """Field evaluations before the first trial."""
        ...

    def first(
        self, method: Method, field: VectorField, z0: PyTree, t0: jax.Array, t1: jax.Array, theta: PyTree, limit: Any
    ) -> tuple[PyTree, PyTree]:
        """Return what the policy carries first, and the method's memory; `limit` bounds the trials if it is not None.

        What is carried is any pytree.
        """
        ...

    def propose(self, control: PyTree, t: Time, done: jax.Array, t0: jax.Array, t1: jax.Array) -> Proposal:
        """Choose the step to try from `t`, after `done` accepted ones."""
        ...

    def judge(
        self, method: Method, step: Step, z: PyTree, t: Time, proposal: Proposal, control: PyTree, t0: Any, t1: Any
    ) -> Verdict:
        """Decide whether a trial counts, and what to carry on."""
        ...

    def end(self, index: jax.Array, t: Time, h: jax.Array, t0: jax.Array, t1: jax.Array) -> Time:
        """Return where a recorded step of size `h` from `t` ended, to the last bit."""
        ...

    def anew(self) -> "Steps | None":
        """Return the policy for a solve of another system; None if it is bound to this one."""
        ...

    def tighter(self, factor: float) -> "Steps | None":
        """Return the policy with tolerances smaller by this factor; None if it has none."""
        ...


@runtime_checkable
class Save(Protocol):
    """What a solve writes down: a pytree that says when a row is due and what is in it.

    All arrays are those of one lane. A lane carries a `cursor`, any pytree, along its steps. The engine writes the rows
    into a table, and pulls cotangents of them back by `jax.vjp` of `row`. `node_jax.extending.SaveDefaults` has all
    that a save need not say: it writes one row for each accepted step.
    """

    @property
    def times(self) -> tuple[str, ...]:
        """Names of the fields that hold times."""
        ...

    @property
    def ts(self) -> Any:
        """Times, shape `(n,)`, at which the rows stand if these are given; the `cursor` has then a `target`."""
        ...

    @property
    def size(self) -> int:
        """Number of rows."""
        ...

    @property
    def capacity(self) -> int | None:
        """Most accepted steps, with one more of which a solve ends with status `CAPACITY`; None: no limit."""
        ...

    @property
    def reads_dense(self) -> bool:
        """Whether a row reads the dense output of a step."""
        ...

    @property
    def repeats(self) -> bool:
        """Whether one step may write several rows."""
        ...

    @property
    def tells_times(self) -> bool:
        """Whether rows hold the times at which steps end."""
        ...

    def aligned(self, t0: jax.Array, t1: jax.Array, blur: float = 0.0) -> "Save":
        """Return the save with the ends of the solve in the place of times beyond these by rounding."""
        ...

    def complaint(self, t0: Any, t1: Any) -> str | None:
        """Say which concrete value is wrong; None if none is."""
        ...

    def valid(self, t0: jax.Array, t1: jax.Array) -> jax.Array:
        """Whether the values known only at run time make sense."""
        ...

    def start(self, inputs: Inputs) -> PyTree:
        """Return the cursor before the first step."""
        ...

    def blank(self, method: Method, inputs: Inputs, z: PyTree, still: jax.Array) -> PyTree:
        """Return a row that no step wrote; a lane is `still` if there is nothing to integrate."""
        ...

    def due(self, inputs: Inputs, trial: Trial, cursor: PyTree) -> jax.Array:
        """Whether a trial writes the next row; never if it was not accepted."""
        ...

    def place(self, trial: Trial, cursor: PyTree) -> jax.Array:
        """Return the row that is written next, int32."""
        ...

    def row(self, method: Method, inputs: Inputs, trial: Trial, cursor: PyTree) -> PyTree:
        """Return what is written into it: a differentiable function of the trial and the `target` of the cursor."""
        ...

    def passed(self, inputs: Inputs, trial: Trial, cursor: PyTree, due: jax.Array) -> PyTree:
        """Return the cursor behind that row if it was due, else as it is."""
        ...

    def undone(self, inputs: Inputs, trial: Trial, cursor: PyTree) -> tuple[jax.Array, PyTree]:
        """Say, on the way back, whether the last row before the cursor was written by this step, and the one before it.

        The second is the cursor with which `place` and `row` return that row again.
        """
        ...

    def count(self, cursor: PyTree, accepted: jax.Array, ok: jax.Array) -> jax.Array:
        """Return how many rows hold a value, int32; `ok`: whether `t1` was reached."""
        ...

    def constant(self, rows_bar: PyTree, z0: PyTree) -> PyTree:
        """Return the cotangent of `z0` where nothing was integrated."""
        ...

    def ends(self, rows: PyTree) -> Any:
        """Return the times at which the steps ended, NaN behind the last, if the rows belong to steps; else None."""
        ...

    def results(self, rows: PyTree, start: tuple[PyTree, Any, PyTree], written: jax.Array) -> Results:
        """Return the rows as parts of a `Solution`; `start` is `(z0, t0, theta)`."""
        ...


@runtime_checkable
class Recorder(Protocol):
    """What an adjoint writes down while the engine runs, at one shared index for all lanes."""

    def blank(self, z: PyTree, t: jax.Array) -> Any:
        """Set the buffers apart."""
        ...

    def write(self, history: Any, t: Time, z: PyTree, trial: Trial, rounds: Any, memory: PyTree = (), /) -> Any:
        """Record the accepted steps of one trial that started at `(t, z)` and left the method with this memory."""
        ...

    def fits(self, size: int, lanes: int) -> bool:
        """Whether so many times the lanes, of states of `size` bytes in all, keep as much of each."""
        ...


@runtime_checkable
class Adjoint(Protocol):
    """A strategy for derivatives. All arrays are those of all lanes, with lane axes at their end.

    `each` is the engine, `outcome` what the solve returned, `history` what the `recorder` wrote, and `wanted` says
    which leaves of the inputs move. `node_jax.extending.AdjointDefaults` has all that a strategy need not say.
    """

    @property
    def records(self) -> bool:
        """Whether the solve writes a history."""
        ...

    @property
    def plain(self) -> bool:
        """Whether `replay` is code that JAX may transpose itself."""
        ...

    @property
    def remedy(self) -> str:
        """What to use for a mode that is missing, as the end of an error message."""
        ...

    def scheme(self, method: Method) -> Method:
        """Return the method that the solve takes steps with."""
        ...

    def recorder(self, each: Any) -> Recorder:
        """Return what writes the history of a solve."""
        ...

    def stored(self, limit: int, state: int, sizes: int) -> int:
        """Return the bytes kept along `limit` steps, of states of `state` bytes and step sizes of `sizes` in all."""
        ...

    def replay(self, each: Any, outcome: Any, history: Any, wanted: Any) -> tuple[PyTree, PyTree, PyTree]:
        """Return the state at `t1`, the saved rows and the states of the history, differentiable in the inputs."""
        ...

    def backward(self, each: Any, outcome: Any, history: Any, bar: Any, wanted: Any) -> list:
        """Return cotangents of the leaves that are wanted, None for the others."""
        ...

    def reconstruct(self, each: Any, z1_bar: PyTree) -> tuple[PyTree, jax.Array] | None:
        """Solve, and return the state at `t0` that the way back finds, and its field evaluations; None if it does not.

        Of a single lane.
        """
        ...

    def replayed(self, method: Method) -> int | None:
        """Return the field evaluations of the way back for each accepted step; None if these are not counted."""
        ...

    def tighter(self, factor: float) -> "Adjoint":
        """Return the strategy with own tolerances smaller by this factor, if it has any."""
        ...


@runtime_checkable
class Backend(Protocol):
    """What a platform makes of the marks in a program: a module of `node_jax.backends`."""

    def room(self, jaxpr: Any) -> int:
        """Return for how many lanes a loop around this computation of one would be one function."""
        ...

    def is_emitted(self, fn: Callable, *args: Any) -> bool:
        """Whether a loop around `fn(*args)` would be one function, as far as that is up to `fn`."""
        ...

    def why_not(self) -> str:
        """Say why marks are without meaning now; empty if they have one."""
        ...
