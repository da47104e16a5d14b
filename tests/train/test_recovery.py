"""What training does where the loss is not finite: skip, go back, give up; and what it says about it."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import node_jax as nj
from node_jax.train import Counts, recovery

KEY = jax.random.key(3)
TARGET, CLIFF = 0.4, 0.5


class Point(eqx.Module):
    """One number to train."""

    a: jax.Array


def point(a):
    return Point(jnp.asarray(a, float))


def cliff_loss(model, data, key):
    """A parabola that ends a little beyond its minimum."""
    return jnp.where(model.a < CLIFF, (model.a - TARGET) ** 2, jnp.nan)


def sum_loss(model, data, key):
    """NaN on a batch with a NaN."""
    return (model.a - 1.0) ** 2 + 0.0 * jnp.sum(data)


def never_loss(model, data, key):
    return jnp.nan * model.a, Counts(nfe=5, failed=2)


def counted_cliff(model, data, key):
    return cliff_loss(model, data, key), Counts(nfe=5, failed=1)


def noisy_cliff(model, data, key):
    return cliff_loss(model, data, key) + 1e-3 * model.a * jax.random.normal(key)


def overflowing_loss(model, data, key):
    """Its gradient is finite at a = 1, the square of it is not."""
    return 1e200 * model.a**2


def poisoned_loss(model, data, key):
    """Its gradient is NaN from 0.5 on, the loss itself is finite."""
    return (model.a - TARGET) ** 2 + 0.0 * jnp.sqrt(jnp.maximum(CLIFF - model.a, 0.0))


def fit(model, loss, optimizer=None, data=None, **options):
    options = {"updates": 60, "key": KEY, "progress": False} | options
    return nj.fit(model, loss, data, optimizer or optax.adam(0.3), **options)


@pytest.fixture
def overshoot():
    """A run whose second update leaves the domain of its loss."""
    with pytest.warns(UserWarning, match="training went back"):
        return fit(point(0.1), cliff_loss, updates=150)


def test_overshoot_goes_back_and_still_finds_the_minimum(overshoot):
    np.testing.assert_allclose(overshoot.model.a, TARGET, atol=0.01)
    assert overshoot.recovered.sum() >= 1
    assert overshoot.best_update == 150
    assert not overshoot.stopped_early


def test_going_back_takes_three_failures_in_a_row(overshoot):
    first = int(np.argmax(overshoot.skipped))
    assert overshoot.skipped[first : first + recovery.TRIES].all()
    np.testing.assert_array_equal(
        overshoot.recovered[: first + recovery.TRIES], [False] * (first + recovery.TRIES - 1) + [True]
    )
    assert overshoot.losses[first + recovery.TRIES] == overshoot.losses[first - 1]


def test_blow_up_of_a_solve_does_not_end_a_fit():
    def loss(model, data, key):
        return jnp.mean((model.trajectory(jnp.array(1.0), ts) - data) ** 2)

    ts = jnp.linspace(0.0, 2.0, 9)
    model = nj.NeuralODE(lambda z, t, a: a * z**2, theta=jnp.array(0.1), max_steps=256)
    with pytest.warns(UserWarning, match="went back"):
        run = fit(model, loss, data=1 / (1 - 0.4 * ts), updates=200)
    assert np.isfinite(loss(run.model, 1 / (1 - 0.4 * ts), KEY))
    assert abs(run.model.theta - 0.4) < 0.05
    assert run.skipped.sum() < 20


@pytest.mark.parametrize("updates", range(1, 9))
def test_returned_model_has_a_finite_loss_whenever_the_run_ends(updates):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = fit(point(0.1), cliff_loss, updates=updates)
    assert len(run.losses) == updates
    assert np.isfinite(cliff_loss(run.model, None, KEY))


def test_last_model_that_is_not_finite_is_said_with_the_one_returned():
    with pytest.warns(UserWarning, match="the last update left the model with a loss or gradient that is not finite"):
        run = fit(point(0.1), cliff_loss, updates=2)
    assert run.best_update == 1
    assert not run.skipped.any()
    again = fit(run.model, cliff_loss, optax.adam(0.01), updates=1)
    assert again.losses[0] == run.losses[1]


def test_optimizer_of_a_model_that_was_fallen_back_to_is_cleared():
    with pytest.warns(UserWarning, match="the last good model is returned"):
        run = fit(point(0.1), cliff_loss, updates=2)
    assert int(run.opt_state[0].count) == 0


def test_each_member_recovers_as_if_alone():
    starts = [0.1, 0.3, -0.2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = [fit(point(a), cliff_loss, updates=40) for a in starts]
        run = fit(point(starts), cliff_loss, updates=40, members=3)
    assert len({tuple(single.recovered) for single in alone}) > 1
    for i, single in enumerate(alone):
        np.testing.assert_allclose(run.losses[:, i], single.losses, rtol=1e-12)
        np.testing.assert_array_equal(run.recovered[:, i], single.recovered)
        np.testing.assert_allclose(run.model.a[i], single.model.a, rtol=1e-12)
    assert run.best_update.shape == (3,)


def test_model_of_a_nan_gradient_is_not_a_good_one():
    with pytest.warns(UserWarning, match="went back"):
        run = fit(point(0.1), poisoned_loss, updates=60)
    assert run.model.a < CLIFF
    assert np.isfinite(run.losses).all()


def test_batch_that_is_not_finite_is_skipped_without_going_back():
    data = jnp.ones(12).at[5].set(jnp.nan)
    with pytest.warns(UserWarning, match="of 24 updates were skipped") as caught:
        run = fit(point(0.0), sum_loss, optax.sgd(0.1), data, updates=24, batch_size=3)
    assert run.skipped.sum() in (5, 6, 7)
    assert not run.recovered.any()
    assert "went back" not in str(caught[0].message)


def test_gradient_whose_square_overflows_does_not_freeze_the_optimizer():
    with pytest.warns(UserWarning, match="all 5 updates were skipped, .* no update was made"):
        run = fit(point(1.0), overflowing_loss, updates=5)
    assert np.isfinite(run.losses).all()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(run.opt_state))


def test_step_that_overflows_is_made_shorter():
    with pytest.warns(UserWarning, match="went back"):
        run = fit(point(-1e308), lambda model, data, key: model.a, optax.sgd(1.7e308), updates=7)
    assert run.skipped.tolist() == [True] * 6 + [False]
    np.testing.assert_allclose(run.model.a, -1e308 - 1.7e308 / 4)


def test_fit_that_keeps_failing_ends_and_says_so():
    with pytest.warns(UserWarning, match=r"the model was given up within 33 updates: 10 halvings failed"):
        run = fit(point(1.0), never_loss, updates=500)
    assert run.stopped_early
    assert len(run.losses) == recovery.TRIES * (recovery.HALVINGS + 1)
    assert run.best_update == 0
    assert float(run.model.a) == 1.0


def test_member_that_is_given_up_does_not_end_the_others():
    def loss(model, data, key):
        return jnp.where(model.a > 5.0, jnp.nan, (model.a - 1.0) ** 2)

    with pytest.warns(UserWarning, match="1 of 2 members was given up") as caught:
        run = fit(point([9.0, 0.0]), loss, optax.sgd(0.1), updates=80, members=2)
    assert "no update was made of 1 of 2 members" in str(caught[0].message)
    assert run.skipped[:, 0].all()
    np.testing.assert_allclose(run.model.a, [9.0, 1.0], atol=1e-3)
    assert not run.stopped_early


def test_steps_grow_back_after_good_updates():
    state = recovery.begin(jnp.zeros(()), ())
    bad, good = jnp.array(False), jnp.array(True)
    for _ in range(recovery.TRIES):
        state, back = recovery.advance(state, bad)
    assert back
    assert state.halvings == 1
    assert recovery.shortened(state, 3.0 * jnp.ones(2)).tolist() == [1.5, 1.5]
    for _ in range(recovery.GROWTH):
        state, back = recovery.advance(state, good)
    assert state.halvings == 0


def test_schedule_and_injected_settings_survive_going_back():
    optimizers = [
        optax.adam(optax.linear_schedule(0.1, 0.0, 10)),
        optax.inject_hyperparams(optax.adam)(optax.linear_schedule(0.1, 0.0, 10)),
    ]
    for optimizer in optimizers:
        params = jnp.ones(2)
        state = optimizer.init(params)
        for _ in range(3):
            _, state = optimizer.update(params, state, params)
        cleared = recovery.cleared(optimizer, params, state)
        step, _ = optimizer.update(params, cleared, params)
        np.testing.assert_allclose(step, -0.07 * np.ones(2), rtol=1e-4)  # the fourth of the schedule, the first of Adam


@pytest.mark.parametrize("cut", [3, 5, 12])
@pytest.mark.parametrize("members", [None, 2])
def test_run_that_recovers_resumes_bit_for_bit(tmp_path, cut, members):
    start, optimizer = point(0.1 if members is None else [0.1, 0.2]), optax.adam(0.3)
    options = {"loss": noisy_cliff, "optimizer": optimizer, "members": members}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = fit(start, **options, updates=30)
        fit(start, **options, updates=cut, checkpoint=tmp_path / "c")
        resumed = fit(start, **options, updates=30, checkpoint=tmp_path / "c", resume=True)
    assert whole.recovered.any()
    for name in ("losses", "recovered", "skipped", "best_update"):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(whole, name))
    np.testing.assert_array_equal(resumed.model.a, whole.model.a)


def test_run_that_was_given_up_stays_so_when_resumed(tmp_path):
    for _ in range(2):
        with pytest.warns(UserWarning, match="given up"):
            run = fit(point(1.0), never_loss, updates=500, checkpoint=tmp_path / "c", resume=True)
        assert len(run.losses) == 33


def test_loss_left_out_failed_solves_only_where_an_update_was_made():
    with pytest.warns(UserWarning, match="not valid 60 times, in 30 of 30 updates; all in updates that were skipped"):
        fit(point(1.0), never_loss, updates=30)
    with pytest.warns(UserWarning, match="not valid 10 times, in 10 of 10 updates") as caught:
        run = fit(point(0.1), counted_cliff, updates=10)
    text = f"updates; {run.skipped.sum()} of them in updates that were skipped, the loss left out the others"
    assert text in str(caught[0].message)


def test_validation_that_was_never_finite_gives_the_last_model():
    with pytest.warns(UserWarning, match="validate gave no finite score to a model whose loss is finite"):
        run = fit(point(0.1), cliff_loss, optax.sgd(0.1), updates=5, validate=lambda model: jnp.nan * model.a)
    assert run.best_update == 5
    assert run.model.a != 0.1


def test_model_that_validates_best_but_has_no_finite_loss_is_not_returned():
    def beyond(model):
        return (model.a - 0.6) ** 2

    with pytest.warns(UserWarning, match="the last good model is returned"):
        run = fit(point(0.1), cliff_loss, updates=30, validate=beyond, validate_every=1)
    assert np.nanmin(run.scores) < beyond(run.model)
    assert np.isfinite(cliff_loss(run.model, None, KEY))


def test_bad_batch_at_the_end_costs_neither_the_last_nor_the_best_model():
    data = jnp.ones(12).at[5].set(jnp.nan)
    for validate in (None, lambda model: (model.a - 1.0) ** 2):
        for updates in range(1, 5):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                options = {"batch_size": 3, "updates": updates, "validate": validate, "validate_every": 1}
                run = fit(point(0.0), sum_loss, optax.sgd(0.1), data, **options)
            done = updates - run.skipped.sum()
            np.testing.assert_allclose(run.model.a, 1.0 - 0.8**done, rtol=1e-12)
