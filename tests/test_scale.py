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


AROUND = {
    "jit": jax.jit,
    "checkpoint": jax.checkpoint,
    "cond": lambda loss: lambda rate: jax.lax.cond(rate > 0.0, loss, lambda rate: 0.0 * rate, rate),
    "scan": lambda loss: lambda rate: jax.lax.scan(lambda c, _: (c + loss(rate), None), 0.0 * rate, None, length=1)[0],
}


@pytest.mark.parametrize("name", AROUND)
@pytest.mark.parametrize(("lanes", "components"), [(200, 8), (600, 2)])  # too many states to keep, too many lanes
def test_what_is_around_a_solve_sees_a_history_of_one_shape(name, lanes, components):
    loss = AROUND[name](lambda rate: decayed(rate, jnp.ones(components)))
    slope = jax.vmap(jax.jit(jax.grad(loss)))(rates(lanes))
    np.testing.assert_allclose(slope, -components * np.exp(-rates(lanes)), rtol=1e-3)


def test_pullbacks_of_many_lanes_are_mapped_and_not_taken_apart():
    _, pullbacks = jax.vmap(lambda rate: jax.vjp(decayed, rate))(rates(300))
    slope = jax.vmap(lambda pullback: pullback(jnp.ones(()))[0])(pullbacks)
    np.testing.assert_allclose(slope, -np.exp(-rates(300)), rtol=1e-3)
    first = jax.tree.map(lambda x: x[0], pullbacks)  # whose history was never written
    assert jnp.isnan(first(jnp.ones(()))[0])


@pytest.mark.parametrize("derivative", [jax.jacrev, jax.jacfwd])
def test_rows_of_a_jacobian_are_no_lanes(derivative):
    ts = jnp.array([0.5, 1.0])

    def rows(rate):
        return nj.odesolve(decay, jnp.ones(2), 0.0, 1.0, rate, save=nj.SaveAt(ts)).zs[:, 0]

    jacobian = jax.vmap(derivative(rows))(rates(300))
    np.testing.assert_allclose(jacobian, -np.asarray(ts) * np.exp(-np.outer(rates(300), ts)), rtol=2e-3)


