"""The result of a solve, and the errors that carry it."""

import copyreg
import dataclasses
import functools
from typing import Any, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from node_jax import hints, tree
from node_jax.checks import standard, trusting
from node_jax.methods.polynomial import horner
from node_jax.placement import is_traced
from node_jax.save import Interpolant
from node_jax.times import between, blur, rounding
from node_jax.types import PyTree, Stats, Status

_REMEDY = {
    Status.MAX_STEPS: "Raise max_steps or loosen the tolerance; if the problem is stiff, see docs/stiff.md",
    Status.NON_FINITE: "The state or the field left its domain or the solution blows up there; check f and z0",
    Status.STEP_UNDERFLOW: "The step became too small; check for a singularity or a jump: nj.Adaptive(breakpoints=...)",
    Status.BAD_INPUT: "Check that times are finite and sorted from t0 to t1, and tolerances not negative",
    Status.CAPACITY: "Raise the capacity of SaveSteps or Dense",
}


class Solution(eqx.Module):
    """The result of `odesolve`; a pytree. After `vmap` every array has the lane axes in front.

    Attributes:
        z1: state at `t1`, same pytree as `z0`; NaN for a lane that failed.
        ts: times of `zs`, shape `(n,)`; None unless saved with `SaveAt` or `SaveSteps`.
        zs: saved states, leading axis `n`; NaN where not reached. None as above.
        status: int32, a `Status`.
        t_reached: last time that the solve reached, in units of `t`.
        stats: counts such as `nfe`, `accepted`, `rejected`, int32.
        interpolant: polynomials of the steps, with `Dense`; else None.
        penalties: integrals of the regularizers of a `NeuralODE`, real scalars by name; else empty.

    Example:
        >>> import jax.numpy as jnp
        >>> import node_jax as nj
        >>> sol = nj.odesolve(nj.testing.decay, jnp.ones(3), 0.0, 1.0, 1.0, save=nj.SaveAt(jnp.linspace(0.0, 1.0, 5)))
        >>> sol.z1.shape, sol.zs.shape, bool(sol.ok)
        ((3,), (5, 3), True)
    """

    z1: PyTree
    ts: Any
    zs: PyTree
    status: jax.Array
    t_reached: jax.Array
    stats: Stats
    interpolant: Interpolant | None
    penalties: dict[str, jax.Array] = eqx.field(default_factory=dict)

    @property
    def ok(self) -> jax.Array:
        """Whether the lane succeeded, bool."""
        return self.status == Status.SUCCESS

    @property
    def count(self) -> jax.Array:
        """Number of accepted steps, int32: with `SaveSteps` and `Dense` the number of rows in use."""
        return self.stats.accepted

    def evaluate(self, t: Any) -> PyTree:
        """Return the state at any time of a solve with `save=Dense()`.

        Args:
            t: scalar or array of times between `t0` and `t1`, the same for every lane.

        Returns:
            Pytree like `z1`, with axes `lanes + t.shape` in front of those of a state; NaN before `t0` and beyond
            `t_reached`.

        Raises:
            ValueError: if the solve was not saved with `Dense`.

        Example:
            >>> import node_jax as nj
            >>> sol = nj.odesolve(nj.testing.decay, 1.0, 0.0, 1.0, 1.0, save=nj.Dense())
            >>> bool(abs(sol.evaluate(0.5) - 0.60653) < 1e-4)
            True
        """
        if self.interpolant is None:
            raise ValueError("evaluate(t) needs dense output: solve with save=Dense()")
        dtype = self.interpolant.t.dtype
        read = standard(functools.partial(_read, blur((t,), dtype)))
        t = jnp.asarray(t, dtype)
        for _ in range(self.status.ndim):
            read = jax.vmap(read, in_axes=(0, None))
        with trusting():  # the NaN for times outside is computed for every time
            return read((self.interpolant, self.count, self.t_reached), t)

    def filled(self, value: float = 0.0) -> "Solution":
        """Return the solution with `value` in the place of all states of failed lanes, for losses and plots.

        A failed lane has NaN in `z1` and in the rows that it did not reach. A loss that reads a NaN has a NaN gradient,
        even if it is masked afterwards. Once the states are replaced, a failed lane contributes exactly zero to a
        gradient. The order of lanes is unchanged, and `ok` still says which failed.

        Args:
            value: real scalar, cast to the dtype of each leaf.

        Returns:
            A `Solution` whose `z1` and `zs` hold `value` in every lane that failed, also in rows that it reached.
            Times, `interpolant` and counts are unchanged; unused rows of `SaveSteps` stay NaN.

        Example:
            >>> import jax, jax.numpy as jnp, node_jax as nj
            >>> starts = jnp.array([1.0, jnp.nan])
            >>> def loss(rate):
            ...     sol = jax.vmap(lambda z0: nj.odesolve(nj.testing.decay, z0, 0.0, 1.0, rate))(starts)
            ...     return jnp.sum(jnp.where(sol.ok, (sol.filled().z1 - 0.3) ** 2, 0.0))
            >>> bool(jnp.isfinite(jax.grad(loss)(1.0)))
            True
        """

        def replaced(x):
            failed = jnp.expand_dims(~self.ok, range(self.ok.ndim, x.ndim))
            return jnp.where(failed, jnp.asarray(value, x.dtype), x)

        z1, zs = jax.tree.map(replaced, (self.z1, self.zs))
        return dataclasses.replace(self, z1=z1, zs=zs)

    def __getattr__(self, name: str) -> NoReturn:
        """Raise an error that shows which attribute stands for a name of another package."""
        hints.missing("Solution", name, hints.ATTRIBUTES, Solution.__annotations__)

    def __str__(self) -> str:
        """Summarise the outcome, over all lanes if there are several."""
        if is_traced(self):
            return f"Solution(status={self.status})"
        return f"Solution: {summary(self)}"

    __repr__ = __str__


