"""A Poisson process whose intensity follows a field."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax.nn.integrals import Along, Bound
from node_jax.nn.neural_ode import NeuralODE, given
from node_jax.nn.shapes import check_sizes
from node_jax.save import Dense, SaveAt
from node_jax.solution import Solution
from node_jax.types import PyTree

STEPS = 1024  # most steps of the solve that is sampled from
HALVINGS = 60  # of the interval in which an event lies


class Events(NamedTuple):
    """Events of a sample.

    Attributes:
        ts: times `(capacity,)`, sorted; the end of the process behind the last event.
        mask: `(capacity,)`, whether there is an event.
        complete: whether all events are there; bool.

    Example:
        >>> import jax
        >>> import node_jax as nj
        >>> events = nj.datasets.poisson(lambda t: 3.0, 2.0, jax.random.key(0), bound=3.0)
        >>> bool(events.mask.sum() == (events.ts < 2.0).sum())
        True
    """

    ts: jax.Array
    mask: jax.Array
    complete: jax.Array


class PoissonSolution(NamedTuple):
    """What a process knows of one series of events.

    Attributes:
        log_prob: log-density of the events, scalar; NaN if the solve failed.
        expected: integral of the intensity, the expected number of events.
        penalties: integrals of the regularizers, by name.
        solution: the `Solution` of the solve; `zs` are the states at the events.

    Example:
        >>> import jax.numpy as jnp
        >>> import node_jax as nj
        >>> def rising(z, t, theta):
        ...     return jnp.ones_like(z)
        >>> process = nj.nn.PoissonProcess(nj.NeuralODE(rising), jnp.exp)
        >>> solved = process.solve(jnp.array([0.2, 0.7]), z0=jnp.zeros(()))
        >>> bool(abs(solved.log_prob - (0.9 - solved.expected)) < 1e-5)
        True
    """

    log_prob: jax.Array
    expected: jax.Array
    penalties: dict[str, jax.Array]
    solution: Solution


class _Intensity(eqx.Module):
    """The intensity as a rate of a solve."""

    intensity: Callable[..., Any]

    name = "expected"

    def draw(self, key: jax.Array | None, z: PyTree) -> tuple[Any, ...]:
        return ()

    def rate(self, field: Bound, z: PyTree, t: jax.Array, drawn: PyTree) -> jax.Array:
        return self.intensity(z)


class PoissonProcess(eqx.Module):
    """An inhomogeneous Poisson process on the way from `ode.t0` to `ode.t1` (Chen et al., 2018, section 5).

    The log-density of events `t_i` is `sum_i log intensity(z(t_i)) - integral of intensity(z(t))`; states and integral
    come from one solve.

    Args:
        ode: field of the state and how it is solved, with `t0` before `t1`.
        intensity: from a state to a positive scalar, in events per unit of `t`.

    Raises:
        ValueError: if `t1` is not after `t0`.

    Example:
        >>> import jax.numpy as jnp
        >>> import node_jax as nj
        >>> def rising(z, t, theta):
        ...     return jnp.ones_like(z)
        >>> process = PoissonProcess(nj.NeuralODE(rising), jnp.exp)
        >>> bool(abs(process.expected_count(0.0, 1.0, jnp.zeros(())) - (jnp.e - 1)) < 1e-5)
        True
    """

    ode: NeuralODE
    intensity: Callable[..., Any]

    def __check_init__(self):
        """Refuse a process that goes back in time."""
        t0, t1 = self.ode.t0, self.ode.t1
        if isinstance(t0, int | float) and isinstance(t1, int | float) and not t1 > t0:
            raise ValueError(f"a PoissonProcess needs ode.t1 > ode.t0, got t0={t0} and t1={t1}")

    def log_prob(self, events: Any, mask: Any = None, *, z0: PyTree, theta: PyTree = None) -> jax.Array:
        """Return the log-density of the events between `ode.t0` and `ode.t1`.

        Args:
            events: times `(n,)`, `n >= 1`, sorted from `t0` onwards, none beyond `t1`, those that are masked included.
            mask: `(n,)`, true where there is an event; default: everywhere.
            z0: state at `t0`.
            theta: parameters of the field; default: those of the module.

        Returns:
            Real scalar.

        Raises:
            SolveError: if the solve fails and values are concrete.
        """
        return self.solve(events, mask, z0=z0, theta=theta, regularized=False).log_prob

    def solve(
        self, events: Any, mask: Any = None, *, z0: PyTree, theta: PyTree = None, **options: Any
    ) -> PoissonSolution:
        """Return the log-density of the events with all that is known about it.

        Args:
            events: times, as in `log_prob`.
            mask: which there are.
            z0: state at `t0`.
            theta: parameters of the field.
            **options: options of `NeuralODE.solve`.

        Returns:
            A `PoissonSolution`.
        """
        events = jnp.asarray(events)
        mask = jnp.ones(events.shape, bool) if mask is None else jnp.asarray(mask, bool)
        found = self._along(z0, theta, save=SaveAt(events), t1=self.ode.t1, **options)
        solution, expected = found.solution, found.integrals[_Intensity.name]
        intensities = jax.vmap(self.intensity)(solution.filled().zs)
        least = float(jnp.finfo(intensities.dtype).tiny)  # an intensity may underflow, its logarithm has a derivative
        there = mask & solution.ok
        logs = jnp.where(there, jnp.log(jnp.where(there, jnp.maximum(intensities, least), 1.0)), 0.0)
        log_prob = jnp.sum(logs) - jnp.where(solution.ok, expected, 0.0)
        return PoissonSolution(jnp.where(solution.ok, log_prob, jnp.nan), expected, solution.penalties, solution)

    def intensity_at(self, ts: Any, z0: PyTree, theta: PyTree = None) -> jax.Array:
        """Return the intensity at times.

        Args:
            ts: times `(n,)`, sorted from `ode.t0` onwards.
            z0: state at `t0`.
            theta: parameters of the field; default: those of the module.

        Returns:
            Array `(n,)`, in events per unit of `t`.
        """
        return jax.vmap(self.intensity)(self.ode.trajectory(z0, ts, theta))

    def expected_count(self, a: Any, b: Any, z0: PyTree, theta: PyTree = None) -> jax.Array:
        """Return the expected number of events between two times.

        Args:
            a: first time, not before `ode.t0`.
            b: second time, not before `a`.
            z0: state at `ode.t0`.
            theta: parameters of the field; default: those of the module.

        Returns:
            Real scalar.
        """
        ends = jnp.stack([jnp.asarray(a, float), jnp.asarray(b, float)])
        found = self._along(z0, theta, save=SaveAt(ends), t1=ends[1], regularized=False)
        rows = found.rows[_Intensity.name]
        return rows[1] - rows[0]

    def sample(self, key: jax.Array, z0: PyTree, capacity: int, theta: PyTree = None) -> Events:
        """Draw the events of one process between `ode.t0` and `ode.t1`.

        The integral of the intensity up to an event is a sum of unit exponentials; it is inverted by bisection on the
        dense output of one solve, of at most 1,024 steps.

        Args:
            key: JAX random key.
            z0: state at `t0`.
            capacity: most events.
            theta: parameters of the field; default: those of the module.

        Returns:
            `Events`.

        Raises:
            ValueError: if `capacity` is not a positive integer.
            SolveError: if the solve fails and values are concrete.
        """
        check_sizes(capacity=capacity)
        most = STEPS if self.ode.max_steps is None else min(STEPS, self.ode.max_steps)
        found = self._along(z0, theta, save=Dense(most), t1=self.ode.t1, regularized=False)
        dense = dataclasses.replace(found.solution, interpolant=found.interpolant)
        t0, t1 = (jnp.asarray(t, dense.t_reached.dtype) for t in (self.ode.t0, self.ode.t1))

        def integral(t):
            return dense.evaluate(t)[_Intensity.name]

        heights = jnp.cumsum(jax.random.exponential(key, (capacity,), t0.dtype))

        def halve(_, ends):
            low, high = ends
            middle = 0.5 * (low + high)
            below = integral(middle) < heights
            return jnp.where(below, middle, low), jnp.where(below, high, middle)

        low, high = jnp.full((capacity,), t0), jnp.full((capacity,), t1)
        _, ts = jax.lax.fori_loop(0, HALVINGS, halve, (low, high))
        mask = heights < integral(t1)
        return Events(jnp.where(mask, ts, t1), mask, ~mask[-1] & found.solution.ok)

    def _along(self, z0: PyTree, theta: PyTree, **options: Any) -> Along:
        """Return a solution with the integral of the intensity along it."""
        return self.ode.along(z0, (_Intensity(self.intensity),), **given(theta), **options)
