"""Explicit Runge-Kutta methods: a tableau as a record of numbers, and its step."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from node_jax import tree
from node_jax.methods import polynomial
from node_jax.types import PyTree, Step, VectorField


@dataclass(frozen=True)
class ExplicitRK:
    """An explicit Runge-Kutta method: its tableau as a frozen record of numbers.

    The `s` stages have slopes `k_i = f(z + h sum_j a[i][j] k_j, t + c[i] h)`, and `z1 = z + h sum_i b[i] k_i`. If the
    last row of `a` equals `b`, the last slope is that at the start of the next step, which reuses it
    ("first same as last").

    Args:
        order: order of convergence of `z1`.
        c: `s` nodes.
        a: `s` rows, row `i` with `i` numbers.
        b: `s` weights (trailing zeros may be left out).
        b_error: weights of the embedded error estimate `h sum_i b_error[i] k_i`; empty: fixed steps only.
        b_error_low: weights of a second, lower-order estimate, combined as in DOP853 of Hairer, Norsett and Wanner:
            `e5**2 / sqrt(e5**2 + 0.01 e3**2)` with the norms `e5`, `e3` of the two.
        error_order: exponent `k` of the error estimate; default: `order`, one more than that of the embedded method.
        dense: dense output `z(t + x h) = z + h sum_i w_i(x) k_i` with `w_i(x) = sum_j dense[i][j] x**(j + 1)`.
        c_dense: nodes of the slopes that dense output needs beyond the stages.
        a_dense: their rows of `a`, over all slopes before them.
        dense_order: order of the dense output: its error in one step is `O(h**(dense_order + 1))`.
        name: printed name.

    Example:
        >>> heun = ExplicitRK(2, (0.0, 1.0), ((), (1.0,)), (0.5, 0.5), (0.5, -0.5))
        >>> heun.first_same_as_last
        False
    """

    order: int
    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    b_error: tuple[float, ...] = ()
    b_error_low: tuple[float, ...] = ()
    error_order: int = 0
    dense: tuple[tuple[float, ...], ...] = ()
    c_dense: tuple[float, ...] = ()
    a_dense: tuple[tuple[float, ...], ...] = ()
    dense_order: int = 0
    name: str = ""

    def __post_init__(self):
        """Check the lengths of the rows and fill in `error_order`."""
        if len(self.a) != len(self.c) or any(len(row) != i for i, row in enumerate(self.a)):
            raise ValueError(f"a must have {len(self.c)} rows, row i with i numbers; got lengths {[*map(len, self.a)]}")
        if not self.error_order:
            object.__setattr__(self, "error_order", self.order)

    def __repr__(self) -> str:
        """Return the name, or the order of a method without a name."""
        return self.name or f"ExplicitRK(order={self.order}, stages={len(self.c)})"

    @property
    def first_same_as_last(self) -> bool:
        """Whether the last stage is evaluated at the end of the step."""
        last = self.a[-1]
        return len(last) > 0 and last == self.b[: len(last)] and not any(self.b[len(last) :])

    @property
    def has_error(self) -> bool:
        """Whether the tableau has an embedded error estimate."""
        return bool(self.b_error)

    @property
    def degree(self) -> int:
        """Degree of the dense output in `x`; 0 if there is none."""
        return max(map(len, self.dense), default=0)

    @property
    def dense_size(self) -> int:
        """Number of slopes of a step."""
        return len(self.c)

    @property
    def dense_evaluations(self) -> int:
        """Number of slopes that only dense output needs."""
        return len(self.c_dense)

    @property
    def sees_limit(self) -> bool:
        """Whether two stages at the end of a step allow it to detect the limit of stability."""
        return self.last_pair is not None

    @property
    def evaluations(self) -> int:
        """Field evaluations of one trial."""
        return len(self.c) - self.first_same_as_last

    @property
    def replay_evaluations(self) -> int:
        """Field evaluations of `replay`: the stages that `z1` needs."""
        return max(i for i, b in enumerate(self.b) if b != 0.0) + 1

    @property
    def last_pair(self) -> int | None:
        """The index of the last stage at `t + h` before the one at `z1`; None if there are not both."""
        if not self.first_same_as_last:
            return None
        return next((i for i in reversed(range(len(self.c) - 1)) if self.c[i] == 1.0), None)

    @functools.cached_property
    def stability_limit(self) -> float:
        """The largest `x` such that `|R| <= 1` from `-x` to 0, with `R` the stability function."""
        powers, coefficients = [1.0] * len(self.c), [1.0]
        for _ in self.c:
            coefficients.append(sum(b * p for b, p in zip(self.b, powers, strict=False)))
            powers = [sum(a * p for a, p in zip(row, powers, strict=False)) for row in self.a]
        xs = (0.01 * i for i in range(1, 10_000))
        return next(x for x in xs if abs(sum(c * (-x) ** k for k, c in enumerate(coefficients))) > 1 + 1e-9) - 0.01

    def at_limit(self, step: Step, part: Callable[..., Any]) -> jax.Array:
        """Whether the step is at the limit of stability, judged by two slopes at its end."""
        i = self.last_pair
        if i is None:
            return jnp.array(False)
        slopes = tuple(map(part, step.dense))
        limit, one = 0.9 * self.stability_limit, jnp.ones((), tree.real_dtype(slopes[0]))
        weights = [limit * (b - a) for b, a in zip(self.b, (*self.a[i], *[0.0] * len(self.b)), strict=False)]
        moved = tree.scale(one, weights, slopes)
        bent = tree.scale(one, (1.0, -1.0), (slopes[-1], slopes[i]))
        return tree.excess(bent, moved) > 0

    def start(self, field: VectorField, t: jax.Array, z: PyTree, theta: PyTree) -> PyTree:
        """Return the slope that the first step reuses, or None."""
        return field(z, t, theta) if self.first_same_as_last else None

    def stages(self, field, t, z, h, theta, first=None, upto=None) -> tuple[PyTree, ...]:
        """Return the slopes of the stages before `upto`; `first`, if given, is that of stage 0."""
        slopes = () if first is None else (first,)
        nodes = list(zip(self.c, self.a, strict=True))[len(slopes) : upto]
        return _evaluated(nodes, field, t, z, h, theta, slopes)

    def step(self, field, t, z, h, theta, memory) -> Step:
        """Try a step from `t` to `t + h`: `len(c)` evaluations, one fewer if the first slope is known."""
        slopes = self.stages(field, t, z, h, theta, memory)
        z1 = tree.combine(z, h, self.b, slopes)
        error = tuple(tree.scale(h, b, slopes) for b in (self.b_error, self.b_error_low) if b)
        return Step(z1, error, slopes, slopes[-1] if self.first_same_as_last else None)

    def replay(self, field, t, z, h, theta, dense: bool) -> tuple[PyTree, tuple[Any, ...]]:
        """Return `z1` of the same step: from the stages that it needs, or with all slopes for dense output."""
        if not dense:
            return tree.combine(z, h, self.b, self.stages(field, t, z, h, theta, upto=self.replay_evaluations)), ()
        slopes = self.stages(field, t, z, h, theta)
        slopes += self.complete(field, t, z, h, theta, slopes)
        return tree.combine(z, h, self.b, slopes), slopes

    def increment(self, field, t, z, h, theta) -> PyTree:
        """Return `z1 - z`."""
        return tree.scale(h, self.b, self.stages(field, t, z, h, theta, upto=self.replay_evaluations))

    def complete(self, field, t, z, h, theta, dense) -> tuple[PyTree, ...]:
        """Return the slopes that only dense output needs: `len(c_dense)` evaluations."""
        nodes = zip(self.c_dense, self.a_dense, strict=True)
        return _evaluated(nodes, field, t, z, h, theta, dense)[len(dense) :]

    def at(self, z, h, dense, x) -> PyTree:
        """Return the state at `t + x h`."""
        return tree.combine(z, h, [polynomial.weight(row, x) for row in self.dense], dense)

    def polynomial(self, z, h, dense) -> tuple[PyTree, ...]:
        """Return the coefficients of the dense output in powers of `x`."""
        columns = [[row[j] if j < len(row) else 0.0 for row in self.dense] for j in range(self.degree)]
        return (z, *(tree.scale(h, column, dense) for column in columns))

    def quadrature(self, z, h, dense) -> tuple[Sequence, Sequence, Sequence]:
        """Return the states of the stages, with their nodes and weights."""
        used = [i for i, b in enumerate(self.b) if b != 0.0]
        states = [tree.combine(z, h, self.a[i], dense) for i in used]
        return states, [self.c[i] for i in used], [self.b[i] for i in used]


def _evaluated(nodes, field, t, z, h, theta, slopes) -> tuple[PyTree, ...]:
    """Return `slopes` and one more slope for each pair of a node and a row of `a`."""
    for c, a in nodes:
        slopes += (field(tree.combine(z, h, a, slopes), t + c * h, theta),)
    return slopes
