"""Derivatives of one solve, mapped over as many solves as users have, against a closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import node_jax as nj

MANY = pytest.mark.parametrize("lanes", [1, 257, 300, 2048, 3000])


def decay(z, t, rate):
    """A linear field."""
    return -rate * z


def decayed(rate, z0=1.0, **options):
    """The sum of the state at 1."""
    return jnp.sum(nj.odesolve(decay, z0, 0.0, 1.0, rate, **options).z1)


def rates(lanes):
    """As many different rates."""
    return jnp.linspace(0.2, 2.0, lanes)


@MANY
@pytest.mark.parametrize("components", [1, 2])
def test_vmap_of_grad_is_right_for_any_number_of_lanes(lanes, components):
    z0 = jnp.ones(components)
    slope = jax.vmap(jax.grad(lambda rate: decayed(rate, z0)))(rates(lanes))
    np.testing.assert_allclose(slope, -components * np.exp(-rates(lanes)), rtol=1e-3)


@pytest.mark.parametrize("derivative", [jax.grad, jax.hessian])
def test_lanes_with_more_steps_than_slots_go_back_segment_by_segment(derivative):
    # the budget holds all 64 states of one lane, and 8 of each of eight lanes
    options = {"adjoint": nj.Checkpointed(memory=16 * 64), "steps": nj.Fixed(64), "method": nj.rk4}
    slope = jax.vmap(derivative(lambda rate: decayed(rate, jnp.ones(2), **options)))(rates(8))
    sign = -1 if derivative is jax.grad else 1
    np.testing.assert_allclose(slope, 2 * sign * np.exp(-rates(8)), rtol=1e-7)


def test_a_field_of_time_is_right_in_more_lanes_than_keep_every_state():
    def forced(z, t, rate):
        return -rate * z * t

    slope = jax.vmap(jax.grad(lambda rate: jnp.sum(nj.odesolve(forced, jnp.ones(2), 0.0, 1.0, rate).z1)))(rates(300))
    np.testing.assert_allclose(slope, -np.exp(-rates(300) / 2), rtol=1e-3)


ADJOINTS = {
    "checkpointed": nj.Checkpointed(),
    "slots": nj.Checkpointed(checkpoints=4),
    "direct": nj.Direct(),
    "backsolve": nj.Backsolve(),
    "interpolated": nj.Interpolated(),
    "reversible": nj.Reversible(),
}


@pytest.mark.parametrize("name", ADJOINTS)
def test_every_adjoint_maps_over_300_lanes_of_two_components(name):
    options = {"adjoint": ADJOINTS[name], "max_steps": 64 if name == "direct" else 4096}
    slope = jax.vmap(jax.grad(lambda rate: decayed(rate, jnp.ones(2), **options)))(rates(300))
    np.testing.assert_allclose(slope, -2 * np.exp(-rates(300)), rtol=2e-3)


@pytest.mark.parametrize("adjoint", [nj.Checkpointed(), nj.Forward()])
def test_vmap_of_jvp_is_right_for_300_lanes(adjoint):
    def slope(rate):
        return jax.jvp(lambda rate: decayed(rate, jnp.ones(2), adjoint=adjoint), (rate,), (jnp.ones_like(rate),))[1]

    np.testing.assert_allclose(jax.vmap(slope)(rates(300)), -2 * np.exp(-rates(300)), rtol=1e-3)


def test_vmap_of_hessian_is_right_for_300_lanes():
    curvature = jax.vmap(jax.hessian(lambda rate: decayed(rate, jnp.ones(2))))(rates(300))
    np.testing.assert_allclose(curvature, 2 * np.exp(-rates(300)), rtol=5e-3)


def test_failed_lanes_among_many_add_nothing_and_leave_the_others_alone():
    bad = jnp.arange(300) % 7 == 0

    def loss(rate):
        sol = nj.odesolve(decay, jnp.ones(2), 0.0, 1.0, rate, throw=False)
        return jnp.sum(jnp.where(sol.ok, sol.z1, 0.0))

    slope = jax.vmap(jax.grad(loss))(jnp.where(bad, jnp.nan, rates(300)))
    np.testing.assert_array_equal(slope[bad], 0.0)
    np.testing.assert_array_equal(slope[~bad], jax.vmap(jax.grad(loss))(rates(300))[~bad])
