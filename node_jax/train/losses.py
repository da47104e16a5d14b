"""Losses for `fit`: of a solution, and of each model `loss(model, batch, key)`.

A loss of a model is the mean over the samples of a batch whose solve succeeded and whose data are finite; the others
are counted, and contribute exactly nothing to the gradient.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from node_jax import tree
from node_jax.nn import CNF, Classifier, LatentODE, NeuralODE, PoissonProcess
from node_jax.solution import Solution
from node_jax.train import entries
from node_jax.train.outcome import Counts
from node_jax.types import PyTree

Loss = tuple[jax.Array, Counts, dict[str, jax.Array]]


def squared_error(solution: Solution, targets: PyTree, weights: Any = None) -> tuple[jax.Array, Counts]:
    """Return the mean squared error over the lanes that succeeded, and how many did not.

    Args:
        solution: of one solve or, after `vmap`, of a batch.
        targets: pytree like `solution.zs` (`solution.z1` if no times were saved).
        weights: array of weights for the leading axes of `targets`, at least the lanes; default: all equal.

    Returns:
        Real scalar, the weighted mean over all elements of lanes that are `ok`, NaN if none is; and counts.

    Raises:
        ValueError: if `targets` or `weights` do not have the shapes of the states.

    Example:
        >>> import jax.numpy as jnp
        >>> import node_jax as nj
        >>> def still(z, t, theta):
        ...     return jnp.zeros_like(z)
        >>> loss, counts = squared_error(nj.odesolve(still, 1.0, 0.0, 1.0), jnp.array(3.0))
        >>> float(loss), int(counts.failed)
        (4.0, 0)
    """
    states = solution.z1 if solution.zs is None else solution.zs
    want, got = (jax.tree.map(jnp.shape, x) for x in (states, targets))
    if want != got:
        raise ValueError(f"targets must have the shapes of the states, {want}, got {got}")
    weights = jnp.ones(solution.ok.shape) if weights is None else jnp.asarray(weights)
    lanes = solution.ok.ndim
    if any(x.shape[: weights.ndim] != weights.shape for x in jax.tree.leaves(states)) or weights.ndim < lanes:
        raise ValueError(f"weights must have leading axes of the states, {want}, got shape {weights.shape}")
    weights = tree.where_rows(solution.ok, weights, jnp.zeros_like(weights))
    # Masked before squaring: a NaN state whose square alone was masked would still make the gradient NaN.
    error = tree.subtract(tree.where_rows(solution.ok, states, targets), targets)
    sums = [_weighted(x, weights) for x in jax.tree.leaves(error)]
    counts = Counts(jnp.sum(solution.stats.nfe), jnp.sum(~solution.ok))
    return jnp.asarray(sum(total for total, _ in sums) / sum(weight for _, weight in sums)), counts


def _weighted(error: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Weighted sum of the squares of one leaf, and the sum of the weights of its elements."""
    square = (error * jnp.conj(error)).real
    weights = weights.astype(square.dtype).reshape(weights.shape + (1,) * (error.ndim - weights.ndim))
    return jnp.sum(square * weights), jnp.sum(jnp.broadcast_to(weights, error.shape))


