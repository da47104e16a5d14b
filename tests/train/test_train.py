"""The training loop: what it learns, skips, keeps, and takes up again."""

import os
import signal
import subprocess
import sys
import textwrap

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import node_jax as nj
from node_jax.train import Counts, arguments, squared_error

KEY = jax.random.key(3)


class Line(eqx.Module):
    """The smallest model."""

    a: jax.Array
    b: jax.Array

    def __call__(self, x):
        return self.a * x + self.b


X = np.linspace(-1.0, 1.0, 12)
DATA = (X, 3.0 * X - 1.0)


def line(a=0.0, b=0.0):
    return Line(jnp.array(a), jnp.array(b))


def line_loss(model, data, key):
    x, y = data
    return jnp.mean((model(x) - y) ** 2)


def noisy_loss(model, data, key):
    return line_loss(model, data, key) + 0.1 * model.a * jax.random.normal(key)


def counted_loss(model, data, key):
    return line_loss(model, data, key), Counts(nfe=7, failed=1)


def root_loss(model, data, key):
    """NaN as soon as `a` is negative."""
    return jnp.sqrt(model.a) + 0.0 * jnp.sum(data[0])


def cliff_loss(model, data, key):
    """Descends for ever."""
    return model.a


def distance(model):
    return (model.a + 0.25) ** 2


def decay(z, t, rate):
    return -rate * z


def fit(model=None, loss=line_loss, optimizer=None, **options):
    options = {"updates": 20, "key": KEY, "progress": False} | options
    return nj.fit(model or line(), loss, DATA, optimizer or optax.adam(0.1), **options)


def test_fit_finds_the_line():
    run = fit(updates=400)
    np.testing.assert_allclose([run.model.a, run.model.b], [3.0, -1.0], atol=1e-3)
    assert run.losses.shape == run.nfe.shape == run.failed.shape == run.skipped.shape == (400,)
    assert run.best_update == 400
    assert not run.stopped_early


def test_fit_learns_the_rate_of_a_decay():
    def loss(model, data, key):
        z0, z1 = data
        return squared_error(jax.vmap(model.solve)(z0), z1)

    z0 = jnp.linspace(0.5, 2.0, 4)
    data = (z0, z0 * np.exp(-1.3))
    model = nj.NeuralODE(decay, theta=jnp.array(0.2))
    run = nj.fit(model, loss, data, optax.adam(0.1), updates=150, key=KEY, progress=False)
    np.testing.assert_allclose(run.model.theta, 1.3, atol=1e-3)
    assert (run.nfe >= 4 * 7).all()
    assert run.failed.sum() == 0


def test_loss_is_traced_once_for_two_runs_with_the_same_optimizer():
    chex.clear_trace_counter()
    loss, optimizer = chex.assert_max_traces(line_loss, n=1), optax.adam(0.2)
    fit(loss=loss, updates=5, optimizer=optimizer)
    fit(line(1.0, 1.0), loss=loss, updates=3, optimizer=optimizer)


def test_batches_of_an_epoch_are_all_rows_in_another_order_each_epoch():
    seen = []

    def loss(model, data, key):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), data[0])
        return line_loss(model, data, key)

    fit(loss=loss, updates=6, batch_size=4)
    jax.effects_barrier()
    first, second = np.concatenate(seen[:3]), np.concatenate(seen[3:6])  # a seventh look is at the last model
    np.testing.assert_array_equal(np.sort(first), X)
    np.testing.assert_array_equal(np.sort(second), X)
    assert (first != second).any()


def test_update_that_is_not_finite_is_skipped_counted_and_said():
    with pytest.warns(UserWarning, match="of 20 updates were skipped, first update"):
        run = fit(line(a=0.3), root_loss, optax.sgd(0.2))
    assert run.skipped.any()
    assert np.isfinite(run.model.a)
    np.testing.assert_array_equal(run.skipped, np.isnan(run.losses))


def test_failed_solves_are_counted_and_said():
    with pytest.warns(UserWarning, match="not valid 20 times, in 20 of 20 updates"):
        run = fit(loss=counted_loss)
    assert run.failed.sum() == 20
    assert run.nfe.tolist() == [7] * 20


def test_failed_lane_leaves_the_gradient_of_the_others_alone():
    z0, targets = jnp.array([1.0, jnp.nan, 2.0]), jnp.array([0.5, 0.5, 0.5])

    def loss(rate, rows):
        sol = jax.vmap(lambda z0: nj.odesolve(decay, z0, 0.0, 1.0, rate, method=nj.heun))(z0[rows])
        return squared_error(sol, targets[rows])

    (value, counts), slope = jax.value_and_grad(loss, has_aux=True)(1.0, jnp.array([0, 1, 2]))
    (clean, _), clean_slope = jax.value_and_grad(loss, has_aux=True)(1.0, jnp.array([0, 2]))
    assert int(counts.failed) == 1
    np.testing.assert_allclose([value, slope], [clean, clean_slope], rtol=1e-12)


