"""Recurrent networks for irregular series: with a state that follows a field, and with time gaps as inputs."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax.nn.encoders import between_points
from node_jax.nn.neural_ode import NeuralODE
from node_jax.nn.recurrent import as_series, features, run
from node_jax.nn.shapes import check_sizes


class ODERNN(eqx.Module):
    """A recurrent network whose state follows a field between the points of a series (Rubanova et al., 2019).

    Args:
        observed: number of values at one time.
        hidden: size of the recurrent state.
        ode: how the state moves between the points; its field has states `(hidden,)`, its times are unused.
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

    cell: eqx.nn.GRUCell
    ode: NeuralODE
    head: Callable
    observed: int = eqx.field(static=True)

    def __init__(self, observed: int, hidden: int, ode: NeuralODE, head: Callable, *, key: jax.Array):
        check_sizes(observed=observed, hidden=hidden)
        self.cell = eqx.nn.GRUCell(2 * observed, hidden, key=key)
        self.ode, self.head, self.observed = ode, head, observed

    def __call__(self, ts: Any, ys: Any, mask: Any = None) -> jax.Array:
        """Return what the head makes of the state after the last point.

        Args:
            ts: times `(n,)`, sorted.
            ys: values `(n, observed)`, or `(n,)` if `observed` is 1.
            mask: `(n,)` or `(n, observed)`, true where a value was observed; default: everywhere.

        Returns:
            Output of the head.

        Raises:
            ValueError: if a shape is another.
        """
        return self.head(self._run(ts, ys, mask)[0])

    def outputs(self, ts: Any, ys: Any, mask: Any = None) -> jax.Array:
        """Return what the head makes of the state after each point, which depends on no later point.

        Args:
            ts: times, as in a call.
            ys: values.
            mask: which there are.

        Returns:
            Outputs of the head along a leading axis `n`.
        """
        return jax.vmap(self.head)(self._run(ts, ys, mask)[1])

    def _run(self, ts, ys, mask):
        ts, ys, mask = as_series(ts, ys, mask, self.observed)
        start = jnp.zeros(self.cell.hidden_size, ys.dtype)
        return run(between_points(self.ode, self.cell, 1.0), start, ts, ys, mask)


class GRU(eqx.Module):
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

    cell: eqx.nn.GRUCell
    head: Callable
    observed: int = eqx.field(static=True)
    gaps: bool = eqx.field(static=True)

    def __init__(self, observed: int, hidden: int, head: Callable, *, key: jax.Array, gaps: bool = True):
        check_sizes(observed=observed, hidden=hidden)
        self.cell = eqx.nn.GRUCell(2 * observed + int(gaps), hidden, key=key)
        self.head, self.observed, self.gaps = head, observed, gaps

    def __call__(self, ts: Any, ys: Any, mask: Any = None) -> jax.Array:
        """Return what the head makes of the state after the last point; as `ODERNN`."""
        return self.head(self._run(ts, ys, mask)[0])

    def outputs(self, ts: Any, ys: Any, mask: Any = None) -> jax.Array:
        """Return what the head makes of the state after each point; as `ODERNN`."""
        return jax.vmap(self.head)(self._run(ts, ys, mask)[1])

    def _run(self, ts, ys, mask):
        ts, ys, mask = as_series(ts, ys, mask, self.observed)

        def update(state, gap, t, y, seen):
            return self.cell(features(y, seen, gap, self.gaps), state)

        return run(update, jnp.zeros(self.cell.hidden_size, ys.dtype), ts, ys, mask)
