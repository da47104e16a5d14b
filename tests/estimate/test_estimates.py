"""Estimates of `fit_parameters`: held against closed forms, SciPy, and each other."""

import functools

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

import node_jax as nj

KEY = jax.random.key(0)
TS = np.array([0.0, 0.5, 1.0, 2.0, 3.0, 5.0])
DECAYED = 2.0 * np.exp(-0.7 * TS)
NOISY = DECAYED + np.array([0.05, -0.04, 0.03, 0.02, -0.05, 0.01])


def decay(z, t, theta):
    return -theta["rate"] * z


def fit_decay(ts=TS, observed=NOISY, rate=1.0, z0=1.0, **options):
    options = {"t0": 0.0, "transform": "log", "fit_z0": "log"} | options
    return nj.fit_parameters(decay, z0, {"rate": rate}, ts, observed, **options)


def absorption(z, t, theta):
    """Absorption is the faster of two rates, which the data cannot tell apart otherwise."""
    gut, blood = z
    rate = theta["elimination"] + theta["excess"]
    return jnp.stack([-rate * gut, rate * gut / theta["volume"] - theta["elimination"] * blood])


def second(z, theta):
    return z[1]


FIRST = {"elimination": 0.08, "excess": 1.5, "volume": 0.5}


def fit_subject(dose, ts, observed):
    return nj.fit_parameters(
        absorption, jnp.stack([dose, 0.0 * dose]), FIRST, ts, observed, t0=0.0, observe=second, transform="log",
        starts=3, key=KEY,
    )  # fmt: skip


fit_subjects = jax.jit(jax.vmap(fit_subject))


@functools.cache
def subjects():
    record = nj.datasets.theophylline()
    return fit_subjects(record.dose, record.ts, record.concentration)


def concentration(logs, dose, ts):
    elimination, excess, volume = np.exp(logs)
    rate = elimination + excess
    return dose * rate / volume / excess * (np.exp(-elimination * ts) - np.exp(-rate * ts))


def test_noise_free_decay_gives_back_its_rate_and_its_start():
    fit = fit_decay(observed=DECAYED)
    np.testing.assert_allclose([fit.theta["rate"], fit.z0], [0.7, 2.0], rtol=1e-5)
    assert fit.converged


def test_all_subjects_of_theophylline_agree_with_least_squares_of_the_closed_form():
    record, fits = nj.datasets.theophylline(), subjects()
    assert bool(fits.converged.all())
    for i, (dose, ts, seen) in enumerate(zip(record.dose, record.ts, record.concentration, strict=True)):

        def errors(logs, dose=dose, ts=ts, seen=seen):
            return concentration(logs, dose, ts) - seen

        found = scipy.optimize.least_squares(errors, np.log(list(FIRST.values())), xtol=1e-12, ftol=1e-12, gtol=1e-12)
        variance = 2 * found.cost / (len(ts) - 3)
        standard = np.sqrt(np.diag(variance * np.linalg.inv(found.jac.T @ found.jac)))
        values = [fits.theta[name][i] for name in fits.names]
        np.testing.assert_allclose(values, np.exp(found.x), rtol=1e-4)
        np.testing.assert_allclose(fits.standard_errors("transformed")[i], standard, rtol=1e-3)
        np.testing.assert_allclose(fits.standard_errors()[i], np.exp(found.x) * standard, rtol=1e-3)
        np.testing.assert_allclose(fits.sigma[i], np.sqrt(variance), rtol=1e-5)


def test_subjects_under_vmap_are_those_one_by_one():
    record, fits = nj.datasets.theophylline(), subjects()
    one = jax.jit(fit_subject)
    for i in (0, 8):
        fit = one(record.dose[i], record.ts[i], record.concentration[i])
        np.testing.assert_allclose(fit.x, fits.x[i], rtol=1e-5)
        np.testing.assert_allclose(fit.covariance(), fits.covariance()[i], rtol=1e-4)


@pytest.mark.parametrize("spoiled", ["dose", "ts", "observed"])
def test_a_subject_of_nan_leaves_the_others_as_they_are_bit_by_bit(spoiled):
    record, fits = nj.datasets.theophylline(), subjects()
    data = {"dose": record.dose, "ts": record.ts, "observed": record.concentration}
    data[spoiled] = data[spoiled].copy()
    data[spoiled][4] = np.nan
    others = np.arange(12) != 4
    got = fit_subjects(*data.values())
    chex.assert_trees_all_equal(
        jax.tree.map(lambda x: x[others], got.found), jax.tree.map(lambda x: x[others], fits.found)
    )
    assert bool(got.starts.failed[4].all())
    assert np.isnan(got.theta["volume"][4])
    assert np.isnan(got.covariance()[4]).all()


