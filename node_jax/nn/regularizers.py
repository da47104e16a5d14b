"""What makes the dynamics of a trained model cheaper to solve: integrals along a solve that a loss adds with a weight.

They are computed with the state and change neither its steps nor its values; `RandomEnd` is no integral, and does.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax import tree
from node_jax.nn.integrals import Bound, Integrated, WithIntegrals, check_names
from node_jax.nn.shapes import check_sizes
from node_jax.types import PyTree

NOISES = ("rademacher", "normal")


class Estimate(eqx.Module):
    """What estimates by random vectors share: a rate whose vectors are drawn once for a solve."""

    samples: int = eqx.field(static=True, default=1)
    noise: str = eqx.field(static=True, default="rademacher")

    def __check_init__(self):
        """Refuse what cannot be drawn."""
        check_sizes(samples=self.samples)
        if self.noise not in NOISES:
            raise ValueError(f"noise must be one of {NOISES}, got {self.noise!r}")

    def draw(self, key: jax.Array | None, z: PyTree) -> PyTree:
        """Return a pytree like `z` with a leading axis `samples`, of independent entries of mean 0 and variance 1.

        Raises:
            ValueError: if there is no key.
        """
        if key is None:
            raise ValueError(f"{type(self).__name__} is random: key must be a JAX random key, got None")
        leaves, structure = jax.tree.flatten(z)
        draw = jax.random.rademacher if self.noise == "rademacher" else jax.random.normal
        pairs = zip(jax.random.split(key, len(leaves)), leaves, strict=True)
        return jax.tree.unflatten(structure, [draw(k, (self.samples, *x.shape), x.dtype) for k, x in pairs])


def square(z: PyTree) -> jax.Array:
    """Return the sum of the squared moduli of all entries."""
    return sum((jnp.sum((x * jnp.conj(x)).real) for x in jax.tree.leaves(z)), jnp.zeros((), tree.real_dtype(z)))


class Kinetic(eqx.Module):
    """The kinetic energy, the integral of `|f|**2` (Finlay, Jacobsen, Nurbekyan and Oberman, 2020).

    Example:
        >>> import node_jax as nj
        >>> model = nj.NeuralODE(nj.testing.decay, theta=1.0, regularizers=Kinetic())
        >>> round(float(model.solve(1.0).penalties["kinetic"]), 4)  # (1 - exp(-2)) / 2
        0.4323
    """

    name = "kinetic"

    def draw(self, key: jax.Array | None, z: PyTree) -> tuple[Any, ...]:
        """Return nothing: this is not random."""
        return ()

    def rate(self, field: Bound, z: PyTree, t: jax.Array, drawn: PyTree) -> jax.Array:
        """Return `|f(z, t)|**2`."""
        return square(field(z, t))


class JacobianFrobenius(Estimate):
    """The integral of `|df/dz|**2`, the Frobenius norm (Finlay, Jacobsen, Nurbekyan and Oberman, 2020), estimated.

    The estimate is the mean of `|e^T df/dz|**2` over random vectors `e`, drawn once for a solve.

    Args:
        samples: number of random vectors.
        noise: their distribution, "rademacher" or "normal".

    Raises:
        ValueError: if `samples` is not a positive integer, or `noise` is not known.

    Example:
        >>> import jax
        >>> import node_jax as nj
        >>> model = nj.NeuralODE(nj.testing.decay, theta=1.0, regularizers=JacobianFrobenius())
        >>> float(model.solve(1.0, key=jax.random.key(0)).penalties["jacobian_frobenius"])  # df/dz = -1
        1.0
    """

    name = "jacobian_frobenius"

    def rate(self, field: Bound, z: PyTree, t: jax.Array, drawn: PyTree) -> jax.Array:
        """Return the mean of `|e^T df/dz|**2`."""
        _, pull = jax.vjp(lambda z: field(z, t), z)
        return jnp.mean(jax.vmap(lambda e: square(pull(e)[0]))(drawn))


class TotalDerivative(eqx.Module):
    """The integral of `|d^k z / dt^k|**2` along the solution (Kelly, Bettencourt, Johnson and Duvenaud, 2020).

    A method of order `k` takes few steps where the derivative of order `k + 1` is small.

    Args:
        order: the order `k`; 1 is `Kinetic`. The cost doubles with each.

    Raises:
        ValueError: if `order` is not a positive integer.

    Example:
        >>> import node_jax as nj
        >>> model = nj.NeuralODE(nj.testing.decay, theta=1.0, regularizers=TotalDerivative(2))
        >>> round(float(model.solve(1.0).penalties["total_derivative_2"]), 4)  # (1 - exp(-2)) / 2
        0.4323
    """

    order: int = eqx.field(static=True, default=2)

    def __check_init__(self):
        """Refuse an order that makes no sense."""
        check_sizes(order=self.order)

    @property
    def name(self) -> str:
        """The key of the integral: `total_derivative_` and the order."""
        return f"total_derivative_{self.order}"

    def draw(self, key: jax.Array | None, z: PyTree) -> tuple[Any, ...]:
        """Return nothing: this is not random."""
        return ()

    def rate(self, field: Bound, z: PyTree, t: jax.Array, drawn: PyTree) -> jax.Array:
        """Return `|d^k z / dt^k|**2`."""
        return square(_total_derivative(field, self.order)(z, t))


def _total_derivative(field: Callable[..., Any], order: int) -> Callable[..., Any]:
    """Return the derivative of a solution of the given order, as a function of state and time."""
    if order == 1:
        return field
    below = _total_derivative(field, order - 1)

    def derivative(z, t):
        return jax.jvp(below, (z, t), (field(z, t), jnp.ones_like(t)))[1]

    return derivative


class SolverError(eqx.Module):
    """The sum of the error estimates of all steps, each times its size (Pal, Ma, Shah and Rackauckas, 2021).

    The estimate of a step is the root mean square of its entries. It is computed from the recorded nodes of one more
    solve, whose steps are taken again side by side; its gradient is that of the discrete steps.

    Args:
        capacity: number of steps that are looked at, from `t0` on; memory grows with it.

    Raises:
        ValueError: if `capacity` is not a positive integer.

    Example:
        >>> import node_jax as nj
        >>> model = nj.NeuralODE(nj.testing.decay, theta=1.0, regularizers=SolverError(), steps=nj.Adaptive(1e-3, 1e-3))
        >>> bool(model.solve(1.0).penalties["solver_error"] > 0)
        True
    """

    capacity: int = eqx.field(static=True, default=64)

    name = "solver_error"

    def __check_init__(self):
        """Refuse a number of steps that makes no sense."""
        check_sizes(capacity=self.capacity)


class RandomEnd(eqx.Module):
    """Draw the end of a solve uniformly from `t1 - b` to `t1 + b` in training (Ghosh et al., 2020: STEER).

    A solve that is given a key has a random end, one without ends at `t1`. So does a solve that is given its own `t1`,
    as those of a `LatentODE` and a `PoissonProcess` are, and one that saves more than its end.

    Args:
        b: half the width of the interval, in units of `t`, less than `|t1 - t0|`.

    Raises:
        ValueError: if `b` is not positive.

    Example:
        >>> import jax
        >>> import node_jax as nj
        >>> model = nj.NeuralODE(nj.testing.decay, theta=1.0, regularizers=RandomEnd(0.5))
        >>> sol = model.solve(1.0, key=jax.random.key(0))
        >>> bool(0.5 <= sol.t_reached <= 1.5)
        True
    """

    b: float = eqx.field(static=True)

    def __check_init__(self):
        """Refuse a width that makes no sense."""
        if not isinstance(self.b, int | float) or not self.b > 0:
            raise ValueError(f"b must be a positive number, got {self.b!r}")

    def check(self, t0: Any, t1: Any) -> None:
        """Refuse an interval that reaches over the start, where the times are numbers."""
        if isinstance(t0, int | float) and isinstance(t1, int | float) and self.b >= abs(t1 - t0):
            raise ValueError(f"RandomEnd(b): b must be less than |t1 - t0| = {abs(t1 - t0)}, got {self.b!r}")

    def end(self, key: jax.Array, t1: Any) -> jax.Array:
        """Return the end of one solve."""
        dtype = jnp.promote_types(jnp.result_type(t1), jnp.float32)
        return t1 + jax.random.uniform(key, (), dtype, -self.b, self.b)


class Penalized(eqx.Module):
    """A field with regularizers, for `odesolve` itself: made by `with_penalties`."""

    along: WithIntegrals

    def start(self, z0: PyTree) -> Integrated:
        """Return the state to solve from: `z0`, and integrals that are zero."""
        return self.along.start(z0)

    def __call__(self, state: Integrated, t: jax.Array, theta: PyTree) -> Integrated:
        """Return the slope; `theta` is that of the field."""
        return self.along(state, t, (theta, self.along.drawn(None, state.z)))


def with_penalties(field: Callable[..., Any], regularizers: tuple[Any, ...]) -> Penalized:
    """Return a field whose state has the integrals of regularizers beside `z`, for people who call `odesolve`.

    Args:
        field: `f(z, t, theta)`.
        regularizers: such as `(Kinetic(), TotalDerivative(2))`, those that are not random.

    Returns:
        A field for states `penalized.start(z0)`. The state at the end has `z` and `free`, a dict of scalars by name.
        With `Adaptive(controlled=nj.nn.state_of)` the integrals change no step.

    Raises:
        ValueError: if two regularizers have one name.
        TypeError: if one of them is random or no integral.

    Example:
        >>> import jax.numpy as jnp
        >>> import node_jax as nj
        >>> penalized = with_penalties(nj.testing.decay, (Kinetic(),))
        >>> steps = nj.Adaptive(controlled=nj.nn.state_of)
        >>> end = nj.odesolve(penalized, penalized.start(jnp.ones(())), 0.0, 1.0, 1.0, steps=steps).z1
        >>> bool(abs(end.free["kinetic"] - 0.43233) < 1e-4)
        True
    """
    for one in regularizers:
        if not isinstance(one, Kinetic | TotalDerivative):
            raise TypeError(f"with_penalties takes Kinetic and TotalDerivative, got {one!r}; a NeuralODE takes all")
    check_names([x.name for x in regularizers])
    return Penalized(WithIntegrals(field, (), tuple(regularizers)))
