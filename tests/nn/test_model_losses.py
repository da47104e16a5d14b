"""Losses of the models: their values, samples that are not finite, and training."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import node_jax as nj
from node_jax import train

KEY = jax.random.key(0)
SHORT = {"steps": nj.Fixed(3), "method": nj.midpoint}
FLOW = nj.nn.CNF(nj.NeuralODE(nj.nn.ConcatSquashField(2, (8,), key=KEY), **SHORT), 2)
LATENT = nj.nn.LatentODE.create(2, 3, 8, key=KEY, **SHORT)
CLASSIFIER = nj.nn.Classifier.create((4,), 3, width=8, key=KEY, **SHORT)


PROCESS = nj.nn.PoissonProcess(
    nj.NeuralODE(nj.nn.MLPField(2, 8, 1, key=KEY), **SHORT),
    eqx.nn.MLP(2, "scalar", 8, 1, final_activation=jax.nn.softplus, key=KEY),
)
TS = jnp.tile(jnp.linspace(0.0, 0.9, 4), (5, 1))
CASES = {
    "nll": (train.nll, FLOW, jax.random.normal(KEY, (5, 2))),
    "elbo": (train.elbo, LATENT, (TS, jax.random.normal(KEY, (5, 4, 2)), jnp.ones((5, 4), bool))),
    "cross_entropy": (train.cross_entropy, CLASSIFIER, (jax.random.normal(KEY, (5, 4)), jnp.arange(5) % 3)),
    "point_process": (train.point_process, PROCESS, (TS, jnp.ones((5, 4), bool), jax.random.normal(KEY, (5, 2)))),
    "flow_matching": (train.flow_matching, FLOW, (jax.random.normal(KEY, (5, 2)), jnp.ones((5, 2)))),
}


def value_and_gradient(name, batch):
    loss, model, _ = CASES[name]

    def value(model):
        value, counts, metrics = loss(model, batch, KEY)
        return value, (counts, metrics)

    (value, (counts, metrics)), gradient = eqx.filter_value_and_grad(value, has_aux=True)(model)
    return value, counts, metrics, [np.asarray(x) for x in jax.tree.leaves(gradient)]


def spoiled(batch, row):
    """Put NaN in the first floating leaf of one row; of a series in its values."""
    leaves, structure = jax.tree.flatten(batch)
    i = 1 if len(leaves) == 3 and leaves[1].ndim == 3 else 0
    leaves[i] = leaves[i].at[row].set(jnp.nan)
    return jax.tree.unflatten(structure, leaves)


@pytest.mark.parametrize("name", CASES)
def test_sample_that_is_not_finite_is_counted_and_contributes_nothing(name):
    batch = CASES[name][2]
    value, counts, _, gradient = value_and_gradient(name, spoiled(batch, 2))
    assert int(counts.failed) == 1
    assert np.isfinite(value)
    other, _, _, other_gradient = value_and_gradient(name, spoiled(jax.tree.map(lambda x: x.at[2].set(x[0]), batch), 2))
    np.testing.assert_allclose(value, other, rtol=1e-12)
    for x, y in zip(gradient, other_gradient, strict=True):
        assert np.isfinite(x).all()
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-14)


def test_values_are_means_over_samples():
    xs = CASES["nll"][2]
    value, counts, _ = train.nll(FLOW, xs, KEY)
    np.testing.assert_allclose(value, -jnp.mean(jax.vmap(FLOW.log_prob)(xs)), rtol=1e-12)
    assert int(counts.nfe) == 5 * int(FLOW.solve(xs[0]).solution.stats.nfe)
    x, labels = CASES["cross_entropy"][2]
    value, _, metrics = train.cross_entropy(CLASSIFIER, (x, labels), KEY)
    logits = jax.vmap(CLASSIFIER)(x)
    expected = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(metrics["accuracy"], jnp.mean(jnp.argmax(logits, axis=1) == labels))


def test_penalties_are_added_with_their_weights_and_must_be_there():
    model = nj.nn.CNF(dataclasses.replace(FLOW.ode, regularizers=(nj.nn.Kinetic(),)), 2)
    xs = CASES["nll"][2]
    plain, _, metrics = train.nll(model, xs, KEY)
    total, _, _ = train.nll(model, xs, KEY, penalties={"kinetic": 0.5})
    np.testing.assert_allclose(total, plain + 0.5 * metrics["kinetic"], rtol=1e-12)
    with pytest.raises(ValueError, match=r"penalties must name regularizers of the model, \['kinetic'\], got \['x'\]"):
        train.nll(model, xs, KEY, penalties={"x": 1.0})


def test_planar_flow_is_trained_by_the_same_loss():
    flow = nj.nn.PlanarFlow(2, 4, key=KEY, invert=True)
    value, counts, _ = train.nll(flow, CASES["nll"][2], KEY)
    assert np.isfinite(value)
    assert int(counts.failed) == 0


def test_matching_takes_the_first_points_from_the_base_or_refuses():
    value, _, _ = train.flow_matching(FLOW, jnp.ones((64, 2)), KEY)
    assert np.isfinite(value)
    with pytest.raises(TypeError, match=r"needs a pair \(x0, x1\)"):
        train.flow_matching(FLOW.ode, jnp.ones((64, 2)), KEY)


def test_matching_is_zero_for_the_field_that_moves_all_points_alike():
    model = nj.NeuralODE(lambda z, t, theta: jnp.full_like(z, 1.5), 0.0, 2.0)
    x0 = jax.random.normal(KEY, (16, 2))
    value, _, _ = train.flow_matching(model, (x0, x0 + 3.0), KEY)
    np.testing.assert_allclose(value, 0.0, atol=1e-20)


@pytest.mark.parametrize("name", CASES)
def test_models_train_on_with_a_sample_that_is_not_finite(name):
    loss, model, batch = CASES[name]
    with pytest.warns(UserWarning, match="failed"):
        run = nj.fit(model, loss, spoiled(batch, 2), optax.adam(0.01), updates=15, key=KEY, progress=False)
    assert np.isfinite(run.losses).all()
    assert not run.skipped.any()
    assert (run.failed == 1).all()
    assert run.losses[-3:].mean() < run.losses[:3].mean()


def test_what_is_frozen_stays():
    model = (nj.nn.Frozen(jnp.array(2.0)), jnp.array(1.0))

    def loss(model, data, key):
        return (model[0].value * model[1] - 1.0) ** 2

    run = nj.fit(model, loss, jnp.zeros(1), optax.adamw(0.1, weight_decay=0.5), updates=5, key=KEY, progress=False)
    assert float(run.model[0].value) == 2.0
    assert float(run.model[1]) != 1.0