def _read(blurred, rest, t):
    for _ in range(t.ndim):
        return jax.vmap(lambda each: _read(blurred, rest, each))(t)
    polynomials, count, reached = rest
    starts = polynomials.t
    backwards = reached < starts[0]
    inside = jnp.abs(t - between(t, starts[0], reached)) <= rounding(starts[0], reached, blurred)
    passed = jnp.where(backwards, starts >= t, starts <= t) & (jnp.arange(starts.shape[0]) < count)
    row = tree.entry(polynomials, jnp.maximum(jnp.sum(passed) - 1, 0))
    # outside the reached times a row may be NaN, which would make the gradient NaN even though it is not selected
    start, size, q = tree.where(inside, row, tree.full_like(row, 0.0))
    value = horner(q, (jnp.where(inside, t, 0.0) - start) / jnp.where(size == 0, 1.0, size))
    return tree.where(inside, value, tree.full_like(value, jnp.nan))


def summary(solution: Solution) -> str:
    """Return one line on how the lanes of a concrete solution ended."""
    status = np.asarray(solution.status)
    reached = np.asarray(solution.t_reached)
    failed = status != Status.SUCCESS
    parts = [f"{np.sum(~failed):,} ok"] if status.ndim or not failed else []
    for value in Status:
        number = int(np.sum(status == value))
        if value != Status.SUCCESS and number:
            parts.append(f"{number:,} {value.name}" if status.ndim else value.name)
    if failed.any():
        parts.append(f"{'earliest ' if status.ndim else ''}at t={np.min(reached[failed]):.6g}")
    steps = np.asarray(solution.stats.accepted)
    if status.ndim == 0:
        parts.append(f"{int(steps):,} steps, {int(solution.stats.nfe):,} field evaluations")
    return ", ".join(parts)


class SolveError(RuntimeError):
    """A concrete solve failed; `solution` holds everything that was saved before.

    It can be pickled and copied together with `solution`, and so passed between processes.

    Args:
        solution: the `Solution` of the failed solve.
        remedy: what to try; default: what helps with its status.

    Example:
        >>> import node_jax as nj
        >>> try:
        ...     nj.odesolve(nj.testing.decay, 1.0, 0.0, 9.0, 1.0, max_steps=3)
        ... except nj.SolveError as error:
        ...     print(error, error.solution.ok)
        MAX_STEPS, at t=... False
    """

    solution: Solution

    def __init__(self, solution: Solution, remedy: str | None = None):
        """Describe the failure and what to try."""
        status = np.asarray(solution.status).ravel()
        worst = Status(int(status[status != Status.SUCCESS][0]))
        said = remedy or _REMEDY[worst]
        super().__init__(f"{summary(solution)}. {said}. (odesolve and solve take throw=False.)")
        self.solution = solution

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild from message and attributes without `__init__`, whose argument is a solution and no message."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # pyright: ignore[reportAttributeAccessIssue]


class InputError(SolveError, ValueError):
    """A concrete solve ended with status `BAD_INPUT`: the message names the argument and its value.

    Args:
        solution: the `Solution` of the failed solve.
        remedy: what is wrong.

    Example:
        >>> import node_jax as nj
        >>> try:
        ...     nj.odesolve(nj.testing.decay, 1.0, 0.0, 1.0, 1.0, save=nj.SaveAt([0.5, 0.2]))
        ... except ValueError as error:
        ...     print(type(error).__name__)
        InputError
    """
