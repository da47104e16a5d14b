"""Estimates beside samples of a posterior, and from data frames."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import node_jax as nj

TS = jnp.linspace(0.0, 4.0, 9)
SIGMA = 0.05
OBSERVED = 2.0 * jnp.exp(-0.7 * TS) + SIGMA * jnp.array([0.4, -0.9, 1.3, -0.2, -1.1, 0.8, 0.3, -0.6, 0.2])
STEPS = nj.Adaptive(1e-6, 1e-8)


def decay(z, t, theta):
    return -theta["rate"] * z


def known_error(predicted, observed):
    """Nats of a normal error of known size, without the constant."""
    return 0.5 * ((predicted - observed) / SIGMA) ** 2


def fitted(ts=TS, observed=OBSERVED):
    return nj.fit_parameters(
        decay, 1.0, {"rate": 1.0}, ts, observed, t0=0.0, transform="log", fit_z0="log", loss=known_error, steps=STEPS
    )


def log_density(logs):
    """Log-likelihood of logarithms of rate and start, each with a flat prior."""
    sol = nj.odesolve(decay, jnp.exp(logs[1]), 0.0, TS[-1], {"rate": jnp.exp(logs[0])}, save=nj.SaveAt(TS), steps=STEPS)
    return -jnp.sum(known_error(sol.filled().zs, OBSERVED))


def check(samples, effective):
    """Mean and deviation of the samples are those of the fit, within four times their own error."""
    fit = fitted()
    errors = np.asarray(fit.standard_errors("transformed"))
    off = np.abs(samples.mean(axis=0) - np.asarray(fit.x)) / errors
    ratio = samples.std(axis=0) / errors
    assert (off < 4 / np.sqrt(effective) + 0.1).all(), off  # and a tenth, as the posterior is not quite normal
    assert (np.abs(ratio - 1) < 4 / np.sqrt(2 * effective) + 0.05).all(), ratio


@pytest.mark.filterwarnings("ignore")  # its own, of names that others deprecated
def test_samples_of_numpyro_have_the_mean_and_deviation_of_the_estimate():
    infer = pytest.importorskip("numpyro.infer")
    diagnostics = pytest.importorskip("numpyro.diagnostics")
    kernel = infer.NUTS(potential_fn=lambda logs: -log_density(logs))
    chain = infer.MCMC(kernel, num_warmup=200, num_samples=600, progress_bar=False)
    chain.run(jax.random.key(0), init_params=jnp.zeros(2))
    samples = np.asarray(chain.get_samples())
    effective = float(np.min(diagnostics.effective_sample_size(samples[None])))
    assert effective > 100
    check(samples, effective)


@pytest.mark.filterwarnings("ignore")  # its own, of names that others deprecated
def test_samples_of_blackjax_have_the_mean_and_deviation_of_the_estimate():
    blackjax = pytest.importorskip("blackjax")
    adapt = blackjax.window_adaptation(blackjax.nuts, log_density)
    (state, parameters), _ = adapt.run(jax.random.key(0), jnp.zeros(2), num_steps=200)
    kernel = blackjax.nuts(log_density, **parameters)

    def step(state, key):
        state, _ = kernel.step(key, state)
        return state, state.position

    samples = jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 600))[1]
    effective = float(np.min(blackjax.diagnostics.effective_sample_size(samples[None])))
    assert effective > 100
    check(np.asarray(samples), effective)


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_columns_of_a_data_frame_are_fitted_as_arrays(package):
    frames = pytest.importorskip(package)
    frame = frames.DataFrame({"t": np.asarray(TS), "z": np.asarray(OBSERVED)})
    fit = fitted(frame["t"].to_numpy(), frame["z"].to_numpy())
    np.testing.assert_array_equal(fit.x, fitted().x)