def nll(
    model: Any,
    batch: Any,
    key: jax.Array,
    *,
    common_steps: bool = False,
    penalties: Mapping[str, Any] | None = None,
) -> Loss:
    """Return the negative log-likelihood of points, the loss of maximum likelihood.

    Args:
        model: a `CNF`, or another flow with `log_prob(x, condition, key=key)`.
        batch: points `(n, dim)`, or a pair of points and conditions with a leading axis `n`.
        key: JAX random key, for `Hutchinson` and random regularizers.
        common_steps: whether all points of a `CNF` are solved as one system, see `nj.nn.Batched`; by default each has
            its own steps, and its own failure.
        penalties: weights of the regularizers, by name.

    Returns:
        Real scalar in nats, `Counts`, and a dict with the mean of each regularizer.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import node_jax as nj
        >>> flow = nj.nn.CNF(nj.NeuralODE(nj.nn.PlanarField(2, 4, key=jax.random.key(0))), 2)
        >>> value, counts, _ = nll(flow, jnp.zeros((3, 2)), jax.random.key(1))
        >>> value.shape, int(counts.failed)
        ((), 0)
    """
    x, condition = entries.parts("points (n, dim), or a pair of points and conditions", batch, 1, 2)
    (x, condition), sound = entries.sound((x, condition), x.shape[0])
    if common_steps:
        return _nll_together(model, x, condition, key, sound, penalties)
    keys = jax.random.split(key, x.shape[0])
    if not hasattr(model, "solve"):
        if penalties:
            raise ValueError(f"penalties need a model with regularizers, got penalties={penalties} of {model!r}")
        values = jax.vmap(lambda x, c, k: model.log_prob(x, c, key=k))(x, condition, keys)
        return -_mean(values, sound), Counts(failed=jnp.sum(~sound)), {}
    found = jax.vmap(lambda x, c, k: model.solve(x, c, key=k))(x, condition, keys)
    return _loss(-found.log_prob, found.solution.ok, found.solution.stats.nfe, sound, found.penalties, penalties)


def _nll_together(model, x, condition, key, sound, penalties) -> Loss:
    """Return the negative log-likelihood of points that are solved with common steps."""
    if not isinstance(model, CNF):
        raise TypeError(f"common_steps=True needs a CNF, got {type(model).__name__}")
    found = model.solve_batch(x, condition, key=key)
    ok, nfe = (jnp.broadcast_to(leaf, sound.shape) for leaf in (found.solution.ok, found.solution.stats.nfe))
    return _loss(-found.log_prob, ok, nfe, sound, found.penalties, penalties)


def elbo(
    model: LatentODE,
    batch: tuple[Any, ...] | list[Any],
    key: jax.Array,
    *,
    beta: Any = 1.0,
    samples: int = 1,
    penalties: Mapping[str, Any] | None = None,
) -> Loss:
    """Return minus the evidence lower bound of series.

    Args:
        model: a `LatentODE`.
        batch: times `(n, m)`, values `(n, m, observed)`, and a mask `(n, m)` or `(n, m, observed)` or none, as
            `nj.datasets.pad` returns them; optionally a further mask of what the encoder reads, see `LatentODE.elbo`.
        key: JAX random key for the samples of the latent state.
        beta: weight of the Kullback-Leibler divergence. To anneal it, train with several values in turn.
        samples: number of samples of each latent state.
        penalties: weights of the regularizers, by name.

    Returns:
        Real scalar in nats a series, `Counts`, and a dict with `log_likelihood`, `kl` and the regularizers.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import node_jax as nj
        >>> series = [([0.0, 0.5, 1.0], [0.1, 0.2, 0.3]), ([0.2, 0.9], [0.3, 0.1])]
        >>> batch = jax.tree.map(jnp.asarray, nj.datasets.pad(series))
        >>> model = nj.nn.LatentODE.create(1, 2, 8, key=jax.random.key(0), steps=nj.Fixed(4), method=nj.midpoint)
        >>> value, counts, metrics = elbo(model, batch, jax.random.key(1))
        >>> value.shape, int(counts.failed), sorted(metrics)
        ((), 0, ['kl', 'log_likelihood'])
    """
    ts, ys, mask, encoded = entries.parts("times, values and a mask, as nj.datasets.pad returns them", batch, 2, 4)
    (ts, ys, mask), sound = entries.sound_series(ts, ys, mask)

    def one(ts, ys, mask, encoded, key):
        return model.solve(ts, ys, mask, encoded, key=key, beta=beta, samples=samples)

    found = jax.vmap(one)(ts, ys, mask, encoded, jax.random.split(key, ts.shape[0]))
    more = {"log_likelihood": found.log_likelihood, "kl": found.kl}
    return _loss(-found.elbo, found.solution.ok, found.solution.stats.nfe, sound, found.penalties, penalties, more)