def test_gradients_of_many_starts_of_some_models_share_what_a_model_has():
    """Of three networks, each with 100 starts; one start of one network after the other for comparison."""
    weights, starts = jax.random.normal(jax.random.key(0), (3, 8, 8)), jax.random.normal(jax.random.key(1), (100, 8))

    def loss(z0, weight):
        return jnp.sum(nj.odesolve(lambda z, t, w: jnp.tanh(w @ z), z0, 0.0, 0.5, weight, steps=nj.Fixed(4)).z1 ** 2)

    slopes = jax.grad(loss, argnums=(0, 1))
    together = jax.vmap(jax.vmap(slopes, (0, None)), (None, 0))(starts, weights)
    alone = jax.lax.map(lambda w: jax.lax.map(lambda z: slopes(z, w), starts), weights)
    for x, y in zip(together, alone, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("derivative", [jax.grad, jax.hessian])
def test_derivatives_of_batches_are_mapped_one_batch_after_the_other(derivative):
    def summed(rate, scales):
        return jnp.sum(jax.vmap(lambda scale: decayed(rate, jnp.full(2, scale)))(scales))

    slopes = jax.vmap(derivative(summed), (0, None))(rates(3), rates(300))
    sign = -1 if derivative is jax.grad else 1
    np.testing.assert_allclose(slopes, 2 * sign * np.exp(-rates(3)) * np.sum(rates(300)), rtol=2e-3)


def test_mapped_gradients_take_the_memory_of_a_chunk():
    def bytes_of(lanes):
        compiled = jax.jit(jax.vmap(jax.grad(lambda rate: decayed(rate, jnp.ones(2))))).lower(rates(lanes)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    few, many = bytes_of(1_000), bytes_of(50_000)
    assert many - few < 400 * 49_000  # inputs, outputs and their order; a history of one lane has 64 kB


@pytest.mark.parametrize("components", [2, 40])
def test_vmap_of_hessian_is_right_for_300_lanes(components):
    options = {"method": nj.bosh3, "steps": nj.Adaptive(1e-4, 1e-4)}
    curvature = jax.vmap(jax.hessian(lambda rate: decayed(rate, jnp.ones(components), **options)))(rates(300))
    np.testing.assert_allclose(curvature, components * np.exp(-rates(300)), rtol=5e-3)


def test_failed_lanes_among_many_add_nothing_and_leave_the_others_alone():
    bad = jnp.arange(300) % 7 == 0

    def loss(rate):
        sol = nj.odesolve(decay, jnp.ones(2), 0.0, 1.0, rate, throw=False)
        return jnp.sum(jnp.where(sol.ok, sol.z1, 0.0))

    slope = jax.vmap(jax.grad(loss))(jnp.where(bad, jnp.nan, rates(300)))
    np.testing.assert_array_equal(slope[bad], 0.0)
    np.testing.assert_array_equal(slope[~bad], jax.vmap(jax.grad(loss))(rates(300))[~bad])


@pytest.mark.parametrize("adjoint", [nj.Checkpointed(), nj.Reversible()])
def test_a_custom_vjp_of_parameters_goes_backward_in_lanes(adjoint):
    @jax.custom_vjp
    def tripled(x):
        return 3 * x

    tripled.defvjp(lambda x: (3 * x, None), lambda _, g: (3 * g,))

    def summed(rate):
        def one(z0):
            return nj.odesolve(lambda z, t, p: -tripled(p) * z, z0, 0.0, 1.0, rate, adjoint=adjoint).z1

        return jnp.sum(jax.vmap(one)(jnp.array([1.0, 0.7, 0.4])))

    np.testing.assert_allclose(jax.grad(summed)(0.3), -3 * 2.1 * np.exp(-0.9), rtol=1e-4)


def at_times(rate, z0=1.0, t1=1.0):
    """A solve by `Direct` that saves at times too."""
    save = nj.SaveAt(jnp.array([0.5, 1.0]) * t1)
    return nj.odesolve(decay, z0, 0.0, t1, rate, save=save, adjoint=nj.Direct(), max_steps=32)


def test_direct_has_the_derivatives_of_a_loss_that_leaves_rows_out():
    slope, curvature = jax.value_and_grad(jax.grad(lambda rate: at_times(rate).z1))(1.0)
    np.testing.assert_allclose([slope, curvature], [-np.exp(-1.0), np.exp(-1.0)], rtol=1e-4)


def test_direct_over_a_length_of_zero_has_the_gradient_one():
    def end(z0, t1):
        return at_times(0.5, z0, t1).z1

    np.testing.assert_array_equal(jax.grad(end)(2.0, 0.0), 1.0)
    slopes = jax.vmap(jax.grad(end), (None, 0))(2.0, jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(slopes, np.exp([0.0, -0.5]), rtol=1e-4)


def test_direct_saves_at_times_a_leaf_without_elements():
    def first(rate):
        z0 = (jnp.ones(2), jnp.zeros(0))
        save = nj.SaveAt(jnp.array([0.5, 1.0]))

        def field(z, t, rate):
            return -rate * z[0], z[1]

        return jnp.sum(nj.odesolve(field, z0, 0.0, 1.0, rate, save=save, adjoint=nj.Direct(), max_steps=32).zs[0])

    np.testing.assert_allclose(jax.grad(first)(1.0), -np.exp(-0.5) - 2 * np.exp(-1.0), rtol=1e-4)


@pytest.mark.parametrize("save", [nj.SaveEnd(), nj.SaveAt(jnp.array([0.1, 0.9])), nj.SaveSteps(8)])
def test_direct_adds_nothing_for_a_masked_lane_that_left_its_domain_at_a_node(save):
    def loss(end):
        def field(z, t, end):
            return -jnp.sqrt(end - t) * z

        options = {"steps": nj.Fixed(8), "method": nj.rk4, "adjoint": nj.Direct(), "save": save, "throw": False}
        sol = nj.odesolve(field, 1.0, 0.0, 1.0, end, **options)
        return jnp.where(sol.ok, sol.z1, 0.0)

    assert jax.grad(loss)(0.5) == 0.0
    alone = jax.grad(loss)(2.0)
    np.testing.assert_allclose(jax.vmap(jax.grad(loss))(jnp.array([0.5, 2.0])), [0.0, alone], rtol=1e-12)


def test_direct_has_the_curvature_of_a_loss_at_its_minimum():
    curvature = jax.grad(jax.grad(lambda z0: at_times(1.0, z0).z1 ** 2 / 2))(0.0)
    np.testing.assert_allclose(curvature, np.exp(-2.0), rtol=1e-4)
