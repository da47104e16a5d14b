"""What JAX's own switches do to a solve: each finds what it looks for, and a healthy solve passes."""

import jax
import jax.numpy as jnp
import pytest

import node_jax as nj

SWITCHES = {
    "disable_jit": jax.disable_jit,
    "checking_leaks": jax.checking_leaks,
    "debug_nans": lambda: jax.debug_nans(True),
    "strict": lambda: jax.numpy_dtype_promotion("strict"),
}
ADJOINTS = [nj.Checkpointed(), nj.Direct(), nj.Interpolated(), nj.Backsolve(), nj.Reversible()]
SAVES = [nj.SaveEnd(), nj.SaveAt(jnp.array([0.05, 0.1])), nj.SaveSteps(4), nj.Dense(4)]
RATE = jnp.array(0.5)
every_switch = pytest.mark.parametrize("switch", SWITCHES.values(), ids=SWITCHES)


def decay(z, t, rate):
    return -rate * z


def solved(rate, z0=None, **options):
    options = {"steps": nj.Adaptive(1e-3, 1e-3), **options}
    return nj.odesolve(decay, jnp.ones(2) if z0 is None else z0, 0.0, 0.1, rate, **options)


def near(x, exact):
    assert jnp.allclose(x, exact, atol=1e-5), (x, exact)


@every_switch
@pytest.mark.parametrize("save", SAVES, ids=lambda save: type(save).__name__)
def test_each_save_passes_under_each_switch(switch, save):
    with switch():
        near(solved(RATE, save=save).z1, jnp.exp(-0.05))


@every_switch
@pytest.mark.parametrize("adjoint", ADJOINTS, ids=lambda adjoint: type(adjoint).__name__)
def test_the_gradient_of_each_adjoint_passes_under_each_switch(switch, adjoint):
    prescribed = isinstance(adjoint, nj.Direct | nj.Reversible)
    options = {"adjoint": adjoint, **({"steps": nj.Fixed(1)} if prescribed else {})}
    with switch():
        near(jax.grad(lambda rate: solved(rate, **options).z1[0])(RATE), -0.1 * jnp.exp(-0.05))


@every_switch
def test_forward_mode_passes_under_each_switch(switch):
    with switch():
        _, dot = jax.jvp(lambda rate: solved(rate, adjoint=nj.Forward()).z1[0], (RATE,), (jnp.ones_like(RATE),))
        near(dot, -0.1 * jnp.exp(-0.05))


@every_switch
def test_a_batch_and_its_gradients_pass_under_each_switch(switch):
    rates = jnp.array([0.5, 1.0])
    with switch():
        values, bars = jax.vmap(jax.value_and_grad(lambda rate: solved(rate).z1[0]))(rates)
    near(values, jnp.exp(-0.1 * rates))
    near(bars, -0.1 * jnp.exp(-0.1 * rates))


@every_switch
def test_rows_have_gradients_under_each_switch(switch):
    def loss(rate):
        dense = solved(rate, save=nj.Dense(4)).evaluate(jnp.array(0.05))[0]
        return dense + solved(rate, save=SAVES[1]).zs[1, 0] + solved(rate, save=nj.SaveSteps(4)).zs[0, 0]

    with switch():
        assert jnp.isfinite(jax.grad(loss)(RATE))