def test_a_masked_value_is_as_if_it_were_not_there_and_so_is_nan():
    keep = np.array([True, True, False, True, True, True])
    dropped = fit_decay(TS[keep], NOISY[keep])
    wrong, lost = np.where(keep, NOISY, 100.0), np.where(keep, NOISY, np.nan)
    for fit in (fit_decay(observed=wrong, mask=keep), fit_decay(observed=lost)):
        assert int(fit.count) == 5
        np.testing.assert_allclose(fit.x, dropped.x, rtol=1e-6)
        np.testing.assert_allclose([fit.loss, fit.sigma], [dropped.loss, dropped.sigma], rtol=1e-6)
        np.testing.assert_allclose(fit.covariance(), dropped.covariance(), rtol=1e-5)


def test_a_padded_series_is_fitted_as_the_series_itself():
    ts, observed, mask = nj.datasets.pad([(TS, NOISY), (TS[:5], NOISY[:5])])
    fits = jax.vmap(fit_decay)(ts, observed[..., 0], mask=mask[..., 0])
    alone = fit_decay(TS[:5], NOISY[:5])
    assert fits.count.tolist() == [6, 5]
    np.testing.assert_allclose(fits.x[1], alone.x, rtol=1e-6)
    np.testing.assert_allclose(fits.standard_errors()[1], alone.standard_errors(), rtol=1e-5)


def grows(z, t, theta):
    """Blows up before t = 1 for a rate of more than 1."""
    return theta["rate"] * z**2


def fit_growth(rate, spread):
    truth = 1 / (1 - 0.4 * TS[:3])
    options = {"transform": "log", "starts": 12, "spread": spread, "key": KEY}
    return nj.fit_parameters(grows, 1.0, {"rate": rate}, TS[:3], truth, t0=0.0, **options)


def test_starts_that_fail_are_counted_ranked_last_and_kept_out():
    fit = fit_growth(0.5, 2.0)
    starts = fit.starts
    failed = int(starts.failed.sum())
    assert 0 < failed < 12
    assert bool(starts.failed[-failed:].all())
    assert np.isinf(starts.losses[-failed:]).all()
    assert np.isnan(starts.thetas["rate"][-failed:]).all()
    assert int(starts.agree.sum()) == 12 - failed
    np.testing.assert_allclose(fit.theta["rate"], 0.4, rtol=1e-5)
    assert f"12 starts: {12 - failed} converged, {failed} failed, {12 - failed} at the best optimum" in str(fit)


def test_a_fit_whose_starts_all_fail_says_so_and_has_no_numbers():
    with pytest.warns(UserWarning, match="all starts failed"):
        fit = fit_growth(50.0, 0.1)
    assert np.isnan(fit.theta["rate"])
    assert np.isinf(fit.loss)
    assert "All starts failed" in str(fit)


def test_a_state_below_the_absolute_tolerance_is_warned_of():
    with pytest.warns(UserWarning, match="below atol at all times.*smaller atol"):
        fit = fit_decay(observed=1e-9 * NOISY, z0=1e-9)
    assert "state is below atol" in str(fit)
    fine = fit_decay(observed=1e-9 * NOISY, z0=1e-9, steps=nj.Adaptive(atol=1e-17))
    np.testing.assert_allclose(fine.theta["rate"], fit_decay().theta["rate"], rtol=1e-5)


@pytest.mark.parametrize("optimizer", ["lbfgs", optax.adam(0.05)], ids=["lbfgs", "adam"])
def test_optimizers_of_optax_find_the_optimum_of_gauss_newton(optimizer):
    fit = fit_decay(optimizer=optimizer, updates=500)
    want = fit_decay()
    np.testing.assert_allclose(fit.x, want.x, rtol=1e-4)
    np.testing.assert_allclose(fit.covariance(), want.covariance(), rtol=1e-3)
    assert bool(fit.converged)


def test_too_few_updates_are_warned_of():
    with pytest.warns(UserWarning, match="has not converged"):
        fit = fit_decay(updates=2)
    assert not fit.converged
    assert "has not converged" in str(fit)