def test_weights_choose_the_times_that_count():
    sol = nj.odesolve(decay, jnp.ones(2), 0.0, 1.0, 0.0, save=nj.SaveAt(jnp.array([0.0, 0.5, 1.0])))
    targets = jnp.array([[0.0, 1.0], [1.0, 1.0], [9.0, 9.0]])
    value, _ = squared_error(sol, targets, jnp.array([3.0, 1.0, 0.0]))
    np.testing.assert_allclose(value, 3.0 / 8.0)
    with pytest.raises(ValueError, match="weights must have leading axes"):
        squared_error(sol, targets, jnp.ones(2))


def test_members_of_an_ensemble_train_as_if_alone():
    alone = [fit(line(a, 0.0)) for a in (0.0, 5.0)]
    ensemble = Line(jnp.array([0.0, 5.0]), jnp.zeros(2))
    run = fit(ensemble, members=2)
    assert run.losses.shape == (20, 2)
    for i, single in enumerate(alone):
        np.testing.assert_allclose(run.losses[:, i], single.losses, rtol=1e-10)
        np.testing.assert_allclose(run.model.a[i], single.model.a, rtol=1e-10)


def test_only_the_member_that_is_not_finite_is_skipped():
    ensemble = Line(jnp.array([0.3, 30.0]), jnp.zeros(2))
    with pytest.warns(UserWarning, match="of 40 updates were skipped"):
        run = fit(ensemble, root_loss, optax.sgd(0.2), members=2)
    assert run.skipped[:, 0].any()
    assert not run.skipped[:, 1].any()
    assert run.model.a[1] < 30.0


def test_tolerances_given_as_arrays_are_not_trained():
    steps = nj.Adaptive(rtol=jnp.array(1e-4), atol=jnp.array(1e-6))
    model = nj.NeuralODE(decay, theta=jnp.array(0.5), steps=steps)

    def loss(model, data, key):
        return model(jnp.ones(())) ** 2

    run = nj.fit(model, loss, None, optax.adamw(0.1, weight_decay=0.5), updates=3, key=KEY, progress=False)
    assert float(run.model.steps.rtol) == 1e-4
    assert float(run.model.theta) != 0.5


def test_patience_stops_and_returns_the_best_model():
    run = fit(
        loss=cliff_loss,
        optimizer=optax.sgd(0.05),
        updates=200,
        validate=distance,
        validate_every=1,
        patience=6,
    )
    assert run.stopped_early
    assert len(run.losses) == 5 + 7
    assert run.best_update == 5
    np.testing.assert_allclose(run.model.a, -0.25, atol=1e-12)


def test_scores_are_measured_every_so_often():
    run = fit(updates=9, validate=distance, validate_every=3)
    np.testing.assert_array_equal(np.isfinite(run.scores), [False, False, True] * 3)


def test_patience_without_validation_looks_at_the_loss():
    run = fit(loss=line_loss, optimizer=optax.sgd(0.0), updates=50, patience=4)
    assert run.stopped_early
    assert run.best_update == 0
    assert len(run.losses) == 5


def test_finished_run_resumes_to_itself_and_further(tmp_path):
    path = tmp_path / "run" / "fit.checkpoint"
    options = {"loss": noisy_loss, "batch_size": 5, "optimizer": optax.adam(0.1), "checkpoint": path}
    whole = fit(**options | {"checkpoint": None}, updates=30)
    fit(**options, updates=17)
    run = fit(**options, updates=30, resume=True)
    np.testing.assert_array_equal(run.losses, whole.losses)
    assert float(run.model.a) == float(whole.model.a)
    again = fit(**options, updates=30, resume=True)
    np.testing.assert_array_equal(again.losses, whole.losses)
    assert os.listdir(path.parent) == [path.name]


def test_stopped_run_stays_stopped_when_resumed(tmp_path):
    options = {"loss": line_loss, "optimizer": optax.sgd(0.0), "patience": 4, "checkpoint": tmp_path / "c"}
    first, again = fit(**options), fit(**options, resume=True)
    assert again.stopped_early
    np.testing.assert_array_equal(again.losses, first.losses)


SCRIPT = textwrap.dedent(
    """
    import os, signal, sys
    import jax, jax.numpy as jnp, numpy as np, optax
    import node_jax as nj
    from node_jax.train import checkpoint

    folder, when = sys.argv[1], sys.argv[2]
    replace, fsync = os.replace, os.fsync

    def killed_replace(source, target):
        replace(source, target)
        killed_replace.left -= 1
        if killed_replace.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def killed_fsync(file):
        killed_fsync.left -= 1
        if killed_fsync.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    killed_replace.left = killed_fsync.left = 3
    if when == "after":
        os.replace = killed_replace
    elif when == "during":
        os.fsync = killed_fsync

    def loss(model, batch, key):
        z0 = batch + 0.1 * jax.random.normal(key, batch.shape)
        return nj.train.squared_error(jax.vmap(model.solve)(z0), 2 * batch)

    def field(z, t, theta):
        return jnp.tanh(theta * z)

    model = nj.NeuralODE(field, theta=jnp.array([0.1, 0.2]), method=nj.heun, steps=nj.Fixed(5))
    data = jax.random.normal(jax.random.key(1), (10, 2))
    run = nj.fit(model, loss, data, optax.adam(1e-2), updates=24, key=jax.random.key(2), batch_size=4,
                 patience=1000, checkpoint=folder + "/c", every=4, resume=when == "resume", progress=False)
    weights = np.concatenate([np.ravel(x) for x in [run.model.theta]])
    np.savez(folder + "/done.npz", losses=run.losses, nfe=run.nfe, weights=weights)
    """
)


