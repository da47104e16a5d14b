"""What `fit` takes and hands out besides data and losses, and how it refuses what is wrong."""

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import node_jax as nj
from node_jax.train import Counts, progress
from node_jax.train.updates import Row

KEY = jax.random.key(3)
X = np.linspace(-1.0, 1.0, 12)


def line_loss(model, x, key):
    return jnp.mean((model * x - 3.0 * x) ** 2)


def watched_loss(model, x, key):
    return line_loss(model, x, key), Counts(), {"slope": model, "rows": len(x)}


def fit(model=0.0, loss=line_loss, data=X, optimizer=None, **options):
    options = {"updates": 10, "key": KEY, "progress": False} | options
    return nj.fit(jnp.asarray(model, float), loss, data, optimizer or optax.adam(0.1), **options)


def vector_loss(model, x, key):
    return model * x


def complex_loss(model, x, key):
    return model + 1j


def integer_loss(model, x, key):
    return 3


def pair_loss(model, x, key):
    return model, (3, model)


def dict_loss(model, x, key):
    return model, {"slope": model}


def vector_counts_loss(model, x, key):
    return model, Counts(nfe=jnp.zeros(4, int))


def vector_metric_loss(model, x, key):
    return model, Counts(), {"error": x}


def numbered_metric_loss(model, x, key):
    return model, Counts(), {3: model}


def long_loss(model, x, key):
    return model, Counts(), {}, model


def none_loss(model, x, key):
    return None


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (vector_loss, r"loss must return a real scalar, got an array of shape \(12,\) and dtype float64: reduce it"),
        (complex_loss, r"loss must return a real scalar, got .* dtype complex128: take its modulus"),
        (integer_loss, r"loss must return a real scalar, got .* dtype int\d+: it has no gradient"),
        (pair_loss, r"loss must return a scalar or .*, got the second a tuple of 2: 3, an array of shape \(\)"),
        (dict_loss, r"loss must return .*, got the second a dict: put Counts\(\) before the dict"),
        (vector_counts_loss, r"loss, in Counts.nfe, must return a real scalar, got an array of shape \(4,\)"),
        (vector_metric_loss, r"loss, as 'error', must return a real scalar, got an array of shape \(12,\)"),
        (numbered_metric_loss, "loss must return .*, with names as strings, got the third a dict"),
        (long_loss, "loss must return .*, got a tuple of 4"),
        (none_loss, "loss must return a real scalar, got None"),
    ],
)
def test_wrong_loss_is_described_by_its_shape(loss, message):
    with pytest.raises(TypeError, match=message) as caught:
        fit(loss=loss)
    assert "Trace" not in str(caught.value)


def test_wrong_validation_score_is_described_by_its_shape():
    with pytest.raises(TypeError, match=r"validate must return a real scalar, got an array of shape \(3,\)"):
        fit(validate=lambda model: model * jnp.ones(3))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (0, r"key must be a random key such as jax.random.key\(0\), got 0"),
        (np.int64(7), r"key must be a random key such as jax.random.key\(7\), got"),
        (None, "key must be a random key such as .*, got None"),
        (jax.random.split(KEY), r"key must be one random key .*, got an array key<fry>\[2\]"),
        (jnp.zeros(3), r"key must be one random key .*, got an array float\d+\[3\]"),
    ],
)
def test_wrong_key_is_named_with_what_to_give(key, message):
    with pytest.raises(TypeError, match=message):
        fit(key=key)


def test_keys_of_every_kind_are_taken():
    runs = [fit(key=key, updates=2) for key in (jax.random.PRNGKey(0), np.array([0, 0], np.uint32))]
    np.testing.assert_array_equal(runs[0].losses, runs[1].losses)
    fit(key=jax.random.key(0, impl="rbg"), updates=1)


@pytest.mark.parametrize(
    "data",
    [iter([X]), (x for x in X), zip(X, X, strict=True), {"x": map(abs, X)}, (X, range(12)), {1.0, 2.0}],
    ids=["iterator", "generator", "zip", "map in a dict", "range in a tuple", "set"],
)
def test_data_that_must_be_iterated_over_are_refused(data):
    with pytest.raises(TypeError, match=r"data.* must be an array, got .* batch_size=.*opt_state=run.opt_state"):
        fit(data=data)


