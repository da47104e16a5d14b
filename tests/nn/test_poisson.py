"""Poisson processes with intensities whose integrals are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import node_jax as nj
from node_jax.nn import PoissonProcess

KEY = jax.random.key(0)
FINE = nj.Adaptive(rtol=1e-10, atol=1e-10)
EVENTS = jnp.array([0.1, 0.7, 1.9])


def clock(z, t, theta):
    return jnp.ones_like(z)


def sinusoidal(z):
    return 3.0 + 2.0 * jnp.sin(z)


def constant(z):
    return 4.0 + 0.0 * z


def process(intensity, t1=2.0):
    return PoissonProcess(nj.NeuralODE(clock, 0.0, t1, steps=FINE), intensity)


def mass(a, b):
    return 3 * (b - a) - 2 * (np.cos(b) - np.cos(a))


START = jnp.zeros(())


def test_constant_intensity():
    found = process(constant).log_prob(EVENTS, z0=START)
    np.testing.assert_allclose(found, 3 * np.log(4.0) - 8.0, rtol=1e-9)


def test_sinusoidal_intensity_its_mass_and_its_values():
    model = process(sinusoidal)
    expected = np.sum(np.log(3 + 2 * np.sin(EVENTS))) - mass(0.0, 2.0)
    np.testing.assert_allclose(model.log_prob(EVENTS, z0=START), expected, rtol=1e-9)
    np.testing.assert_allclose(model.expected_count(0.5, 1.5, START), mass(0.5, 1.5), rtol=1e-9)
    np.testing.assert_allclose(model.expected_count(0.0, 3.0, START), mass(0.0, 3.0), rtol=1e-9)
    np.testing.assert_allclose(model.intensity_at(EVENTS, START), 3 + 2 * np.sin(EVENTS), rtol=1e-9)


def test_masked_and_padded_events_equal_the_events_alone():
    model = process(sinusoidal)
    alone = model.log_prob(EVENTS, z0=START)
    padded, mask = jnp.append(EVENTS, jnp.full(3, 1.9)), jnp.arange(6) < 3
    np.testing.assert_allclose(model.log_prob(padded, mask, z0=START), alone, rtol=1e-12)
    none = model.log_prob(jnp.full(2, 1.0), jnp.zeros(2, bool), z0=START)
    np.testing.assert_allclose(none, -mass(0.0, 2.0), rtol=1e-9)


def test_gradient_of_the_density_has_the_closed_form():
    def total(height):
        return PoissonProcess(process(constant).ode, lambda z: height + 0.0 * z).log_prob(EVENTS, z0=START)

    np.testing.assert_allclose(jax.grad(total)(4.0), 3 / 4.0 - 2.0, rtol=1e-8)


def test_samples_follow_the_intensity():
    model = process(sinusoidal)
    events = jax.vmap(lambda key: model.sample(key, START, 32))(jax.random.split(KEY, 200))
    assert bool(jnp.all(events.complete))
    counts = jnp.sum(events.mask, axis=1)
    np.testing.assert_allclose(jnp.mean(counts), mass(0, 2), atol=4 * (mass(0, 2) / 200) ** 0.5)
    early = jnp.sum(events.mask & (events.ts < 1.0)) / jnp.sum(counts)
    np.testing.assert_allclose(early, mass(0, 1) / mass(0, 2), atol=4 * 0.5 / float(jnp.sum(counts)) ** 0.5)
    assert bool(jnp.all(jnp.diff(events.ts, axis=1) >= 0))


def test_sample_with_too_small_a_capacity_says_so():
    events = process(sinusoidal).sample(KEY, START, 2)
    assert bool(jnp.all(events.mask))
    assert not bool(events.complete)


def test_augmented_states_parts_and_tolerances_serve_every_question():
    field = nj.nn.Augmented(lambda z, t, theta: jnp.ones_like(z), extra=1)
    steps = nj.Adaptive(1e-9, jnp.array([1e-9, 1e-6]), controlled=None)
    model = PoissonProcess(nj.NeuralODE(field, 0.0, 2.0, steps=steps), lambda z: sinusoidal(z[0]))
    z0 = jnp.zeros(1)
    np.testing.assert_allclose(model.expected_count(0.5, 1.5, z0), mass(0.5, 1.5), rtol=1e-7)
    np.testing.assert_allclose(model.log_prob(EVENTS, z0=z0), process(sinusoidal).log_prob(EVENTS, z0=START), rtol=1e-7)
    assert bool(model.sample(KEY, z0, 32).complete)


def test_process_that_goes_back_in_time_is_refused():
    with pytest.raises(ValueError, match=r"needs ode\.t1 > ode.t0, got t0=2.0 and t1=0.0"):
        PoissonProcess(nj.NeuralODE(clock, 2.0, 0.0), constant)


def test_intensity_that_underflows_has_a_finite_gradient():
    def total(height):
        return PoissonProcess(process(constant).ode, lambda z: jax.nn.softplus(height + 0 * z)).log_prob(
            EVENTS, z0=START
        )

    assert np.isfinite(jax.grad(total)(-800.0))


def test_bound_that_the_rate_exceeds_is_found_out():
    events = nj.datasets.poisson(lambda t: 3.0 + t, 2.0, KEY, bound=3.0)
    assert not bool(events.complete)


def test_events_out_of_order_fail_by_name():
    with pytest.raises(nj.InputError, match="ts"):
        process(constant).log_prob(EVENTS[::-1], z0=START)


def test_simulation_by_thinning_has_the_mean_and_the_density_that_a_process_gives():
    draw = jax.vmap(lambda key: nj.datasets.poisson(lambda t: 3 + 2 * jnp.sin(t), 2.0, key, bound=5.0, capacity=64))
    events = draw(jax.random.split(KEY, 1000))
    counts = jnp.sum(events.mask, axis=1)
    np.testing.assert_allclose(jnp.mean(counts), mass(0, 2), atol=4 * (mass(0, 2) / 1000) ** 0.5)
    late = jnp.sum(events.mask & (events.ts > 1.0)) / jnp.sum(counts)
    np.testing.assert_allclose(late, mass(1, 2) / mass(0, 2), atol=4 * 0.5 / float(jnp.sum(counts)) ** 0.5)
    assert bool(jnp.all(events.complete))
