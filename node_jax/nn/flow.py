"""Continuous normalizing flows."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax.control import Grid
from node_jax.nn.augmented import Augmented, Batched
from node_jax.nn.frozen import Frozen
from node_jax.nn.integrals import EachRow, Rate
from node_jax.nn.neural_ode import NeuralODE, given
from node_jax.nn.regularizers import RandomEnd, SolverError
from node_jax.nn.shapes import check_sizes, shaped_state
from node_jax.nn.traces import Exact, Hutchinson
from node_jax.solution import Solution
from node_jax.types import AnyArray


@runtime_checkable
class Base(Protocol):
    """A distribution over arrays `(dim,)`; those of flowjax and numpyro are some."""

    def log_prob(self, value: Any, /) -> Any:
        """Return the log-density at one point."""
        ...

    def sample(self, key: Any, /) -> Any:
        """Return one point."""
        ...


class StandardNormal(eqx.Module):
    """The normal distribution with mean 0 and covariance 1 over arrays `(dim,)`.

    Args:
        dim: number of components.

    Example:
        >>> import jax.numpy as jnp
        >>> float(StandardNormal(2).log_prob(jnp.zeros(2)))
        -1.837877...
    """

    dim: int = eqx.field(static=True)

    def log_prob(self, z: AnyArray) -> jax.Array:
        """Return the log-density at `z` `(dim,)`, a scalar."""
        return -0.5 * jnp.sum(z**2) - 0.5 * self.dim * math.log(2 * math.pi)

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Return samples `(*sample_shape, dim)`."""
        return jax.random.normal(key, (*sample_shape, self.dim))


class FlowSolution(NamedTuple):
    """What a flow knows of one point.

    Attributes:
        log_prob: log-density of the point, scalar; NaN if the solve failed.
        z: the point in the space of the base, `(dim,)`.
        penalties: integrals of the regularizers, by name.
        solution: the `Solution` of the solve.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import node_jax as nj
        >>> flow = nj.nn.CNF(nj.NeuralODE(nj.nn.PlanarField(2, 4, key=jax.random.key(0))), 2)
        >>> solved = flow.solve(jnp.zeros(2))
        >>> solved.log_prob.shape, solved.z.shape, bool(solved.solution.ok)
        ((), (2,), True)
    """

    log_prob: jax.Array
    z: jax.Array
    penalties: dict[str, jax.Array]
    solution: Solution


