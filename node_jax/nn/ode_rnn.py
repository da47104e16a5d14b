"""Recurrent networks for irregular series: with a state that follows a field, and with time gaps as inputs."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

from node_jax.nn.neural_ode import NeuralODE
from node_jax.nn.recurrent import Read, as_series, known, read
from node_jax.nn.shapes import check_sizes


class _Recurrent(eqx.Module):
    """A cell that reads a series, and a head."""

    cell: eqx.nn.GRUCell
    head: Callable[..., Any]
    ode: NeuralODE | None
    observed: int = eqx.field(static=True)
    gaps: bool = eqx.field(static=True)

    def __call__(self, ts: Any, ys: Any, mask: Any = None) -> jax.Array:
        """Return what the head makes of the state after the last point.

        Args:
            ts: times `(n,)`, sorted.
            ys: values `(n, observed)`, or `(n,)` if `observed` is 1.
            mask: `(n,)` or `(n, observed)`, true where a value was observed; default: everywhere.

        Returns:
            Output of the head; NaN if a solve between the points failed.

        Raises:
            ValueError: if a shape is another.
        """
        found = self._read(ts, ys, mask)
        return known(found.ok, self.head(found.state))

    def outputs(self, ts: Any, ys: Any, mask: Any = None) -> jax.Array:
        """Return what the head makes of the state after each point, which depends on no later point.

        Args:
            ts: times, as in a call.
            ys: values.
            mask: which there are.

        Returns:
            Outputs of the head along a leading axis `n`; NaN behind a failed solve.
        """
        found = self._read(ts, ys, mask)
        return jax.vmap(lambda ok, state: known(ok, self.head(state)))(found.oks, found.states)

    def _read(self, ts: Any, ys: Any, mask: Any) -> Read:
        return read(self.cell, as_series(ts, ys, mask, self.observed), gaps=self.gaps, ode=self.ode)


class ODERNN(_Recurrent):
    """A recurrent network whose state follows a field between the points of a series (Rubanova et al., 2019).

    Args:
        observed: number of values at one time.
        hidden: size of the recurrent state.
        ode: how the state moves between the points; its field has states `(hidden,)`. Each solve goes from the time of
            one point to that of the next; its own `t0` and `t1` are not used.
        head: what is made of a state `(hidden,)`, such as `eqx.nn.Linear(hidden, classes, key=key)`.
        key: JAX random key for the initial weights.

    Raises:
        ValueError: if a size is not a positive integer.

    Example:
        >>> import equinox as eqx
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import node_jax as nj
        >>> keys = jax.random.split(jax.random.key(0), 3)
        >>> ode = nj.NeuralODE(nj.nn.MLPField(16, 16, 1, key=keys[0]), steps=nj.Fixed(2), method=nj.midpoint)
        >>> model = ODERNN(2, 16, ode, eqx.nn.Linear(16, 3, key=keys[1]), key=keys[2])
        >>> model(jnp.linspace(0.0, 1.0, 7), jnp.zeros((7, 2))).shape
        (3,)
    """

    def __init__(self, observed: int, hidden: int, ode: NeuralODE, head: Callable[..., Any], *, key: jax.Array):
        check_sizes(observed=observed, hidden=hidden)
        self.cell = eqx.nn.GRUCell(2 * observed, hidden, key=key)
        self.ode, self.head, self.observed, self.gaps = ode, head, observed, False


class GRU(_Recurrent):
    """A recurrent network with the time since the point before as a further input: the baseline of `ODERNN`.

    Args:
        observed: number of values at one time.
        hidden: size of the recurrent state.
        head: what is made of a state `(hidden,)`.
        key: JAX random key for the initial weights.
        gaps: whether the time since the point before is an input.

    Raises:
        ValueError: if a size is not a positive integer.

    Example:
        >>> import equinox as eqx
        >>> import jax
        >>> import jax.numpy as jnp
        >>> first, second = jax.random.split(jax.random.key(0))
        >>> model = GRU(2, 16, eqx.nn.Linear(16, 3, key=first), key=second)
        >>> model(jnp.linspace(0.0, 1.0, 7), jnp.zeros((7, 2))).shape
        (3,)
    """

    def __init__(self, observed: int, hidden: int, head: Callable[..., Any], *, key: jax.Array, gaps: bool = True):
        check_sizes(observed=observed, hidden=hidden)
        self.cell = eqx.nn.GRUCell(2 * observed + int(gaps), hidden, key=key)
        self.ode, self.head, self.observed, self.gaps = None, head, observed, gaps