def saturating(substrate, t, theta):
    return -theta["vmax"] * substrate / (theta["km"] + substrate)


def test_michaelis_and_menten_fit_their_integrated_equation():
    substrate = np.linspace(9.0, 0.5, 12)
    ts = (10.0 - substrate + 3.0 * np.log(10.0 / substrate)) / 2.0  # vmax = 2, km = 3, from 10 on
    theta = {"km": 1.0, "vmax": 1.0}
    fit = nj.fit_parameters(saturating, 10.0, theta, ts, substrate, t0=0.0, transform="log")
    np.testing.assert_allclose([fit.theta["km"], fit.theta["vmax"]], [3.0, 2.0], rtol=1e-4)


def epidemic(z, t, theta):
    susceptible, infected, _ = z
    new, over = theta["beta"] * susceptible * infected / 1000.0, theta["gamma"] * infected
    return jnp.stack([-new, new - over, over])


def poisson(expected, counted):
    return expected - counted * jnp.log(expected) + jax.scipy.special.gammaln(counted + 1.0)


def test_counts_of_an_epidemic_have_the_poisson_likelihood_of_direct_minimization():
    ts, z0 = np.arange(2.0, 30.0, 3.0), jnp.array([997.0, 3.0, 0.0])
    expected = nj.odesolve(epidemic, z0, 0.0, 29.0, {"beta": 0.8, "gamma": 0.25}, save=nj.SaveAt(ts)).zs[:, 1]
    counted = np.random.default_rng(1).poisson(expected)
    fit = nj.fit_parameters(
        epidemic, z0, {"beta": 0.5, "gamma": 0.4}, ts, counted, t0=0.0, observe=second, loss=poisson, transform="log"
    )  # fmt: skip

    @jax.jit
    def loss(logs):
        theta = dict(zip(("beta", "gamma"), jnp.exp(logs), strict=True))
        seen = nj.odesolve(epidemic, z0, 0.0, ts[-1], theta, save=nj.SaveAt(ts)).zs[:, 1]
        return jnp.sum(poisson(seen, jnp.asarray(counted, float)))

    found = scipy.optimize.minimize(loss, np.log([0.5, 0.4]), method="Nelder-Mead", options={"xatol": 1e-7})
    np.testing.assert_allclose(fit.x, found.x, rtol=1e-4)
    np.testing.assert_allclose(fit.loss, found.fun, rtol=1e-6)
    np.testing.assert_allclose(fit.aic, 2 * found.fun + 4, rtol=1e-6)
    assert np.all(np.abs(fit.x - np.log([0.8, 0.25])) < 4 * fit.standard_errors("transformed"))


def predation(z, t, theta):
    hare, lynx = z
    return jnp.stack([hare * (theta[0] - theta[1] * lynx), lynx * (theta[2] * hare - theta[3])])


def logarithms(z, theta):
    return jnp.log(z)


def test_pelts_of_hare_and_lynx_have_the_rates_of_the_literature():
    """Medians of Carpenter, Predator-Prey Population Dynamics, 2018, which has the same model and a prior."""
    record = nj.datasets.hare_lynx()
    fit = nj.fit_parameters(
        predation, jnp.array([30.0, 4.0]), (0.5, 0.03, 0.03, 0.8), record.years - 1900.0,
        np.log(np.stack([record.hare, record.lynx], axis=1)), t0=0.0, observe=logarithms, transform="log",
        fit_z0="log", starts=8, spread=0.5, key=KEY,
    )  # fmt: skip
    np.testing.assert_allclose(fit.theta, (0.55, 0.028, 0.024, 0.80), rtol=0.05)
    np.testing.assert_allclose(fit.z0, (34.0, 5.9), rtol=0.05)
    assert fit.names == ("theta[0]", "theta[1]", "theta[2]", "theta[3]", "z0[0]", "z0[1]")
    assert int(fit.starts.agree.sum()) > 1


def both_rates(z, theta):
    return jnp.exp(-theta["a"] * z) + jnp.exp(-theta["b"] * z)