@pytest.mark.parametrize("optimizer", [optax.adam(0.1), optax.noisy_sgd(0.1, key=0), optax.lbfgs()])
@pytest.mark.parametrize("members", [None, 2])
def test_second_stage_with_the_state_of_the_first_goes_on_as_one(optimizer, members):
    def loss(model, x, key):  # no batches and no random numbers: these begin anew with each stage
        return jnp.sum((model - 1.0) ** 2) + jnp.sum(model**4)

    start = jnp.linspace(0.0, 1.0, 2)
    options = {"key": KEY, "progress": False, "members": members}
    whole = nj.fit(start, loss, X, optimizer, updates=7, **options)
    first = nj.fit(start, loss, X, optimizer, updates=3, **options)
    second = nj.fit(first.model, loss, X, optimizer, updates=4, opt_state=first.opt_state, **options)
    np.testing.assert_array_equal(np.concatenate([first.losses, second.losses]), whole.losses)
    np.testing.assert_array_equal(second.model, whole.model)


def test_gradients_are_accumulated_over_several_updates():
    loss = chex.assert_max_traces(line_loss, n=2)
    plain = fit(loss=loss, optimizer=optax.sgd(0.1), updates=5)
    optimizer = optax.MultiSteps(optax.sgd(0.1), every_k_schedule=2)
    several = fit(loss=loss, optimizer=optimizer, updates=10)
    np.testing.assert_allclose(several.model, plain.model, rtol=1e-6)
    again = fit(loss=loss, model=1.0, optimizer=optimizer, updates=4, opt_state=several.opt_state)
    assert len(again.losses) == 4


def test_an_optimizer_inside_of_multisteps_is_given_the_loss():
    inner = optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=3))
    run = fit(optimizer=optax.MultiSteps(inner, every_k_schedule=2))
    assert run.losses[-1] < run.losses[0]


class Descent:
    """An optimizer with no base class, whose update takes no further arguments."""

    def init(self, params):
        return ()

    def update(self, grads, state, params):
        return jax.tree.map(lambda g: -0.1 * g, grads), state


def test_an_object_with_init_and_update_is_an_optimizer():
    np.testing.assert_array_equal(fit(optimizer=Descent()).losses, fit(optimizer=optax.sgd(0.1)).losses)
    with pytest.raises(TypeError, match=r"optimizer must be an optax optimizer such as .*, got <function adam"):
        fit(optimizer=optax.adam)


def test_state_of_another_optimizer_or_model_is_refused():
    state = fit().opt_state
    with pytest.raises(ValueError, match=r"opt_state must be that of .*: here there is nothing else, in opt_state \[0"):
        fit(optimizer=optax.sgd(0.1), opt_state=state)
    with pytest.raises(ValueError, match=r"opt_state must be .* here there is .*shape \(2,\).*, in opt_state .*\(\)"):
        fit(model=[1.0, 2.0], loss=lambda model, x, key: jnp.sum(model), opt_state=state)
    with pytest.raises(ValueError, match="opt_state must be that of"):
        fit(opt_state=state, members=2, model=[1.0, 2.0])
    with pytest.raises(ValueError, match="in opt_state one array 3"):
        fit(opt_state=3)


def test_metrics_are_kept_by_name():
    run = fit(loss=watched_loss)
    assert sorted(run.metrics) == ["rows", "slope"]
    assert run.metrics["rows"].tolist() == [12] * 10
    np.testing.assert_allclose((run.metrics["slope"] - 3.0) ** 2 * np.mean(X**2), run.losses)
    assert fit().metrics == {}


def test_metrics_of_members_have_their_axis():
    run = fit(model=[0.0, 1.0], loss=watched_loss, members=2)
    assert run.metrics["slope"].shape == (10, 2)
    assert run.metrics["slope"][0].tolist() == [0.0, 1.0]