class CNF(eqx.Module):
    """A continuous normalizing flow: a density that follows a field from a base at `t0` to the data at `t1`.

    The log-density changes by `-tr(df/dz)` along a solution (Chen et al., 2018, theorem 1). A flow takes one point:
    `jax.vmap(flow.log_prob)(xs)` for many, each with its own steps; `flow.solve_batch(xs)` has common steps.

    Args:
        ode: field and how it is solved.
        dim: number of components of a point.
        trace: `Exact()`, or `Hutchinson()` for an unbiased estimate at the cost of a vector-Jacobian product a sample.
        base: distribution at `t0`, with `log_prob(z)` and `sample(key)`; it is not trained. Default:
            `StandardNormal(dim)`.

    Raises:
        TypeError: if `ode` is not a `NeuralODE`, or `base` has not these methods.
        ValueError: if `dim` is not a positive integer, or the field is `Augmented`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import node_jax as nj
        >>> field = nj.nn.ConcatSquashField(2, (16,), key=jax.random.key(0))
        >>> flow = CNF(nj.NeuralODE(field), 2)
        >>> jax.vmap(flow.log_prob)(jnp.zeros((5, 2))).shape
        (5,)
        >>> flow.sample(jax.random.key(1), (3,)).shape
        (3, 2)
    """

    ode: NeuralODE
    dim: int = eqx.field(static=True)
    trace: Exact | Hutchinson
    frozen_base: Frozen

    def __init__(self, ode: NeuralODE, dim: int, *, trace: Any = None, base: Any = None):
        if not isinstance(ode, NeuralODE):
            raise TypeError(f"ode must be a NeuralODE, got {type(ode).__name__}")
        if isinstance(ode.field, Augmented):
            raise ValueError("a flow keeps the dimension of its points: ode must not have an Augmented field")
        check_sizes(dim=dim)
        self.ode, self.dim, self.trace = ode, dim, Exact() if trace is None else trace
        if isinstance(self.trace, type) or not isinstance(self.trace, Rate):
            raise TypeError(f"trace must be nj.nn.Exact() or nj.nn.Hutchinson(), got {trace!r}")
        self.frozen_base = checked_base(base, dim)

    @property
    def base(self) -> Any:
        """The distribution at `t0`, which is not trained."""
        return self.frozen_base.value

    def log_prob(self, x: AnyArray, condition: Any = None, *, key: Any = None) -> jax.Array:
        """Return the log-density of a point.

        Args:
            x: point of shape `(dim,)`.
            condition: the theta of the field.
            key: JAX random key, which `Hutchinson` needs: one noise for the solve.

        Returns:
            Real scalar.

        Raises:
            ValueError: if `x` has another shape, or a key is missing.
            SolveError: if the solve fails and values are concrete.
        """
        return self.solve(x, condition, key=key, regularized=False).log_prob

    def solve(self, x: AnyArray, condition: Any = None, *, key: Any = None, **options: Any) -> FlowSolution:
        """Solve from a point of the data to the base.

        Args:
            x: point of shape `(dim,)`.
            condition: the theta of the field.
            key: JAX random key, which `Hutchinson` and random regularizers need.
            **options: options of `NeuralODE.solve`.

        Returns:
            A `FlowSolution`.

        Raises:
            ValueError, SolveError: as `log_prob`.
        """
        x = shaped_state("x", x, (self.dim,))
        return self._found(self.ode, self.trace, self.base.log_prob, x, condition, key, **options)

    def solve_batch(self, xs: AnyArray, conditions: Any = None, *, key: Any = None, **options: Any) -> FlowSolution:
        """Solve from all points of a batch as one system, with common steps; see `nj.nn.Batched`.

        Args:
            xs: points `(n, dim)`.
            conditions: the thetas of the field, with a leading axis `n`; default: that of the module for all.
            key: JAX random key, as in `solve`; each point has its own noise.
            **options: options of `NeuralODE.solve`.

        Returns:
            A `FlowSolution` with `log_prob` `(n,)`, `z` `(n, dim)`, `penalties` `(n,)` each, and one `solution`.

        Raises:
            ValueError: if `xs` has another shape, or a key is missing.
            SolveError: if the solve fails and values are concrete.
        """
        xs, axis = jnp.asarray(xs), None if conditions is None else 0
        if xs.ndim != 2 or xs.shape[1] != self.dim:
            raise ValueError(f"xs must have shape (n, {self.dim}), got {xs.shape}")
        found = self._found(*self._batched(axis), jax.vmap(self.base.log_prob), xs, conditions, key, **options)
        return found._replace(penalties={n: jnp.broadcast_to(x, xs.shape[:1]) for n, x in found.penalties.items()})

    def sample(self, key: jax.Array, sample_shape: int | tuple[int, ...] = (), condition: Any = None) -> jax.Array:
        """Return samples of the flow.

        Args:
            key: JAX random key.
            sample_shape: shape of the samples.
            condition: the theta of the field.

        Returns:
            Array `(*sample_shape, dim)`.
        """
        return many(lambda key: self.forward(self.base.sample(key), condition), key, sample_shape)

    def sample_and_log_prob(
        self,
        key: jax.Array,
        sample_shape: int | tuple[int, ...] = (),
        condition: Any = None,
        *,
        common_steps: bool = False,
    ) -> tuple[jax.Array, jax.Array]:
        """Return samples of the flow and their log-densities, found in the same solve.

        Args:
            key: JAX random key.
            sample_shape: shape of the samples.
            condition: the theta of the field.
            common_steps: whether all samples are solved as one system, see `nj.nn.Batched`.

        Returns:
            Arrays `(*sample_shape, dim)` and `sample_shape`.
        """

        def drawn(key):
            z = self.base.sample(key)
            z = shaped_state("z", z, (self.dim,))
            return z, self.base.log_prob(z)

        def solved(ode, rate, z, key):
            noise = jax.random.fold_in(key, 1)
            solution, integral = self._solve(ode, rate, z, condition, noise, False, regularized=False)
            return solution.z1, integral

        def one(key):
            z, log_prob = drawn(key)
            x, integral = solved(self.ode, self.trace, z, key)
            return x, log_prob + integral

        if not common_steps:
            return many(one, key, sample_shape)
        z, log_prob = many(drawn, key, sample_shape)
        x, integral = solved(*self._batched(None), z.reshape(-1, self.dim), key)
        return x.reshape(z.shape), log_prob + integral.reshape(log_prob.shape)

    def forward(self, z: AnyArray, condition: Any = None) -> jax.Array:
        """Return the point of the data that belongs to a point of the base.

        Args:
            z: point of the base, `(dim,)`.
            condition: the theta of the field.

        Returns:
            Array `(dim,)`.

        Raises:
            ValueError: if `z` has another shape.
            SolveError: if the solve fails and values are concrete.
        """
        z = shaped_state("z", z, (self.dim,))
        return self.ode(z, condition)

    def inverse(self, x: AnyArray, condition: Any = None) -> jax.Array:
        """Return the point of the base that belongs to a point of the data.

        Args:
            x: point of the data, `(dim,)`.
            condition: the theta of the field.

        Returns:
            Array `(dim,)`.

        Raises:
            ValueError: if `x` has another shape.
            SolveError: if the solve fails and values are concrete.
        """
        x = shaped_state("x", x, (self.dim,))
        return self.ode.solve(x, regularized=False, **self._way(condition, True, self.ode.t1)).z1

    def _batched(self, theta_axis: int | None) -> tuple[NeuralODE, EachRow]:
        """Return the ODE of a batch with common steps, and the trace of each of its rows."""
        some = (x if isinstance(x, RandomEnd | SolverError) else EachRow(x, theta_axis) for x in self.ode.regularizers)
        field = Batched(self.ode.field, theta_axis)
        return dataclasses.replace(self.ode, field=field, regularizers=tuple(some)), EachRow(self.trace, theta_axis)

    def _found(self, ode, rate, log_prob, point, condition, key, **options) -> FlowSolution:
        """Return what is known of a point of the data, or of a batch of them."""
        solution, integral = self._solve(ode, rate, point, condition, key, True, **options)
        z = jnp.where(solution.ok, solution.z1, point)  # where a solve failed, the base is not asked about NaN
        found = log_prob(z) - jnp.where(solution.ok, integral, 0.0)
        return FlowSolution(jnp.where(solution.ok, found, jnp.nan), solution.z1, solution.penalties, solution)

    def _solve(self, ode, rate, point, condition, key, backwards, **options) -> tuple[Solution, jax.Array]:
        """Return the solution, and the integral of minus the trace along it."""
        first, second = (None, None) if key is None else jax.random.split(key)
        way = self._way(condition, backwards, self.ode.end(first, options.get("regularized", True)))
        found = ode.along(point, (rate,), key=second, **{**way, **options})
        return found.solution, -found.integrals[rate.name]

    def _way(self, condition: Any, backwards: bool, t1: Any) -> dict[str, Any]:
        """Return the options of a solve between the base and the data."""
        steps, ends = self.ode.steps, (self.ode.t0, t1)
        if backwards:
            steps, ends = Grid(steps.ts[::-1]) if isinstance(steps, Grid) else steps, ends[::-1]
        return {"t0": ends[0], "t1": ends[1], "steps": steps, **given(condition)}


def checked_base(base: Any, dim: int) -> Frozen:
    """Return a distribution that is not trained.

    Raises:
        TypeError: if it has not the methods of one.
    """
    base = StandardNormal(dim) if base is None else base
    if not isinstance(base, Base):
        raise TypeError(f"base must have methods log_prob(z) and sample(key), got {base!r}")
    return Frozen(base)


def many(one: Callable[..., Any], key: jax.Array, sample_shape: int | tuple[int, ...]) -> Any:
    """Return what `one(key)` gives for as many keys as `sample_shape` has places."""
    sample_shape = (sample_shape,) if isinstance(sample_shape, int) else sample_shape
    if sample_shape == ():
        return one(key)
    found = jax.vmap(one)(jax.random.split(key, math.prod(sample_shape)))
    return jax.tree.map(lambda x: x.reshape(*sample_shape, *x.shape[1:]), found)