def test_optima_with_one_loss_and_other_parameters_are_told_apart():
    ts = jnp.linspace(0.1, 5.0, 12)
    seen = np.exp(-0.3 * ts) + np.exp(-2.0 * ts) + 0.01 * np.random.default_rng(0).normal(size=12)
    fit = nj.fit_parameters(
        lambda z, t, theta: jnp.ones_like(z), 0.0, {"a": 0.5, "b": 1.0}, ts, seen,
        t0=0.0, observe=both_rates, transform="log", starts=10, spread=2.0, key=KEY,
    )  # fmt: skip
    rates, starts = fit.starts.thetas["a"], fit.starts
    np.testing.assert_array_equal(starts.agree, np.abs(rates - rates[0]) < 0.1)
    assert 0 < int(starts.agree.sum()) < 10
    assert f"{10 - int(starts.agree.sum())} with its loss at other parameters" in str(fit)


def product(z, t, theta):
    return -theta["a"] * theta["b"] * z


def test_starts_agree_in_no_parameters_that_the_data_do_not_determine():
    theta, options = {"a": 1.0, "b": 1.0}, {"transform": "log", "starts": 10, "spread": 2.0, "key": KEY}
    fit = nj.fit_parameters(product, 2.0, theta, TS, NOISY, t0=0.0, **options)
    rates = np.asarray(fit.starts.thetas["a"])
    assert np.all(np.abs(np.log(rates[1:] / rates[0])) > 0.01)
    assert int(fit.starts.agree.sum()) == 1
    assert "1 at the best optimum, 9 with its loss at other parameters" in str(fit)


class Growth(eqx.Module):
    rate: jax.Array
    capacity: jax.Array
    shape: object
    power: int


def logistic(z, t, theta):
    return theta.rate * z * (1 - theta.shape(z / theta.capacity) ** theta.power)


def test_a_module_is_fitted_leaf_by_leaf_and_what_is_held_stays():
    truth = 5.0 / (1 + 4.0 * np.exp(-0.9 * TS))
    theta = Growth(jnp.array(0.5), jnp.array(5.0), jnp.abs, 1)
    marks = Growth("log", False, None, None)
    fits = jax.vmap(lambda y: nj.fit_parameters(logistic, 1.0, theta, TS, y, t0=0.0, transform=marks))(
        jnp.stack([truth, truth])
    )
    assert fits.names == ("rate",)
    np.testing.assert_allclose(fits.theta.rate, [0.9, 0.9], rtol=1e-5)
    assert fits.theta.shape is jnp.abs
    np.testing.assert_array_equal(fits.theta.capacity, [5.0, 5.0])
    assert "Parameter fits: 2" in str(fits)


def test_a_share_between_zero_and_one_stays_there():
    observed = np.array([1.0, 1.2, 0.9, 1.1])

    def flat(z, t, theta):
        return 0.0 * z

    def share(z, theta):
        return theta * z

    fit = nj.fit_parameters(flat, 2.0, 0.2, TS[:4], observed, t0=0.0, observe=share, transform="logit")
    np.testing.assert_allclose(fit.theta, observed.mean() / 2, rtol=1e-5)
    low, high = fit.interval(0.9999)
    assert 0 < float(low[0]) < float(fit.theta) < float(high[0]) < 1
    assert fit.names == ("theta",)


@pytest.mark.usefixtures("float32")
def test_single_precision_finds_the_same():
    fit = fit_decay()
    assert fit.x.dtype == fit.loss.dtype == fit.covariance().dtype == jnp.float32
    found = scipy.optimize.least_squares(lambda p: p[0] * np.exp(-p[1] * TS) - NOISY, [1.0, 1.0], x_scale="jac")
    np.testing.assert_allclose([fit.z0, fit.theta["rate"]], found.x, rtol=2e-3)
    assert bool(fit.converged)


def test_other_values_and_tolerances_do_not_trace_the_field_again():
    traces = []

    def counted(z, t, theta):
        traces.append(t)
        return -theta * z

    def fit(observed, rate, t0, rtol):
        return nj.fit_parameters(counted, 1.0, rate, TS, observed, t0=t0, steps=nj.Adaptive(rtol), updates=100)

    fit(DECAYED / 2.0, 1.0, 0.0, 1e-6)
    before = len(traces)
    again = fit(DECAYED / 2.1, 0.9, -0.1, 1e-7)
    assert len(traces) == before
    assert again.converged


def test_what_the_field_reads_from_outside_is_seen():
    source = 1.0

    def filling(z, t, theta):
        return theta * source

    def slope():
        return float(nj.fit_parameters(filling, 0.0, 1.0, TS, 2.0 * TS, t0=0.0).theta)

    assert slope() == pytest.approx(2.0)
    source = 4.0
    assert slope() == pytest.approx(0.5)
