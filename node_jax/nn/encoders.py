"""Networks that read an irregular series backwards in time and return where its latent path begins."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax.nn.neural_ode import NeuralODE
from node_jax.nn.recurrent import as_series, known, read
from node_jax.nn.shapes import check_sizes


class _Encoder(eqx.Module):
    """A cell that reads backwards, and an affine layer of its state and the time of the first point."""

    cell: eqx.nn.GRUCell
    out: eqx.nn.Linear
    ode: NeuralODE | None
    observed: int = eqx.field(static=True)
    gaps: bool = eqx.field(static=True)

    def __call__(self, ts: Any, ys: Any, mask: Any = None) -> tuple[jax.Array, jax.Array]:
        """Return the mean and the logarithm of the standard deviation of the latent state.

        Args:
            ts: times `(n,)`, sorted, since the time of the latent state.
            ys: values `(n, observed)`, or `(n,)` if `observed` is 1.
            mask: `(n,)` or `(n, observed)`, true where a value was observed; default: everywhere.

        Returns:
            Two arrays `(latent,)`; NaN if a solve between the points failed.

        Raises:
            ValueError: if a shape is another.
        """
        series = as_series(ts, ys, mask, self.observed)
        found = read(self.cell, series, gaps=self.gaps, ode=self.ode, reverse=True)
        out = self.out(jnp.append(found.state, found.t.astype(found.state.dtype)))
        mean, log_std = jnp.split(known(found.ok, out), 2)
        return mean, log_std


class GRUEncoder(_Encoder):
    """A gated recurrent unit that runs backwards in time: the recognition network of Chen et al., 2018.

    Args:
        observed: number of values at one time.
        hidden: size of the recurrent state.
        latent: number of components of the latent state.
        key: JAX random key for the initial weights.
        gaps: whether the time to the point read before is a further input.

    Raises:
        ValueError: if a size is not a positive integer.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> encoder = GRUEncoder(2, 16, 4, key=jax.random.key(0))
        >>> mean, log_std = encoder(jnp.linspace(0.0, 1.0, 7), jnp.zeros((7, 2)))
        >>> mean.shape, log_std.shape
        ((4,), (4,))
    """

    def __init__(self, observed: int, hidden: int, latent: int, *, key: jax.Array, gaps: bool = True):
        check_sizes(observed=observed, hidden=hidden, latent=latent)
        first, second = jax.random.split(key)
        self.cell = eqx.nn.GRUCell(2 * observed + int(gaps), hidden, key=first)
        self.out = eqx.nn.Linear(hidden + 1, 2 * latent, key=second)
        self.ode, self.observed, self.gaps = None, observed, gaps


class ODERNNEncoder(_Encoder):
    """A recurrent unit whose state follows a field between the points, backwards in time (Rubanova et al., 2019).

    Args:
        observed: number of values at one time.
        hidden: size of the recurrent state.
        latent: number of components of the latent state.
        ode: how the recurrent state moves between the points; its field has states `(hidden,)`. Each solve goes from
            the time of one point to that of the next; its own `t0` and `t1` are not used.
        key: JAX random key for the initial weights.

    Raises:
        ValueError: if a size is not a positive integer.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import node_jax as nj
        >>> first, second = jax.random.split(jax.random.key(0))
        >>> ode = nj.NeuralODE(nj.nn.MLPField(16, 16, 1, key=first), steps=nj.Fixed(2), method=nj.midpoint)
        >>> encoder = ODERNNEncoder(2, 16, 4, ode, key=second)
        >>> encoder(jnp.linspace(0.0, 1.0, 7), jnp.zeros((7, 2)))[0].shape
        (4,)
    """

    def __init__(self, observed: int, hidden: int, latent: int, ode: NeuralODE, *, key: jax.Array):
        check_sizes(observed=observed, hidden=hidden, latent=latent)
        first, second = jax.random.split(key)
        self.cell = eqx.nn.GRUCell(2 * observed, hidden, key=first)
        self.out = eqx.nn.Linear(hidden + 1, 2 * latent, key=second)
        self.ode, self.observed, self.gaps = ode, observed, False
