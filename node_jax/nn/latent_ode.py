"""The latent ODE: irregular series as noisy views of a path in a latent space."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from node_jax.nn.encoders import GRUEncoder
from node_jax.nn.frozen import Frozen
from node_jax.nn.mlp import MLPField
from node_jax.nn.neural_ode import NeuralODE
from node_jax.nn.recurrent import as_series, both, floating
from node_jax.nn.shapes import check_sizes
from node_jax.placement import is_traced
from node_jax.save import SaveAt
from node_jax.solution import Solution
from node_jax.types import AnyArray


class LatentSolution(NamedTuple):
    """What a latent ODE knows of one series.

    Attributes:
        elbo: evidence lower bound, scalar; NaN if a solve failed.
        log_likelihood: its first part, the mean over samples of the log-density of the observed values.
        kl: its second, the Kullback-Leibler divergence of the latent state from the prior.
        mean: of the latent state, `(latent,)`.
        log_std: logarithm of its standard deviation, `(latent,)`.
        penalties: integrals of the regularizers, by name, mean over samples.
        solution: the `Solution` of the solves, with an axis `samples` in front.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import node_jax as nj
        >>> model = nj.nn.LatentODE.create(2, 4, 8, key=jax.random.key(0), steps=nj.Fixed(4), method=nj.midpoint)
        >>> solved = model.solve(jnp.linspace(0.0, 1.0, 9), jnp.zeros((9, 2)), key=jax.random.key(1))
        >>> bool(abs(solved.log_likelihood - solved.kl - solved.elbo) < 1e-3)
        True
    """

    elbo: jax.Array
    log_likelihood: jax.Array
    kl: jax.Array
    mean: jax.Array
    log_std: jax.Array
    penalties: dict[str, jax.Array]
    solution: Solution


class LatentODE(eqx.Module):
    """A variational autoencoder of irregular series (Chen et al., 2018, section 5).

    An encoder reads a series and returns a normal distribution of the latent state at `ode.t0`; the latent state
    follows a field; a decoder returns the mean of what is observed at a time. It takes one series: `jax.vmap` for many,
    which `nj.datasets.pad` brings to one length. The times of a series that is encoded do not lie before `ode.t0`.

    Args:
        encoder: `encoder(ts, ys, mask)` returns mean and logarithm of the standard deviation, such as `GRUEncoder`.
        ode: field of the latent state and how it is solved; the prior is `N(0, 1)` at its `t0`.
        decoder: from a latent state `(latent,)` to the mean of the values `(observed,)`.
        noise: standard deviation of the values about their mean.
        learn_noise: whether it is trained.

    Raises:
        ValueError: if `noise` is not positive.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> model = LatentODE.create(2, 4, 20, key=jax.random.key(0))
        >>> ts, ys = jnp.linspace(0.0, 1.0, 9), jnp.zeros((9, 2))
        >>> model.elbo(ts, ys, key=jax.random.key(1)).shape
        ()
        >>> model.predict(ts, ys, None, jnp.array([2.0, -1.0, 0.5])).shape
        (3, 2)
    """

    encoder: Callable[..., Any]
    ode: NeuralODE
    decoder: Callable[..., Any]
    log_noise: jax.Array | Frozen

    def __init__(
        self,
        encoder: Callable[..., Any],
        ode: NeuralODE,
        decoder: Callable[..., Any],
        *,
        noise: float = 0.1,
        learn_noise: bool = True,
    ):
        if not noise > 0:
            raise ValueError(f"noise must be positive, got {noise!r}")
        self.encoder, self.ode, self.decoder = encoder, ode, decoder
        log_noise = jnp.log(jnp.asarray(noise))
        self.log_noise = log_noise if learn_noise else Frozen(log_noise)

    @classmethod
    def create(
        cls,
        observed: int,
        latent: int,
        hidden: int,
        *,
        key: jax.Array,
        noise: float = 0.1,
        learn_noise: bool = True,
        **options: Any,
    ) -> "LatentODE":
        """Return the model of the paper: a GRU with time gaps, a field and a decoder of one hidden layer each.

        Args:
            observed: number of values at one time.
            latent: number of components of the latent state.
            hidden: units of each hidden layer, and size of the recurrent state.
            key: JAX random key for the initial weights.
            noise: standard deviation of the values about their mean.
            learn_noise: whether it is trained.
            **options: options of the `NeuralODE`.

        Returns:
            A `LatentODE`.

        Raises:
            ValueError: if a size is not a positive integer.
        """
        check_sizes(observed=observed, latent=latent, hidden=hidden)
        first, second, third = jax.random.split(key, 3)
        encoder = GRUEncoder(observed, hidden, latent, key=first)
        ode = NeuralODE(MLPField(latent, hidden, 1, key=second), **options)
        decoder = eqx.nn.MLP(latent, observed, hidden, 1, jax.nn.tanh, key=third)
        return cls(encoder, ode, decoder, noise=noise, learn_noise=learn_noise)

    @property
    def noise(self) -> jax.Array:
        """Standard deviation of the values about their mean, a scalar."""
        log_noise = self.log_noise.value if isinstance(self.log_noise, Frozen) else self.log_noise
        return jnp.exp(log_noise)

    def encode(self, ts: Any, ys: Any, mask: Any = None) -> tuple[jax.Array, jax.Array]:
        """Return the mean and the logarithm of the standard deviation of the latent state at `ode.t0`.

        Args:
            ts: times `(n,)`, sorted from `ode.t0` onwards.
            ys: values `(n, observed)`, or `(n,)` if that is 1.
            mask: `(n,)` or `(n, observed)`, true where a value was observed; default: everywhere.

        Returns:
            Two arrays `(latent,)`.

        Raises:
            ValueError: if a shape is another, or of concrete arguments times are out of order or a value that is there
                is NaN.
        """
        ts = floating(ts)
        if not is_traced((ts, self.ode.t0)) and (np.any(np.diff(ts) < 0) or np.any(ts < self.ode.t0)):
            raise ValueError(f"ts must be sorted and not before ode.t0={self.ode.t0}, got {ts}")
        return self.encoder(ts - self.ode.t0, ys, mask)

    def decode(self, z0: AnyArray, ts: Any) -> jax.Array:
        """Return the mean of what is observed along the path of a latent state.

        Args:
            z0: latent state at `ode.t0`, `(latent,)`.
            ts: times `(n,)`, in any order, before and after `ode.t0`.

        Returns:
            Values `(n, observed)`.

        Raises:
            SolveError: if a solve fails and values are concrete.
        """
        z0, ts = jnp.asarray(z0), floating(ts)
        if ts.ndim != 1 or not ts.size:
            raise ValueError(f"times must have shape (n,), n >= 1, got {ts.shape}")
        t0 = jnp.asarray(self.ode.t0, ts.dtype)
        later, earlier = (self._visited(z0, reach, t0) for reach in (jnp.maximum(ts, t0), jnp.minimum(ts, t0)))
        return jax.vmap(self.decoder)(jnp.where((ts >= t0)[:, None], later, earlier))

    def _visited(self, z0: jax.Array, ts: jax.Array, t0: jax.Array) -> jax.Array:
        """Return the latent states at times on one side of `t0`, in any order."""
        order = jnp.argsort(jnp.abs(ts - t0))
        states = self.ode.trajectory(z0, ts[order])
        return states[jnp.argsort(order)]

    def predict(self, ts: Any, ys: Any, mask: Any, at: Any, *, key: Any = None) -> jax.Array:
        """Return what a series is expected to be at other times.

        Args:
            ts: times `(n,)`, sorted.
            ys: values, as in `encode`.
            mask: which there are, as in `encode`; None: all.
            at: times `(m,)`, in any order.
            key: JAX random key for a sample of the latent state; default: its mean.

        Returns:
            Values `(m, observed)`.

        Raises:
            SolveError: if a solve fails and values are concrete.
        """
        mean, log_std = self.encode(ts, ys, mask)
        if key is not None:
            mean = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape, mean.dtype)
        return self.decode(mean, at)

    def elbo(
        self,
        ts: Any,
        ys: Any,
        mask: Any = None,
        encoded: Any = None,
        *,
        key: Any,
        beta: Any = 1.0,
        samples: int = 1,
    ) -> jax.Array:
        """Return the evidence lower bound of one series.

        Args:
            ts: times `(n,)`, sorted from `ode.t0` onwards.
            ys: values, as in `encode`.
            mask: which there are, as in `encode`.
            encoded: mask of those that the encoder reads; default: all there are. A model that is to predict learns
                more from a part, such as a random first one; the bound holds for every part.
            key: JAX random key for the samples of the latent state.
            beta: weight of the Kullback-Leibler divergence; 1 gives the bound.
            samples: number of samples.

        Returns:
            Real scalar; NaN if a solve fails.
        """
        return self.solve(ts, ys, mask, encoded, key=key, beta=beta, samples=samples, regularized=False).elbo

    def solve(
        self,
        ts: Any,
        ys: Any,
        mask: Any = None,
        encoded: Any = None,
        *,
        key: Any,
        beta: Any = 1.0,
        samples: int = 1,
        **options: Any,
    ) -> LatentSolution:
        """Return the evidence lower bound of one series with all that is known about it.

        Args:
            ts: times, as in `elbo`.
            ys: values.
            mask: which there are.
            encoded: which of them the encoder reads.
            key: JAX random key.
            beta: weight of the Kullback-Leibler divergence.
            samples: number of samples.
            **options: options of `NeuralODE.solve`.

        Returns:
            A `LatentSolution`.
        """
        check_sizes(samples=samples)
        ts = floating(ts)
        mean, log_std = self.encode(ts, ys, mask if encoded is None else both(ts, ys, mask, encoded))
        # what the encoder could not find, or is too wide to draw from, is taken out before it reaches a derivative
        usable = jnp.all(jnp.isfinite(mean)) & jnp.all(jnp.isfinite(jnp.exp(2 * log_std)))
        mean, log_std = (jnp.where(usable, x, jnp.zeros_like(x)) for x in (mean, log_std))

        def one(key):
            first, second = jax.random.split(key)
            z0 = mean + jnp.exp(log_std) * jax.random.normal(first, mean.shape, mean.dtype)
            solution = self.ode.solve(z0, t1=ts[-1], save=SaveAt(ts), key=second, **options)
            return self._log_likelihood(ts, ys, mask, solution), solution

        log_likelihoods, solution = jax.vmap(one)(jax.random.split(key, samples))
        log_likelihood = jnp.where(usable & jnp.all(solution.ok), jnp.mean(log_likelihoods), jnp.nan)
        kl = 0.5 * jnp.sum(mean**2 + jnp.exp(2 * log_std) - 1.0 - 2 * log_std)
        penalties = {name: jnp.mean(x) for name, x in solution.penalties.items()}
        return LatentSolution(log_likelihood - beta * kl, log_likelihood, kl, mean, log_std, penalties, solution)

    def _log_likelihood(self, ts: Any, ys: Any, mask: Any, solution: Solution) -> jax.Array:
        """Return the log-density of the observed values along a path."""
        means = jax.vmap(self.decoder)(solution.filled().zs)
        _, values, seen = as_series(ts, ys, mask, means.shape[1])
        errors = jnp.where(seen, (values - means) / self.noise, 0.0)
        return -0.5 * jnp.sum(errors**2) - jnp.sum(seen) * (jnp.log(self.noise) + 0.5 * math.log(2 * math.pi))
