"""Losses of the models: their values, samples that are not finite, and training."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import node_jax as nj
from node_jax import train
from node_jax.nn import shapes

KEY = jax.random.key(0)
SHORT = {"steps": nj.Fixed(3), "method": nj.midpoint}
FLOW = nj.nn.CNF(nj.NeuralODE(nj.nn.ConcatSquashField(2, (8,), key=KEY), **SHORT), 2)
LATENT = nj.nn.LatentODE.create(2, 3, 8, key=KEY, **SHORT)
CLASSIFIER = nj.nn.Classifier.create((4,), 3, width=8, key=KEY, **SHORT)


PROCESS = nj.nn.PoissonProcess(
    nj.NeuralODE(nj.nn.MLPField(2, 8, 1, key=KEY), **SHORT),
    eqx.nn.MLP(2, "scalar", 8, 1, final_activation=jax.nn.softplus, key=KEY),
)
TS, YS = jnp.tile(jnp.linspace(0.0, 0.9, 4), (5, 1)), jax.random.normal(KEY, (5, 4, 2))
RECURRENT = nj.nn.ODERNN(2, 8, nj.NeuralODE(nj.nn.MLPField(8, 8, 1, key=KEY), **SHORT), eqx.nn.Linear(8, 3, key=KEY),
                         key=KEY)  # fmt: skip
CASES = {
    "nll": (train.nll, FLOW, jax.random.normal(KEY, (5, 2))),
    "nll, common steps": (functools.partial(train.nll, common_steps=True), FLOW, jax.random.normal(KEY, (5, 2))),
    "elbo": (train.elbo, LATENT, (TS, jax.random.normal(KEY, (5, 4, 2)), jnp.ones((5, 4), bool))),
    "cross_entropy": (train.cross_entropy, CLASSIFIER, (jax.random.normal(KEY, (5, 4)), jnp.arange(5) % 3)),
    "cross_entropy of series": (
        train.cross_entropy,
        RECURRENT,
        ((TS, jax.random.normal(KEY, (5, 4, 2)), jnp.ones((5, 4), bool)), jnp.arange(5) % 3),
    ),
    "point_process": (train.point_process, PROCESS, (TS, jnp.ones((5, 4), bool), jax.random.normal(KEY, (5, 2)))),
    "flow_matching": (train.flow_matching, FLOW, (jax.random.normal(KEY, (5, 2)), jnp.ones((5, 2)))),
}


@eqx.filter_jit
@functools.partial(eqx.filter_value_and_grad, has_aux=True)
def graded(model, loss, batch):
    value, counts, _ = loss(model, batch, KEY)
    return value, counts


def value_and_gradient(name, batch):
    loss, model, _ = CASES[name]
    (value, counts), gradient = graded(model, loss, batch)
    return value, counts, [np.asarray(x) for x in jax.tree.leaves(gradient)]


@pytest.mark.parametrize("name", CASES)
def test_batches_of_numpy_arrays_are_taken(name):
    loss, model, batch = CASES[name]
    numbers = jax.tree.map(np.asarray, batch)
    value, want = loss(model, numbers, KEY)[0], loss(model, batch, KEY)[0]
    np.testing.assert_allclose(value, want, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(lambda key: loss(model, numbers, key)[0])(KEY), want, rtol=1e-12)
    if isinstance(numbers, tuple):
        np.testing.assert_allclose(loss(model, list(numbers), KEY)[0], want, rtol=1e-12)


@pytest.mark.parametrize("beta", [1, np.float32(1), jnp.float32(1)])
def test_padded_series_are_a_batch_as_they_are(beta):
    series = [(ts, np.ones((len(ts), 2))) for ts in (np.linspace(0.0, 1.0, 4), np.array([0.5]))]
    batch = nj.datasets.pad(series)
    value, counts, _ = train.elbo(LATENT, (*batch, batch[2]), KEY, beta=beta)
    assert np.isfinite(value)
    assert int(counts.failed) == 0


def test_series_whose_mask_is_nan_is_counted():
    mask = jnp.ones(YS.shape[:2]).at[1].set(jnp.nan)
    value, counts, _ = train.elbo(LATENT, (TS, YS, mask), KEY)
    assert np.isfinite(value)
    assert int(counts.failed) == 1


def spoiled(batch, row):
    """Put NaN in the first floating leaf of one row; of a series in its values."""
    leaves, structure = jax.tree.flatten(batch)
    i = 1 if len(leaves) > 2 and leaves[1].ndim == 3 else 0
    leaves[i] = leaves[i].at[row].set(jnp.nan)
    return jax.tree.unflatten(structure, leaves)


@pytest.mark.parametrize("name", CASES)
def test_sample_that_is_not_finite_is_counted_and_contributes_nothing(name):
    batch = CASES[name][2]
    value, counts, gradient = value_and_gradient(name, spoiled(batch, 2))
    assert int(counts.failed) == 1
    assert np.isfinite(value)
    other, _, other_gradient = value_and_gradient(name, spoiled(jax.tree.map(lambda x: x.at[2].set(x[0]), batch), 2))
    np.testing.assert_allclose(value, other, rtol=1e-12)
    for x, y in zip(gradient, other_gradient, strict=True):
        assert np.isfinite(x).all()
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-14)


class Wild(eqx.Module):
    """A field that leaves all bounds where its first component is large, and is a network elsewhere."""

    inside: nj.nn.MLPField

    def __call__(self, z, t, theta):
        return self.inside(z, t) + jnp.where(jnp.max(jnp.abs(z)) > 50.0, 1e30 * z**3, jnp.zeros_like(z))


def wild(size):
    field = Wild(nj.nn.MLPField(size, 8, 1, key=KEY))
    return nj.NeuralODE(field, method=nj.bosh3, steps=nj.Adaptive(1e-3, 1e-3), max_steps=32)


def first_two(z):
    return z[:2]


def as_they_are(z):
    return z


ENCODER = nj.nn.ODERNNEncoder(2, 8, 3, wild(8), key=KEY)
FAILING = {
    "nll": (nj.nn.CNF(wild(2), 2, base=nj.datasets.Circles()), CASES["nll"][2].at[2, 0].set(100.0)),
    "elbo": (
        nj.nn.LatentODE(lambda ts, ys, mask: (ys[0], jnp.full_like(ys[0], -1.0)), wild(2), first_two),
        (TS, CASES["elbo"][2][1].at[2, 0, 0].set(100.0)),
    ),
    "cross_entropy": (
        nj.nn.Classifier(as_they_are, wild(4), as_they_are),
        (CASES["cross_entropy"][2][0].at[2, 0].set(100.0), CASES["cross_entropy"][2][1]),
    ),
    "point_process": (
        nj.nn.PoissonProcess(wild(2), lambda z: z[0] ** 2),
        (TS, jnp.ones((5, 4), bool), CASES["point_process"][2][2].at[2, 0].set(100.0)),
    ),
}


@pytest.mark.parametrize("name", FAILING)
def test_finite_sample_whose_solve_fails_is_counted_and_contributes_nothing(name):
    model, batch = FAILING[name]
    loss = CASES[name][0]
    (total, counts), gradient = graded(model, loss, batch)
    (other, _), other_gradient = graded(model, loss, jax.tree.map(lambda x: jnp.delete(x, 2, axis=0), batch))
    assert int(counts.failed) == 1
    if name != "elbo":  # of the latent ODE each sample draws its own numbers
        np.testing.assert_allclose(total, other, rtol=1e-10)
    for x, y in zip(jax.tree.leaves(gradient), jax.tree.leaves(other_gradient), strict=True):
        assert np.isfinite(x).all()
        if name != "elbo":
            np.testing.assert_allclose(x, y, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("spoil", ["solve between points", "width"])
def test_encoder_that_finds_nothing_is_counted_and_has_no_gradient(spoil):
    encoder = ENCODER if spoil == "solve between points" else LATENT.encoder
    model = nj.nn.LatentODE(encoder, LATENT.ode, first_two)
    ts, ys = TS, CASES["elbo"][2][1]
    if spoil == "solve between points":
        model = eqx.tree_at(lambda m: m.encoder.cell.bias, model, replace_fn=lambda x: x * 0)
        field = lambda z, t, theta: jnp.where(t > 5.0, 1e30 * (1 + z**2), -z)  # noqa: E731
        model = eqx.tree_at(lambda m: m.encoder.ode.field, model, field)
        ts = ts.at[2].multiply(20.0)
    else:
        model = eqx.tree_at(lambda m: m.encoder.out.bias, model, jnp.full(6, 1e3))

    (total, counts), gradient = graded(model, train.elbo, (ts, ys))
    assert int(counts.failed) == (1 if spoil == "solve between points" else 5)
    assert np.isfinite(total) == (spoil == "solve between points")
    if np.isfinite(total):
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


def test_penalty_that_is_not_finite_counts_as_failed():
    def steep(z, t, theta):
        return jnp.where(z > 0.5, jnp.full_like(z, 1e25), jnp.zeros_like(z))

    ode = nj.NeuralODE(steep, 0.0, 1e-25, regularizers=(nj.nn.Kinetic(),), **SHORT)
    model = nj.nn.Classifier(as_they_are, ode, as_they_are)
    x = jnp.ones((3, 2), jnp.float32).at[1].set(0.0)
    value, counts, _ = train.cross_entropy(model, (x, jnp.zeros(3, int)), KEY, penalties={"kinetic": 1.0})
    assert int(counts.failed) == 2
    assert np.isfinite(value)


def test_values_are_means_over_samples():
    xs = CASES["nll"][2]
    value, counts, _ = train.nll(FLOW, xs, KEY)
    np.testing.assert_allclose(value, -jnp.mean(jax.vmap(FLOW.log_prob)(xs)), rtol=1e-12)
    assert int(counts.nfe) == 5 * int(FLOW.solve(xs[0]).solution.stats.nfe)
    ts, ys, mask = CASES["elbo"][2]
    value, _, metrics = train.elbo(LATENT, (ts, ys, mask), KEY)
    bound = jax.jit(lambda *row: LATENT.elbo(*row[:-1], key=row[-1]))
    bounds = [bound(*row) for row in zip(ts, ys, mask, jax.random.split(KEY, 5), strict=True)]
    np.testing.assert_allclose(value, -np.mean(bounds), rtol=1e-10)
    np.testing.assert_allclose(metrics["log_likelihood"] - metrics["kl"], -value, rtol=1e-10)
    events, mask, z0 = CASES["point_process"][2]
    log_prob = jax.jit(lambda events, mask, z0: PROCESS.log_prob(events, mask, z0=z0))
    logs = [log_prob(*row) for row in zip(events, mask, z0, strict=True)]
    np.testing.assert_allclose(train.point_process(PROCESS, (events, mask, z0), KEY)[0], -np.mean(logs), rtol=1e-10)
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


@pytest.mark.parametrize("label", [-1, 3])
def test_label_that_is_no_class_is_left_out(label):
    x, labels = CASES["cross_entropy"][2]
    value, counts, _ = train.cross_entropy(CLASSIFIER, (x, labels.at[2].set(label)), KEY)
    keep = jnp.array([0, 1, 3, 4])
    np.testing.assert_allclose(value, train.cross_entropy(CLASSIFIER, (x[keep], labels[keep]), KEY)[0], rtol=1e-12)
    assert int(counts.failed) == 1
    with pytest.raises(TypeError, match="labels must be integers"):
        train.cross_entropy(CLASSIFIER, (x, labels.astype(float)), KEY)


def test_one_value_at_a_time_may_have_a_mask_of_either_shape():
    model = nj.nn.LatentODE.create(1, 3, 8, key=KEY, **SHORT)
    ys = CASES["elbo"][2][1][..., :1]
    wide = train.elbo(model, (TS, ys, jnp.ones((5, 4, 1), bool)), KEY)[0]
    np.testing.assert_allclose(train.elbo(model, (TS, ys[..., 0], jnp.ones((5, 4, 1), bool)), KEY)[0], wide)
    np.testing.assert_allclose(train.elbo(model, (TS, ys[..., 0], jnp.ones((5, 4), bool)), KEY)[0], wide)


def test_sample_that_is_not_finite_does_not_meet_a_singular_base():
    class LogNormal(eqx.Module):
        def log_prob(self, z):
            return jnp.sum(-jnp.log(z) - 0.5 * jnp.log(z) ** 2)

        def sample(self, key):
            return jnp.exp(jax.random.normal(key, (2,)))

    def total(rate):
        model = nj.nn.CNF(nj.NeuralODE(lambda z, t, theta: rate * z, **SHORT), 2, base=LogNormal())
        return train.nll(model, jnp.array([[1.0, 2.0], [jnp.nan, 1.0]]), KEY)[0]

    assert np.isfinite(jax.grad(total)(0.3))


def test_matching_takes_conditions():
    field = nj.nn.ConcatSquashField(2, (8,), key=KEY, condition_size=1)
    model = nj.nn.CNF(nj.NeuralODE(field), 2)
    value, _, _ = train.flow_matching(model, (jnp.zeros((4, 2)), jnp.ones((4, 2)), jnp.ones((4, 1))), KEY)
    assert np.isfinite(value)


def test_penalties_of_a_flow_without_regularizers_are_refused():
    flow = nj.nn.PlanarFlow(2, 4, key=KEY, invert=True)
    with pytest.raises(ValueError, match="penalties need a model with regularizers"):
        train.nll(flow, CASES["nll"][2], KEY, penalties={"kinetic": 1.0})
    with pytest.raises(TypeError, match="common_steps=True needs a CNF, got PlanarFlow"):
        train.nll(flow, CASES["nll"][2], KEY, common_steps=True)


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


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: train.nll(FLOW, [np.zeros(2)] * 5, KEY), "batch must be points .* got a list of 5"),
        (lambda: train.elbo(LATENT, [(np.zeros(3), np.zeros((3, 2)))] * 2, KEY), r"as nj\.datasets\.pad returns them"),
        (
            lambda: train.elbo(LATENT, (TS, YS, jnp.ones((5, 3), bool)), KEY),
            r"mask must have the shape .* got \(5, 3\)",
        ),
        (lambda: train.cross_entropy(None, (np.zeros((5, 2)), np.zeros((5, 1), int)), KEY), r"labels .* got \(5, 1\)"),
        (lambda: train.nll(FLOW, np.zeros((0, 2)), KEY), "samples, at least 1"),
        (lambda: train.nll(FLOW, (np.zeros((4, 2)), np.zeros((3, 2))), KEY), r"leading axis .* \[\(4, 2\), \(3, 2\)\]"),
        (lambda: train.nll(FLOW, np.float64(1.0), KEY), "batch must be points"),
        (lambda: train.elbo(LATENT, (TS,), KEY), "batch must be times, values and a mask"),
        (lambda: train.cross_entropy(CLASSIFIER, (np.zeros((4, 4)),) * 3, KEY), "a pair of samples and labels"),
        (lambda: train.cross_entropy(CLASSIFIER, (np.zeros((4, 4)), np.zeros(3, int)), KEY), "leading axis"),
        (lambda: train.point_process(PROCESS, (TS, jnp.ones((5, 4, 1), bool), jnp.ones((5, 2))), KEY), r"\(5, 4, 1\)"),
        (lambda: train.point_process(PROCESS, (TS, jnp.ones((5, 4), bool), jnp.ones((4, 2))), KEY), "leading axis"),
        (lambda: train.flow_matching(FLOW, (np.zeros((4, 2)), np.zeros((1, 2))), KEY), "x0 and x1 must have one shape"),
        (lambda: train.flow_matching(FLOW, np.ones(4), KEY), "x0 and x1 must have one shape"),
        (lambda: LATENT.predict(TS[0], YS[0].at[1].set(jnp.nan), None, TS[0]), "ys must not be NaN where mask is true"),
        (lambda: LATENT.predict(TS[0], YS[0], None, 0.5), r"times must have shape \(n,\), n >= 1, got \(\)"),
        (lambda: LATENT.predict(TS[0], YS[0], None, np.zeros(0)), r"times must have shape \(n,\), n >= 1, got \(0,\)"),
        (lambda: shapes.shaped_state("x", [0.0, 1.0], (2,)), r"x must be one array of shape \(2,\), got a list"),
        (lambda: FLOW.log_prob(np.zeros(3)), r"x must have shape \(2,\), got \(3,\)$"),
    ],
)
def test_arguments_of_another_form_are_named(call, word):
    with pytest.raises((TypeError, ValueError), match=word):
        call()