def test_metrics_are_kept_over_a_resumed_run(tmp_path):
    options = {"loss": watched_loss, "optimizer": optax.adam(0.1), "checkpoint": tmp_path / "c"}
    whole = fit(**options)
    fit(**options, updates=4)
    resumed = fit(**options, resume=True)
    for name, values in whole.metrics.items():
        np.testing.assert_array_equal(resumed.metrics[name], values)
        assert resumed.metrics[name].dtype == values.dtype
    with pytest.raises(nj.train.CheckpointError, match=r"metrics \['rows', 'slope'\], not \[\]"):
        fit(**options | {"loss": line_loss}, updates=12, resume=True)


def test_epochs_count_complete_batches():
    by_epochs, by_updates = fit(updates=None, epochs=3, batch_size=5), fit(updates=6, batch_size=5)
    np.testing.assert_array_equal(by_epochs.losses, by_updates.losses)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"updates": None}, "give either updates or epochs, got updates=None and epochs=None"),
        ({"epochs": 2}, "give either updates or epochs, got updates=10 and epochs=2"),
        ({"updates": None, "epochs": 2}, "epochs=2 needs batch_size, got batch_size=None"),
        ({"updates": None, "epochs": 0, "batch_size": 3}, "epochs must be a positive integer, got 0"),
    ],
)
def test_number_of_updates_is_given_once(options, message):
    with pytest.raises(ValueError, match=message):
        fit(**options)


def test_callback_sees_every_update_and_the_model_after_it():
    seen = []
    run = fit(loss=watched_loss, callback=seen.append)
    assert [update.number for update in seen] == list(range(1, 11))
    np.testing.assert_array_equal([update.loss for update in seen], run.losses)
    np.testing.assert_array_equal([update.model for update in seen[:-1]], run.metrics["slope"][1:])
    np.testing.assert_array_equal([update.metrics["slope"] for update in seen], run.metrics["slope"])
    assert seen[-1].model == run.model
    assert not seen[-1].skipped
    assert not run.stopped_early


@pytest.mark.parametrize("flag", [bool, np.bool_, np.asarray, jnp.asarray])
def test_callback_that_returns_true_ends_the_run(flag, tmp_path):
    run = fit(callback=lambda update: flag(update.number == 4), checkpoint=tmp_path / "c")
    assert run.stopped_early
    assert len(run.losses) == 4
    np.testing.assert_array_equal(fit(checkpoint=tmp_path / "c", resume=True).losses, fit().losses)


@pytest.mark.parametrize("answer", [1, "stop", np.array([True, False])])
def test_callback_that_returns_something_else_is_refused(answer):
    with pytest.raises(TypeError, match="callback must return None, or a bool that says whether to stop, got"):
        fit(callback=lambda update: answer)


def test_callback_of_a_module_gets_the_module():
    mlp = eqx.nn.MLP(1, 1, 4, 1, key=KEY)
    kinds = []

    def loss(model, x, key):
        return jnp.mean(jax.vmap(model)(x[:, None]) ** 2)

    def remember(update):
        kinds.append(type(update.model))

    nj.fit(mlp, loss, X, optax.sgd(0.1), updates=1, key=KEY, callback=remember, progress=False)
    assert kinds == [eqx.nn.MLP]


class Shown:
    """Stand in for a bar."""

    def set_postfix_str(self, text, refresh):
        self.text = text

    def update(self):
        pass


def test_bar_shows_metrics_and_only_what_was_counted():
    tally, shown = progress.Tally([]), Shown()
    row = Row(np.array(0.25), 0, 0, False, 0.25, False, {"slope": np.array(2.0)})
    tally.show(shown, row)
    assert shown.text == "loss=0.25, slope=2"
    tally.show(shown, row._replace(nfe=1200, failed=3, skipped=True, recovered=True))
    assert shown.text == "loss=0.25, slope=2, NFE=1,200, failed=3, skipped=1, went back=1"
    tally.show(shown, row)
    assert shown.text == "loss=0.25, slope=2, failed=3, skipped=1, went back=1"
