"""Latent ODEs and recurrent networks along irregular series."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import node_jax as nj
from node_jax.nn import GRU, ODERNN, GRUEncoder, LatentODE, ODERNNEncoder

KEY = jax.random.key(0)
TS = jnp.array([0.0, 0.3, 0.35, 0.9])
YS = jax.random.normal(KEY, (4, 2))
SHORT = {"steps": nj.Fixed(2), "method": nj.midpoint}


def decay(z, t, theta):
    return -z


def still(z, t, theta):
    return jnp.zeros_like(z)


def first_two(z):
    return z[:2]


def ode_of(size):
    return nj.NeuralODE(nj.nn.MLPField(size, 8, 1, key=KEY), **SHORT)


READERS = {
    "gru encoder": GRUEncoder(2, 8, 3, key=KEY),
    "ode-rnn encoder": ODERNNEncoder(2, 8, 3, ode_of(8), key=KEY),
    "gru": GRU(2, 8, eqx.nn.Linear(8, 3, key=KEY), key=KEY),
    "ode-rnn": ODERNN(2, 8, ode_of(8), eqx.nn.Linear(8, 3, key=KEY), key=KEY),
    "latent": LatentODE.create(2, 3, 8, key=KEY),
}


def read(name, ts, ys, mask=None):
    reader = READERS[name]
    return reader.elbo(ts, ys, mask, key=KEY) if name == "latent" else reader(ts, ys, mask)


def same(a, b, rtol=1e-12):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-14), a, b)


@pytest.mark.parametrize("name", READERS)
def test_padded_series_equals_the_series(name):
    ts, ys, mask = nj.datasets.pad([(TS, YS), (np.arange(7.0), np.zeros((7, 2)))])
    same(read(name, *map(jnp.asarray, (ts[0], ys[0], mask[0]))), read(name, TS, YS))
    same(read(name, *map(jnp.asarray, (ts[0], ys[0], mask[0, :, 0]))), read(name, TS, YS))


@pytest.mark.parametrize("name", READERS)
def test_what_is_masked_is_not_read_and_what_is_not_is(name):
    mask = jnp.ones((4, 2), bool).at[1, 0].set(False)
    before = read(name, TS, YS, mask)
    same(read(name, TS, YS.at[1, 0].set(jnp.nan), mask), before)
    other = read(name, TS, YS.at[1, 1].add(1.0), mask)
    assert any(
        np.max(np.abs(x - y)) > 1e-6 for x, y in zip(jax.tree.leaves(other), jax.tree.leaves(before), strict=True)
    )


@pytest.mark.parametrize("name", ["gru encoder", "ode-rnn encoder", "gru", "ode-rnn"])
def test_times_between_points_matter(name):
    later = read(name, TS.at[1].set(0.1), YS)
    assert any(
        np.max(np.abs(x - y)) > 1e-6
        for x, y in zip(jax.tree.leaves(later), jax.tree.leaves(read(name, TS, YS)), strict=True)
    )


@pytest.mark.parametrize("name", ["gru", "ode-rnn"])
def test_outputs_depend_on_the_past_only_and_the_last_is_the_call(name):
    model = READERS[name]
    slopes = jax.jacrev(lambda ys: model.outputs(TS, ys))(YS)  # output, class, point, value
    sizes = np.abs(slopes).max(axis=(1, 3))
    assert (sizes[np.triu_indices(4, 1)] == 0).all()
    assert (sizes[np.tril_indices(4)] > 0).all()
    same(model.outputs(TS, YS)[-1], model(TS, YS))


@pytest.mark.parametrize("name", ["gru encoder", "ode-rnn encoder"])
def test_encoder_reads_backwards(name):
    """The last point is read first: what follows forgets a part of it."""
    encoder = READERS[name]
    slopes = jax.jacrev(lambda ys: encoder(TS, ys)[0])(YS)
    sizes = np.abs(slopes).sum(axis=(0, 2))
    assert sizes[0] > sizes[3] > 0


def test_decoding_goes_both_ways_from_t0_in_any_order():
    ode = nj.NeuralODE(decay, 1.0, 2.0, steps=nj.Adaptive(1e-9, 1e-9))
    model = LatentODE(READERS["gru encoder"], ode, first_two)
    z0, ts = jnp.array([1.0, -2.0, 3.0]), jnp.array([3.0, 0.0, 1.0, -1.0, 1.5])
    exact = np.exp(1.0 - np.asarray(ts))[:, None] * np.asarray(z0)[:2]
    np.testing.assert_allclose(model.decode(z0, ts), exact, rtol=1e-7)
    inside = jax.jit(lambda z0, ts: model.decode(z0, ts))
    np.testing.assert_allclose(inside(z0, ts[jnp.array([2, 4])]), exact[[2, 4]], rtol=1e-7)


class Posterior(eqx.Module):
    """The exact posterior of a constant state that is seen with noise."""

    noise: float

    def __call__(self, ts, ys, mask):
        precision = 1.0 + len(ts) / self.noise**2
        mean = jnp.sum(ys, axis=0) / self.noise**2 / precision
        return mean, jnp.full_like(mean, -0.5 * np.log(precision))


def test_bound_is_the_evidence_where_that_is_known():
    noise = 0.5
    model = LatentODE(Posterior(noise), nj.NeuralODE(still, **SHORT), first_two, noise=noise)
    covariance = np.ones((4, 4)) + noise**2 * np.eye(4)
    logs = [
        -0.5 * (y @ np.linalg.solve(covariance, y) + np.linalg.slogdet(2 * np.pi * covariance)[1])
        for y in np.array(YS).T
    ]
    found = model.solve(TS, YS, key=KEY, samples=20_000)
    error = 4 * 4 * 2 / 20_000**0.5  # of the mean of a quadratic form of a few
    np.testing.assert_allclose(found.elbo, sum(logs), atol=error)
    worse = LatentODE(Posterior(0.3), model.ode, first_two, noise=noise)
    assert float(worse.elbo(TS, YS, key=KEY, samples=20_000)) < sum(logs) - 0.1
    np.testing.assert_allclose(found.elbo, found.log_likelihood - found.kl)


def test_weight_of_the_divergence_and_noise_that_is_not_trained():
    model = LatentODE.create(2, 3, 8, key=KEY, noise=0.2, learn_noise=False)
    one, none = (model.solve(TS, YS, key=KEY, beta=beta) for beta in (1.0, 0.0))
    np.testing.assert_allclose(none.elbo - one.elbo, one.kl)
    np.testing.assert_allclose(model.noise, 0.2)
    slopes = eqx.filter_grad(lambda model: model.elbo(TS, YS, key=KEY))(model)
    assert float(slopes.log_noise.held) == 0.0
    with pytest.raises(ValueError, match="noise must be positive, got -1"):
        LatentODE.create(2, 3, 8, key=KEY, noise=-1.0)


def test_encoder_knows_when_a_series_began_and_refuses_times_out_of_order():
    model = READERS["latent"]
    later = model.encode(TS + 1.0, YS)[0]
    assert np.max(np.abs(later - model.encode(TS, YS)[0])) > 1e-3
    moved = LatentODE(model.encoder, dataclasses.replace(model.ode, t0=2019.0), model.decoder)
    same(moved.encode(TS + 2019.0, YS), model.encode(TS, YS), rtol=1e-6)
    for ts in (TS[::-1], TS - 1.0):
        with pytest.raises(ValueError, match=r"ts must be sorted and not before ode\.t0"):
            model.predict(ts, YS, None, TS)


def test_prediction_is_the_mean_without_a_key_and_a_sample_with_one():
    model = READERS["latent"]
    mean = model.predict(TS, YS, None, TS)
    np.testing.assert_allclose(mean, model.decode(model.encode(TS, YS)[0], TS))
    assert np.max(np.abs(model.predict(TS, YS, None, TS, key=KEY) - mean)) > 1e-6


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.int32])
def test_series_may_have_other_dtypes_than_the_weights(name, dtype):
    ts, ys = jnp.arange(4).astype(dtype), jnp.round(3 * YS).astype(dtype)
    found = jax.tree.leaves(read(name, ts, ys))
    wide = jax.tree.leaves(read(name, ts.astype(float), ys.astype(float)))
    for x, y in zip(found, wide, strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["gru encoder", "ode-rnn encoder", "gru", "ode-rnn"])
def test_time_of_a_point_that_is_not_there_is_not_read(name):
    mask = jnp.array([True, True, False, True])
    before = read(name, TS, YS, mask)
    same(read(name, TS.at[2].set(jnp.nan), YS, mask), before)
    reader = READERS[name]

    def total(reader):
        return sum(jnp.sum(x) for x in jax.tree.leaves(reader(TS.at[2].set(jnp.nan), YS, mask)))

    assert all(np.isfinite(x).all() for x in jax.tree.leaves(eqx.filter_grad(total)(reader)))


def test_decoding_takes_whole_numbers_as_times():
    ode = nj.NeuralODE(decay, 0.5, 2.0, steps=nj.Adaptive(1e-9, 1e-9))
    model = LatentODE(READERS["gru encoder"], ode, first_two)
    found = model.decode(jnp.array([1.0, -2.0, 3.0]), jnp.array([0, 1]))
    np.testing.assert_allclose(found[:, 0], np.exp([0.5, -0.5]), rtol=1e-6)


def test_shapes_that_do_not_fit_are_named():
    for ts, ys, mask, word in (
        (TS, YS[:3], None, r"must have shapes \(n,\) and \(n, 2\)"),
        (TS[:0], YS[:0], None, "n >= 1"),
        (TS, YS, jnp.ones(3, bool), r"mask must have shape \(4,\) or \(4, 2\), got \(3,\)"),
    ):
        with pytest.raises(ValueError, match=word):
            READERS["gru"](ts, ys, mask)


def test_encoder_may_read_a_part_of_what_the_bound_is_of():
    model, encoded = READERS["latent"], jnp.array([True, True, False, False])
    found = model.solve(TS, YS, None, encoded, key=KEY)
    mean, log_std = model.encode(TS[:2], YS[:2])
    same((found.mean, found.log_std), (mean, log_std))
    z0 = mean + jnp.exp(log_std) * jax.random.normal(jax.random.split(jax.random.split(KEY, 1)[0])[0], mean.shape)
    errors = (YS - model.decode(z0, TS)) / model.noise
    expected = -0.5 * jnp.sum(errors**2) - YS.size * (jnp.log(model.noise) + 0.5 * np.log(2 * np.pi))
    same(found.log_likelihood, expected, rtol=1e-5)
    batch = tuple(x[None] for x in (TS, YS, jnp.ones(4, bool), encoded))
    value, _, metrics = nj.train.elbo(model, batch, KEY)
    assert np.isfinite(value)
    same(metrics["kl"], found.kl)


def test_encoder_reads_nothing_that_is_missing():
    model, mask = READERS["latent"], jnp.array([True, False, True, True])
    some = model.solve(TS, YS, mask, jnp.array([True, True, True, False]), key=KEY)
    same(some.mean, model.encode(TS[:3], YS[:3], mask[:3])[0])
