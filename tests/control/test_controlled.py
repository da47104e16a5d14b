"""`Adaptive(controlled=...)`: a part of the state that chooses the steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import node_jax as nj

Z0 = jnp.array([2.0, 0.0])


def first(state):
    return state[0]


def nothing(state):
    return ()


def van_der_pol(z, t, mu):
    return jnp.stack([z[1], mu * (1 - z[0] ** 2) * z[1] - z[0]])


def along(state, t, mu):
    slope = van_der_pol(state[0], t, mu)
    return slope, 1e6 * jnp.sum(slope**2)


def solve(mu, steps=None, **options):
    steps = nj.Adaptive(1e-8, 1e-8, controlled=first) if steps is None else steps
    return nj.odesolve(along, (Z0, jnp.zeros(())), 0.0, 3.0, mu, steps=steps, **options)


def test_what_is_not_controlled_changes_no_step_and_is_integrated():
    alone = nj.odesolve(van_der_pol, Z0, 0.0, 3.0, 3.0, steps=nj.Adaptive(1e-8, 1e-8))
    with_integral, fine = solve(3.0), solve(3.0, nj.Adaptive(1e-11, 1e-11))
    np.testing.assert_array_equal(with_integral.z1[0], alone.z1)
    assert int(with_integral.stats.accepted) == int(alone.stats.accepted)
    np.testing.assert_allclose(with_integral.z1[1], fine.z1[1], rtol=1e-6)
    assert int(solve(3.0, nj.Adaptive(1e-8, 1e-8)).stats.accepted) > 1.2 * int(alone.stats.accepted)


@pytest.mark.parametrize("adjoint", [nj.Checkpointed(), nj.Direct(), nj.Interpolated(), nj.Reversible()], ids=repr)
def test_gradient_of_an_integral_that_is_not_controlled(adjoint):
    slope = jax.grad(lambda mu: solve(mu, adjoint=adjoint).z1[1])(3.0)
    h = 1e-4
    fine = nj.Adaptive(1e-12, 1e-12)
    exact = (solve(3.0 + h, fine).z1[1] - solve(3.0 - h, fine).z1[1]) / (2 * h)
    np.testing.assert_allclose(slope, exact, rtol=1e-5)


def test_backsolve_controls_the_same_part_on_its_way_back():
    steps = nj.Adaptive(1e-9, 1e-9, controlled=first)

    def total(rate):
        field = lambda state, t, rate: (-rate * state[0], state[0] ** 2)  # noqa: E731
        start = (jnp.array(1.0), jnp.zeros(()))
        return nj.odesolve(field, start, 0.0, 1.0, rate, steps=steps, adjoint=nj.Backsolve()).z1[1]

    exact = jax.grad(lambda rate: (1 - jnp.exp(-2 * rate)) / (2 * rate))(1.5)
    np.testing.assert_allclose(jax.grad(total)(1.5), exact, rtol=1e-6)


def test_tolerances_are_those_of_the_part():
    steps = nj.Adaptive(1e-8, jnp.array([1e-8, 1e-6]), controlled=first)
    assert solve(3.0, steps).ok
    with pytest.raises(ValueError, match="atol must be a scalar or a pytree prefix"):
        solve(3.0, nj.Adaptive(1e-8, (1e-8, 1e-6), controlled=first))


def test_what_controls_nothing_is_refused():
    with pytest.raises(ValueError, match="must return a part of z0 with arrays, got \\(\\)"):
        solve(3.0, nj.Adaptive(controlled=nothing))


def test_certificate_takes_steps_with_a_norm_of_the_state_and_with_a_part():
    steps = nj.Adaptive(1e-6, 1e-6, controlled=first)
    report = nj.check_gradient(along, (Z0, jnp.zeros(())), 0.0, 3.0, jnp.asarray(3.0), steps=steps)
    assert report.ok