def cross_entropy(
    model: Any, batch: tuple[Any, ...] | list[Any], key: jax.Array, *, penalties: Mapping[str, Any] | None = None
) -> Loss:
    """Return the cross-entropy of the classes of samples.

    Args:
        model: a `Classifier`; an `ODERNN` or `GRU` whose head returns logits; or another module that returns the logits
            of one sample.
        batch: samples with a leading axis `n`, and labels `(n,)`, integers from 0; a sample whose label is no class is
            left out and counted as failed. The samples of a recurrent model are a tuple of times `(n, m)`, values and
            a mask, as `nj.datasets.pad` returns them.
        key: JAX random key for random regularizers.
        penalties: weights of the regularizers of a `Classifier`, by name.

    Returns:
        Real scalar in nats, `Counts`, and a dict with `accuracy` and the regularizers.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import node_jax as nj
        >>> model = nj.nn.Classifier.create((4,), 3, width=8, key=jax.random.key(0), steps=nj.Fixed(4))
        >>> value, counts, metrics = cross_entropy(model, (jnp.zeros((5, 4)), jnp.zeros(5, int)), jax.random.key(1))
        >>> value.shape, int(counts.failed), sorted(metrics)
        ((), 0, ['accuracy'])
    """
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise TypeError(f"batch must be a pair of samples and labels, got {entries.outline(batch)}")
    x, labels = batch[0], jnp.asarray(batch[1])
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels must be integers from 0, got dtype {labels.dtype}")
    if labels.ndim != 1:
        raise ValueError(f"labels must have shape (n,), got {labels.shape}")
    x, sound = entries.sound_series(*x) if isinstance(x, tuple | list) else entries.sound(x, labels.shape[0])
    if isinstance(model, Classifier):
        keys = jax.random.split(key, labels.shape[0])
        logits, solution = jax.vmap(lambda x, k: model.solve(x, key=k))(x, keys)
        ok, nfe, integrals = solution.ok, solution.stats.nfe, solution.penalties
    else:
        logits = jax.vmap(model)(*x) if isinstance(x, tuple) else jax.vmap(model)(x)
        ok, nfe, integrals = entries.finite_rows(logits), jnp.zeros((), jnp.int32), {}
    safe = tree.where_rows(sound & ok, logits, jnp.zeros_like(logits))
    sound = sound & (labels >= 0) & (labels < logits.shape[1])
    values = -jnp.take_along_axis(jax.nn.log_softmax(safe), jnp.where(sound, labels, 0)[:, None], axis=1)[:, 0]
    accuracy = jnp.asarray(jnp.argmax(safe, axis=1) == labels, values.dtype)
    return _loss(values, ok, nfe, sound, integrals, penalties, {"accuracy": accuracy})


def point_process(
    model: PoissonProcess,
    batch: tuple[Any, ...] | list[Any],
    key: jax.Array,
    *,
    penalties: Mapping[str, Any] | None = None,
) -> Loss:
    """Return the negative log-likelihood of series of events.

    Args:
        model: a `PoissonProcess`.
        batch: times `(n, m)`, a mask `(n, m)`, and the states at `t0`, a pytree with a leading axis `n`.
        key: JAX random key for random regularizers.
        penalties: weights of the regularizers, by name.

    Returns:
        Real scalar in nats a series, `Counts`, and a dict with the mean of each regularizer.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import node_jax as nj
        >>> def rising(z, t, theta):
        ...     return jnp.ones_like(z)
        >>> process = nj.nn.PoissonProcess(nj.NeuralODE(rising), jnp.exp)
        >>> batch = (jnp.array([[0.2, 0.7]]), jnp.array([[True, True]]), jnp.zeros(1))
        >>> value, _, _ = point_process(process, batch, jax.random.key(0))
        >>> bool(abs(value - (jnp.e - 1 - 0.9)) < 1e-5)
        True
    """
    events, mask, z0 = entries.parts("times of events, a mask and states", batch, 2, 3)
    if jnp.shape(mask) != jnp.shape(events):
        raise ValueError(f"mask must have the shape of the times {jnp.shape(events)}, got {jnp.shape(mask)}")
    (events, mask, z0), sound = entries.sound((events, mask, z0), events.shape[0])
    keys = jax.random.split(key, events.shape[0])
    found = jax.vmap(lambda e, m, z, k: model.solve(e, m, z0=z, key=k))(events, mask, z0, keys)
    return _loss(-found.log_prob, found.solution.ok, found.solution.stats.nfe, sound, found.penalties, penalties)