def script(folder, when):
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", SCRIPT, str(folder), when]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    done = script(folder, "never")
    assert done.returncode == 0, done.stderr
    return np.load(folder / "done.npz")


@pytest.mark.parametrize("when", ["after", "during"])
def test_a_killed_run_resumes_to_the_same_losses_bit_for_bit(tmp_path, when, whole):
    killed = script(tmp_path / "killed", when)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "killed" / "done.npz").exists()
    resumed = script(tmp_path / "killed", "resume")
    assert resumed.returncode == 0, resumed.stderr
    assert sorted(os.listdir(tmp_path / "killed")) == ["c", "done.npz"]
    got = np.load(tmp_path / "killed" / "done.npz")
    for name in ("losses", "nfe", "weights"):
        np.testing.assert_array_equal(got[name], whole[name])


def test_checkpoint_holds_no_pickle(tmp_path):
    path = tmp_path / "c"
    fit(checkpoint=path)
    checksum = 8  # bytes, after the arrays
    with path.open("rb") as file:
        file.readline()
        while len(file.peek(checksum + 1)) > checksum:
            np.load(file, allow_pickle=False)


def test_checkpoint_of_another_run_is_refused_with_the_reason(tmp_path):
    path = tmp_path / "c"
    fit(checkpoint=path)
    with pytest.raises(nj.train.CheckpointError, match="key="):
        fit(checkpoint=path, resume=True, key=jax.random.key(4))
    with pytest.raises(nj.train.CheckpointError, match="batch_size=None, not 3"):
        fit(checkpoint=path, resume=True, batch_size=3)
    with pytest.raises(nj.train.CheckpointError, match="other arrays"):
        fit(checkpoint=path, resume=True, optimizer=optax.sgd(0.1))
    path.write_bytes(b"\x00nonsense")
    with pytest.raises(nj.train.CheckpointError, match="not a file that this version"):
        fit(checkpoint=path, resume=True)


def test_resume_without_a_file_starts_from_the_beginning(tmp_path):
    run = fit(checkpoint=tmp_path / "c", resume=True)
    np.testing.assert_array_equal(run.losses, fit().losses)


def test_bar_shows_loss_evaluations_and_time_left(capsys):
    fit(loss=lambda *inputs: (line_loss(*inputs), Counts(11, 0)), progress="line")
    shown = capsys.readouterr().err
    assert "line" in shown
    assert "loss=" in shown
    assert "NFE=11" in shown
    assert "20/20" in shown


def test_run_without_tqdm_says_so_and_goes_on(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    assert len(fit(progress=True).losses) == 20
    assert "needs tqdm" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "value"), [("loss", 3), ("optimizer", "adam"), ("validate", 0.1), ("callback", 7)])
def test_argument_of_the_wrong_type_is_named_without_a_type_checker(name, value):
    things = {"loss": line_loss, "optimizer": optax.sgd(0.1), "validate": None, "callback": None, "checkpoint": None}
    with pytest.raises(TypeError, match=f"{name} must be .*, got {value!r}"):
        arguments.check_things(**things | {name: value}, resume=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"updates": 0}, "updates must be a positive integer, got 0"),
        ({"every": -1}, "every must be a positive integer, got -1"),
        ({"patience": 0}, "patience must be a positive integer or None, got 0"),
        ({"batch_size": 13}, "batch_size must be at most the 12 rows of data, got 13"),
        ({"members": 2}, "members=2: model.a must have that leading axis"),
        ({"resume": True}, "resume=True needs checkpoint=path"),
        ({"loss": lambda model, data, key: model(data[0])}, "loss must return a real scalar"),
        ({"loss": lambda model, data, key: (model.a, 3)}, "loss must return a scalar or"),
        ({"model": {"a": 1}}, "model has no floating array to train"),
    ],
)
def test_wrong_argument_is_named(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fit(**options)


def target_loss(model, target, key):
    return jnp.sum((model - target) ** 2)


def test_a_fit_prints_as_one_line():
    fitted = nj.fit(jnp.zeros(2), target_loss, jnp.ones(2), optax.sgd(0.25), updates=3, key=KEY, progress=False)
    assert str(fitted) == repr(fitted) == "Fit: 3 updates, loss 2 to 0.125"
    best = fitted._replace(best_update=np.asarray(2), skipped=np.array([False, True, False]))
    assert str(best) == "Fit: 3 updates, loss 2 to 0.125, best update 2, 1 skipped"
    both = fitted._replace(best_update=np.array([1, 3]))
    assert str(both) == "Fit: 3 updates, loss 2 to 0.125, best update 1 to 3"
