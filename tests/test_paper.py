"""The experiments of the paper, as small as they go: they run, go on where they were stopped, and store results."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import node_jax as nj
from benchmarks.paper import derivations, events, flows, images, joint_events, latent, storage, vowels


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(storage, "SCRATCH", tmp_path / "scratch")


def test_what_is_stored_is_not_computed_again():
    calls = []

    def compute():
        calls.append(1)
        return {"value": 3}

    assert storage.kept("some", "run", compute) == storage.kept("some", "run", compute) == {"value": 3}
    assert len(calls) == 1
    assert storage.runs_of("some")["run"]["machine"]["jax"]


def test_derivations_hold(monkeypatch):
    monkeypatch.setattr(derivations, "STEPS", (10, 100))
    assert derivations.euler_is_a_residual_network()["one_step_is_the_block"]
    found = derivations.one_system_gives_the_gradient(4)
    assert found["transposed_against_reverse"] < 1e-13
    assert found["forward_against_reverse"] < 1e-13


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("model", latent.MODELS)
def test_series_are_predicted_beyond_their_window(model, monkeypatch):
    monkeypatch.setattr(latent, "RATES", (1e-2,))
    monkeypatch.setattr(latent, "STARTS", 1)
    result = latent.run_one(10, 0.1, 0, model, updates=2)
    assert np.isfinite(result["beyond"])
    assert np.isfinite(result["inside"]) == (model == "latent")


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("kind", flows.TRAINED)
def test_density_is_matched(kind, monkeypatch):
    monkeypatch.setattr(flows, "CHUNK", 100)
    monkeypatch.setattr(flows, "BATCH", 16)
    monkeypatch.setattr(flows, "divergence", functools.partial(flows.divergence, batches=1, count=100))
    result = flows.match("ring", kind, 2, "run", 100 if kind == "planar" else 2)
    assert np.isfinite(result["kl"])
    assert result["kl"] > -4 * result["kl_error"]


@pytest.mark.usefixtures("float32")
def test_divergence_of_a_flow_from_its_own_density_is_zero():
    flow = nj.nn.CNF(nj.NeuralODE(nj.nn.PlanarField(2, 4, key=jax.random.key(0)), steps=nj.Fixed(20)), 2)
    away = lambda z: 0.5 * jnp.sum((z - 1) ** 2)  # noqa: E731
    still = eqx.tree_at(lambda flow: flow.ode.field.fixed.u, flow, jnp.zeros((4, 2)))
    np.testing.assert_allclose(flows.divergence(flow, lambda x: -flow.log_prob(x), 2, 500)[0], 0.0, atol=1e-4)
    kl, error = flows.divergence(still, away, 4, 1000)
    np.testing.assert_allclose(kl, 1.0, atol=4 * error)
    np.testing.assert_allclose(error, (2 / 4000) ** 0.5, rtol=0.1)  # the logarithm of the ratio has a variance of 2


def test_factor_of_an_energy_is_its_integral():
    normal = lambda z: 0.5 * jnp.sum(z**2)  # noqa: E731
    np.testing.assert_allclose(flows.log_factor(normal, 400), np.log(2 * np.pi), rtol=1e-6)


@pytest.mark.usefixtures("float32")
def test_likelihood_is_measured_against_the_entropy(monkeypatch):
    monkeypatch.setattr(flows, "UPDATES", 2)
    monkeypatch.setattr(flows, "POINTS", 16)
    result = flows.likely("moons", "planar flow, 64 layers", "run")
    assert result["nats"] > result["entropy"]


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("kind", ["ODE-Net", "ResNet"])
def test_images_are_classified(kind, monkeypatch):
    monkeypatch.setattr(images, "BATCH", 16)
    monkeypatch.setattr(images, "BLOCKS", 1)
    every = nj.datasets.digits()
    some = nj.datasets.Images(every.x[:32], every.labels[:32])
    result = images.run_one(images.Images(some, some), images.Training(kind, 4, 0, 1, shift=1), kind)
    assert 0.0 <= result["error"] <= 1.0
    assert result["memory"] > 0
    assert result["history"][0]["epoch"] == 1
    assert (result.get("nfe_back", 0.0) > 0.0) == (kind == "ODE-Net")


def test_images_are_moved_by_at_most_some_pixels_each_way():
    x = jnp.full((50, 1, 7, 7), -1.0).at[:, 0, 3, 3].set(1.0)
    places = jnp.argwhere(images.moved(x, 2, jax.random.key(0)) == 1.0)
    assert places[:, 0].tolist() == list(range(50))
    assert {*places[:, 2:].ravel().tolist()} == {1, 2, 3, 4, 5}


def utterances(count):
    random, speakers = np.random.default_rng(0), np.arange(count, dtype=np.int32) % vowels.SPEAKERS
    lengths = random.integers(4, 7, count)
    series = [random.normal(who, 0.1, (n, 2)).astype(np.float32) for who, n in zip(speakers, lengths, strict=True)]
    return vowels.Utterances(series, speakers)


def test_a_larger_part_drops_the_points_of_a_smaller_one_too():
    few, many = (vowels.thinned(utterances(9).series, part, 0) for part in (0.3, 0.7))
    assert all(set(more[0]) < set(less[0]) for more, less in zip(many, few, strict=True))


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("kind", vowels.KINDS)
def test_speakers_are_told_apart(kind):
    result = vowels.run_one(utterances(36), 27, kind, 0.5, 0, vowels.Choice(4, 1e-2, 2), kind)
    assert 0.0 <= result["accuracy"] <= 1.0
    assert np.isfinite(result["entropy"])
    assert ("changed_by_finer_steps" in result) == (kind == "ODE-RNN")


def test_choice_is_the_best_of_each_model_with_one_number_of_updates():
    def row(kind, width, updates, accuracy):
        numbers = {"accuracies": [accuracy], "entropies": [1.0]}
        return {"kind": kind, "width": width, "rate": 0.1, "updates": updates, **numbers}

    tried = [row("ODE-RNN", 8, 10, 0.6), row("ODE-RNN", 16, 10, 0.7), row("GRU", 8, 10, 0.5), row("GRU", 16, 10, 0.4)]
    tried += [row("ODE-RNN", 8, 20, 0.8), row("GRU", 8, 20, 0.3)]
    assert vowels.chosen(tried) == {"ODE-RNN": vowels.Choice(16, 0.1, 10), "GRU": vowels.Choice(8, 0.1, 10)}


@pytest.mark.parametrize("name", events.KNOWN)
def test_density_of_events_is_that_in_closed_form(name):
    known = events.KNOWN[name]
    ts, mask = events.thinned(known, 4, jax.random.key(0))
    solved = jax.jit(jax.vmap(lambda t, m: events.clocked(known).log_prob(t, m, z0=jnp.zeros(()))))(ts, mask)
    np.testing.assert_allclose(solved, events.log_probs(known, ts, mask), rtol=1e-4)


def test_standard_error_of_a_constant_intensity_is_that_of_a_mean():
    found = events.sampling_error(events.KNOWN["constant"], 200)
    np.testing.assert_allclose(found, np.sqrt(3.0 / (200 * events.END)), rtol=1e-6)


@pytest.mark.usefixtures("float32")
def test_later_events_are_predicted_with_the_true_model(monkeypatch):
    for name, value in {"TRAIN_SERIES": 8, "TEST_SERIES": 6, "JOINT_BATCH": 4, "DRAWS": 2, "PARTICLES": 500}.items():
        monkeypatch.setattr(joint_events, name, value)
    ways = joint_events.run_joint("references", 1.0, 0, updates=(2, 2))["ways"]
    assert np.all(np.isfinite([way["nats"] for way in ways.values()]))
    assert ways["truth"]["correlation_beyond"] > 0.999