def flow_matching(model: CNF | NeuralODE, batch: Any, key: jax.Array) -> Loss:
    """Return the loss of flow matching along straight paths (Lipman et al., 2023; Tong et al., 2024).

    The field at a random time is compared with the velocity of a point that moves from `x0` at `ode.t0` to `x1` at
    `ode.t1`. Nothing is solved.

    Args:
        model: a `CNF`, or a `NeuralODE` with states `(dim,)`.
        batch: points `x0` and `x1`, `(n, dim)` each, and optionally conditions with a leading axis `n`; of a `CNF` also
            `x1` alone, with `x0` from its base.
        key: JAX random key.

    Returns:
        Real scalar, `Counts`, and an empty dict.

    Raises:
        TypeError: if there is no `x0`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import node_jax as nj
        >>> field = nj.nn.MLPField(2, 8, 1, key=jax.random.key(0), time_dependent=True)
        >>> x0, x1 = jnp.zeros((5, 2)), jnp.ones((5, 2))
        >>> value, counts, _ = flow_matching(nj.NeuralODE(field), (x0, x1), jax.random.key(1))
        >>> value.shape, int(counts.nfe)
        ((), 5)
    """
    ode = model.ode if isinstance(model, CNF) else model
    first, second = jax.random.split(key)
    conditions = ()
    if isinstance(batch, tuple | list):
        x0, x1, *conditions = batch
    elif isinstance(model, CNF):
        x1, x0 = batch, jax.vmap(model.base.sample)(jax.random.split(second, batch.shape[0])).astype(batch.dtype)
    else:
        raise TypeError(f"flow_matching of a NeuralODE needs a pair (x0, x1), got {type(batch).__name__}")
    if jnp.ndim(x1) != 2 or jnp.shape(x0) != jnp.shape(x1):
        raise ValueError(f"x0 and x1 must have one shape (n, dim), got {jnp.shape(x0)} and {jnp.shape(x1)}")
    (x0, x1, *conditions), sound = entries.sound((x0, x1, *conditions), x1.shape[0])
    span = jnp.asarray(ode.t1, x1.dtype) - jnp.asarray(ode.t0, x1.dtype)

    def one(x0, x1, s, theta=ode.theta):
        slope = ode.field(x0 + s * (x1 - x0), ode.t0 + s * span, theta)
        return jnp.sum((slope - (x1 - x0) / span) ** 2)

    values = jax.vmap(one)(x0, x1, jax.random.uniform(first, x1.shape[:1], x1.dtype), *conditions)
    return _mean(values, sound), Counts(values.size, jnp.sum(~sound)), {}


def _loss(
    values: jax.Array,
    ok: jax.Array,
    nfe: jax.Array,
    sound: jax.Array,
    integrals: Mapping[str, jax.Array],
    weights: Mapping[str, Any] | None,
    more: Mapping[str, jax.Array] | None = None,
) -> Loss:
    """Return the mean of `values` with weighted penalties, over samples that are sound and were solved."""
    unknown = set(weights or {}) - set(integrals)
    if unknown:
        raise ValueError(f"penalties must name regularizers of the model, {sorted(integrals)}, got {sorted(unknown)}")
    solved = jnp.all(ok.reshape(values.shape[0], -1), axis=1)
    good = sound & solved & jnp.isfinite(values)
    for x in integrals.values():
        good = good & jnp.isfinite(x)
    means = {name: _mean(x, good) for name, x in {**integrals, **(more or {})}.items()}
    total = _mean(values, good) + sum(weight * means[name] for name, weight in (weights or {}).items())
    counts = Counts(jnp.sum(nfe), jnp.sum(~good))
    return total, counts, {name: jax.lax.stop_gradient(x) for name, x in means.items()}


def _mean(values: jax.Array, good: jax.Array) -> jax.Array:
    """Return the mean over good samples, NaN if there is none."""
    return jnp.sum(jnp.where(good, values, jnp.zeros_like(values))) / jnp.sum(good)
