"""How well parameters are known: held against the linear model, where everything is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import node_jax as nj
from node_jax.estimate.quantiles import half_width

TS = np.array([0.0, 1.0, 2.0, 3.0, 5.0, 8.0])
OBSERVED = np.array([1.1, 2.8, 5.2, 7.1, 10.7, 17.3])
DESIGN = np.stack([TS, np.ones(6)], axis=1)  # slope and intercept


def constant(z, t, theta):
    """A straight line: the model is linear in its slope and its start."""
    return theta["slope"]


def normal(predicted, observed):
    """Errors with a known standard deviation of 0.5, in nats."""
    return 0.5 * ((predicted - observed) / 0.5) ** 2 + np.log(0.5 * np.sqrt(2 * np.pi))


@functools.cache
def line(loss="gaussian"):
    return nj.fit_parameters(constant, 0.0, {"slope": 1.0}, TS, OBSERVED, t0=0.0, fit_z0=True, loss=loss)


def decay(z, t, theta):
    return -theta["rate"] * z


@functools.cache
def decayed():
    observed = 2.0 * np.exp(-0.7 * TS) + np.array([0.05, -0.04, 0.03, 0.02, -0.05, 0.01])
    theta = {"rate": 1.0, "unused": 1.0}
    marks = {"rate": "log", "unused": False}
    return nj.fit_parameters(decay, 1.0, theta, TS, observed, t0=0.0, transform=marks, fit_z0="log")


COEFFICIENTS, (RSS,), *_ = np.linalg.lstsq(DESIGN, OBSERVED, rcond=None)
TEXTBOOK = RSS / 4 * np.linalg.inv(DESIGN.T @ DESIGN)


def test_a_straight_line_has_the_covariance_of_the_textbook():
    fit = line()
    assert fit.names == ("slope", "z0")
    np.testing.assert_allclose([fit.theta["slope"], fit.z0], COEFFICIENTS, rtol=1e-7)
    np.testing.assert_allclose(fit.covariance(), TEXTBOOK, rtol=1e-6)
    np.testing.assert_allclose(fit.covariance("transformed"), TEXTBOOK, rtol=1e-6)
    np.testing.assert_allclose(fit.standard_errors(), np.sqrt(np.diag(TEXTBOOK)), rtol=1e-6)
    correlation = TEXTBOOK[0, 1] / np.sqrt(TEXTBOOK[0, 0] * TEXTBOOK[1, 1])
    np.testing.assert_allclose(fit.correlation(), [[1.0, correlation], [correlation, 1.0]], rtol=1e-6)
    np.testing.assert_allclose(fit.sigma, np.sqrt(RSS / 4), rtol=1e-6)
    assert int(fit.freedom) == 4


def test_intervals_are_those_of_student():
    low, high = line().interval(0.9)
    width = scipy.stats.t.ppf(0.95, 4) * np.sqrt(np.diag(TEXTBOOK))
    np.testing.assert_allclose(low, COEFFICIENTS - width, rtol=1e-6)
    np.testing.assert_allclose(high, COEFFICIENTS + width, rtol=1e-6)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_half_widths_are_quantiles(level):
    freedom = np.array([0, 1, 2, 8, 1000])
    got = half_width(level, freedom, True, jnp.float64)
    np.testing.assert_allclose(got[1:], scipy.stats.t.ppf(0.5 + level / 2, freedom[1:]), rtol=1e-9)
    assert np.isnan(got[0])
    np.testing.assert_allclose(half_width(level, 3, False, jnp.float64), scipy.stats.norm.ppf(0.5 + level / 2))


def test_the_likelihood_is_that_of_normal_errors_with_their_best_deviation():
    fit, errors = line(), OBSERVED - DESIGN @ COEFFICIENTS
    likelihood = scipy.stats.norm.logpdf(errors, scale=np.sqrt(RSS / 6)).sum()
    np.testing.assert_allclose(fit.loss, -likelihood, rtol=1e-6)
    np.testing.assert_allclose(fit.aic, 2 * 3 - 2 * likelihood, rtol=1e-6)


def test_a_loss_in_nats_has_the_inverse_of_its_information_for_a_covariance():
    fit = line(normal)
    np.testing.assert_allclose([fit.theta["slope"], fit.z0], COEFFICIENTS, rtol=1e-6)
    np.testing.assert_allclose(fit.covariance(), 0.25 * np.linalg.inv(DESIGN.T @ DESIGN), rtol=1e-6)
    likelihood = scipy.stats.norm.logpdf(OBSERVED, DESIGN @ COEFFICIENTS, 0.5).sum()
    np.testing.assert_allclose([fit.loss, fit.aic], [-likelihood, 4 - 2 * likelihood], rtol=1e-6)
    assert float(fit.sigma) == 1.0


def test_the_profile_of_a_quadratic_is_a_parabola():
    fit = line(normal)
    error = float(fit.standard_errors()[0])
    profile = fit.profile("slope", points=9, width=3.0)
    np.testing.assert_allclose(profile.values, fit.theta["slope"] + np.linspace(-3, 3, 9) * error, rtol=1e-6)
    np.testing.assert_allclose(profile.losses - fit.loss, np.linspace(-3, 3, 9) ** 2 / 2, atol=1e-5)
    np.testing.assert_allclose(profile.interval, [end[0] for end in fit.interval()], rtol=1e-5)
    assert bool(profile.converged.all())


def test_the_profile_of_a_linear_model_has_the_interval_of_student():
    fit = line()
    profile = fit.profile("z0", points=21, width=4.0)
    np.testing.assert_allclose(profile.interval, [end[1] for end in fit.interval()], rtol=1e-3)
    assert not np.isfinite(fit.profile("z0", points=21, width=0.5).interval).any()


def test_predictions_have_the_band_of_the_regression_line():
    fit, ts = line(), np.array([0.0, 4.0, 10.0])
    design = np.stack([ts, np.ones(3)], axis=1)
    band = fit.predict(ts)
    error = np.sqrt(np.einsum("ni,ij,nj->n", design, TEXTBOOK, design))
    np.testing.assert_allclose(band.mean, design @ COEFFICIENTS, rtol=1e-6)
    np.testing.assert_allclose(band.standard_error, error, rtol=1e-6)
    np.testing.assert_allclose(band.high - band.mean, scipy.stats.t.ppf(0.975, 4) * error, rtol=1e-6)
    np.testing.assert_allclose(band.mean - band.low, band.high - band.mean, rtol=1e-9)


def test_scales_differ_by_the_delta_method():
    fit = decayed()
    values = np.array([fit.theta["rate"], fit.z0])
    assert fit.names == ("rate", "z0")
    np.testing.assert_allclose(fit.standard_errors(), values * fit.standard_errors("transformed"), rtol=1e-12)
    np.testing.assert_allclose(fit.covariance(), np.outer(values, values) * fit.covariance("transformed"), rtol=1e-12)
    low, high = fit.interval()
    np.testing.assert_allclose(low * high, values**2, rtol=1e-9)  # symmetric on the logarithmic scale
    with pytest.raises(ValueError, match=r"scale must be .* got 'log'"):
        fit.covariance("log")


def test_parameters_that_the_data_do_not_determine_have_no_errors_and_the_table_says_so():
    def twice(z, t, theta):
        return theta["first"] + theta["second"] + 0.0 * z

    fit = nj.fit_parameters(twice, 0.0, {"first": 1.0, "second": 2.0}, TS, OBSERVED, t0=0.0)
    assert np.isnan(fit.covariance()).all()
    assert np.isnan(fit.correlation()).all()
    np.testing.assert_allclose(fit.theta["first"] + fit.theta["second"], TS @ OBSERVED / (TS @ TS), rtol=1e-6)
    assert "do not determine all parameters" in str(fit)
    with pytest.raises(ValueError, match="not positive definite"):
        fit.profile("first")


def test_as_many_parameters_as_observations_have_estimates_and_no_errors():
    fit = nj.fit_parameters(constant, 0.0, {"slope": 1.0}, TS[:2], OBSERVED[:2], t0=0.0, fit_z0=True)
    np.testing.assert_allclose([fit.theta["slope"], fit.z0], [1.7, 1.1], rtol=1e-6)
    assert np.isnan([fit.sigma, *fit.standard_errors()]).all()
    assert "as many parameters as observations" in str(fit)


def test_the_table_has_what_a_reader_needs():
    text, said = str(decayed()), []
    assert "6 observations, gaussian loss with sigma profiled out" in text
    rows = [line.split() for line in text.splitlines()]
    fit = decayed()
    low, high = fit.interval()
    values = (float(fit.theta["rate"]), float(fit.standard_errors()[0]), float(low[0]), float(high[0]))
    value, error, least, most = values
    assert ["rate", f"{value:.5g}", f"{error:.3g}", f"{least:.4g}", "to", f"{most:.4g}", "log"] in rows
    assert f"residual SD {float(fit.sigma):.4g} on 4 degrees of freedom" in text
    assert f"log-likelihood {-float(fit.loss):.5g}, AIC {float(fit.aic):.5g}" in text
    assert "unused" not in text
    jax.eval_shape(lambda fit: said.append(str(fit)), fit)
    assert said == ["ParameterFit(names=('rate', 'z0'))"]


def test_a_figure_shows_data_curve_and_band():
    axes = decayed().plot()
    points = next(line for line in axes.lines if line.get_marker() == "o")
    np.testing.assert_array_equal(points.get_xdata(), TS)
    assert len(axes.collections) == 1
    assert decayed().plot(axes) is axes


def test_methods_of_one_fit_refuse_a_batch():
    fits = jax.tree.map(lambda x: jnp.stack([x, x]), line())
    for call in (lambda: fits.predict(TS), lambda: fits.profile("slope"), lambda: fits.plot()):
        with pytest.raises(ValueError, match="takes one fit, got a batch"):
            call()
    band = jax.tree.map(lambda x: x[1], fits).predict(TS[:3])
    np.testing.assert_allclose(band.mean, DESIGN[:3] @ COEFFICIENTS, rtol=1e-6)
    np.testing.assert_allclose(fits.covariance()[1], TEXTBOOK, rtol=1e-6)


def test_a_profile_of_a_name_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="name must be one of slope, z0, got 'speed'"):
        line().profile("speed")
    with pytest.raises(ValueError, match="level must be between 0 and 1, got 95"):
        line().interval(95.0)
