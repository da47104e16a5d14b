"""Integrals along a solve: their values, and that they change nothing else."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import node_jax as nj
from node_jax.nn import JacobianFrobenius, Kinetic, RandomEnd, SolverError, TotalDerivative

KEY = jax.random.key(0)
Z0 = jnp.array([1.0, -2.0])
FIELD = nj.nn.MLPField(2, 8, 1, key=KEY, time_dependent=True)
ALL = (Kinetic(), JacobianFrobenius(), TotalDerivative(2), SolverError())
FINE = nj.Adaptive(rtol=1e-9, atol=1e-9)


def decay(z, t, rate):
    return -rate * z


def rotation(z, t, theta):
    return jnp.stack([-theta * z[1], theta * z[0]])


def squares(z, t, theta):
    return jnp.sum(z**2)


def of(regularizer, rate=1.5, **options):
    model = nj.NeuralODE(decay, theta=jnp.asarray(rate), steps=FINE, regularizers=(regularizer,), **options)
    (value,) = model.solve(Z0, key=KEY).penalties.values()
    return value


@pytest.mark.parametrize("regularizer", ALL, ids=lambda x: x.name)
@pytest.mark.parametrize("steps", [nj.Adaptive(1e-5, 1e-5), nj.Fixed(7)], ids=["adaptive", "fixed"])
def test_regularizer_changes_neither_steps_nor_states(regularizer, steps):
    bare = nj.NeuralODE(FIELD, steps=steps)
    plain = jax.jit(lambda z0: bare.solve(z0))(Z0)
    model = nj.NeuralODE(FIELD, steps=steps, regularizers=(regularizer,))
    solution = jax.jit(lambda z0: model.solve(z0, key=KEY))(Z0)
    np.testing.assert_array_equal(solution.z1, plain.z1)
    assert jax.tree.map(int, solution.stats) == jax.tree.map(int, plain.stats)
    assert set(solution.penalties) == {regularizer.name}
    np.testing.assert_array_equal(model(Z0), plain.z1)


@pytest.mark.parametrize(
    ("save", "read"),
    [
        (nj.SaveAt([0.2, 1.0]), lambda sol: (sol.ts, sol.zs)),
        (nj.SaveAt([0.2, 1.0], squares), lambda sol: sol.zs),
        (nj.SaveSteps(32), lambda sol: (sol.ts, sol.zs)),
        (nj.Dense(32), lambda sol: sol.evaluate(0.3)),
    ],
    ids=["times", "function", "steps", "dense"],
)
def test_saves_are_those_of_the_state_alone(save, read):
    plain = nj.NeuralODE(FIELD).solve(Z0, save=save)
    solution = nj.NeuralODE(FIELD, regularizers=(Kinetic(),)).solve(Z0, save=save)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-13), read(solution), read(plain))


@pytest.mark.parametrize("adjoint", [nj.Checkpointed(), nj.Direct(), nj.Backsolve(), nj.Interpolated()], ids=repr)
def test_kinetic_energy_and_its_gradient_have_the_closed_form(adjoint):
    def exact(rate):
        return jnp.sum(Z0**2) * rate * (1 - jnp.exp(-2 * rate)) / 2

    value, slope = jax.value_and_grad(lambda rate: of(Kinetic(), rate, adjoint=adjoint))(1.5)
    np.testing.assert_allclose(value, exact(1.5), rtol=1e-7)
    np.testing.assert_allclose(slope, jax.grad(exact)(1.5), rtol=1e-6)


def test_penalties_are_the_same_in_both_directions_of_time():
    model = nj.NeuralODE(decay, theta=jnp.asarray(1.5), steps=FINE, regularizers=(Kinetic(),))
    there = model.solve(Z0)
    back = model.solve(there.z1, t0=1.0, t1=0.0)
    np.testing.assert_allclose(back.penalties["kinetic"], there.penalties["kinetic"], rtol=1e-7)


def test_total_derivatives_of_a_decay_are_powers_of_its_rate():
    first = of(Kinetic())
    for order in (1, 2, 3):
        np.testing.assert_allclose(of(TotalDerivative(order)), first * 1.5 ** (2 * (order - 1)), rtol=1e-7)


def test_total_derivative_sees_the_explicit_time():
    model = nj.NeuralODE(lambda z, t, theta: jnp.full_like(z, 0.5 * t**2), steps=FINE, regularizers=ALL[2:3])
    np.testing.assert_allclose(model.solve(Z0).penalties["total_derivative_2"], 2 / 3, rtol=1e-7)  # z'' = t


@pytest.mark.parametrize("noise", ["rademacher", "normal"])
def test_frobenius_norm_is_estimated_without_bias(noise):
    regularizer = JacobianFrobenius(samples=2, noise=noise)
    model = nj.NeuralODE(rotation, theta=jnp.asarray(2.0), regularizers=(regularizer,))
    keys = jax.random.split(KEY, 2000)
    values = jax.vmap(lambda key: model.solve(Z0, key=key).penalties["jacobian_frobenius"])(keys)
    np.testing.assert_allclose(jnp.mean(values), 8.0, rtol=1e-6 if noise == "rademacher" else 0.1)


def test_error_of_the_solver_is_the_sum_over_the_steps_of_a_loop():
    model = nj.NeuralODE(FIELD, steps=nj.Adaptive(1e-4, 1e-4), regularizers=(SolverError(),))
    solution = model.solve(Z0, save=nj.SaveSteps(32))
    count, total, z, t = int(solution.count), 0.0, Z0, jnp.zeros(())
    for i in range(count):
        h = solution.ts[i] - t
        step = nj.tsit5.step(FIELD, t, z, h, None, FIELD(z, t))
        total += float(h) * float(jnp.sqrt(jnp.mean(step.error[0] ** 2)))
        z, t = solution.zs[i], solution.ts[i]
    np.testing.assert_allclose(solution.penalties["solver_error"], total, rtol=1e-9)


def test_error_of_the_solver_has_the_gradient_of_its_steps_and_survives_many():
    def value(rate, capacity=64, count=16):
        steps = nj.Fixed(count)
        model = nj.NeuralODE(decay, theta=rate, steps=steps, regularizers=(SolverError(capacity),))
        return model.solve(Z0).penalties["solver_error"]

    h = 1e-5
    np.testing.assert_allclose(jax.grad(value)(3.0), (value(3.0 + h) - value(3.0 - h)) / (2 * h), rtol=1e-5)
    few = jax.value_and_grad(lambda rate: value(rate, capacity=4))(3.0)
    assert np.isfinite(few).all()
    assert 0 < few[0] < value(3.0)
    with pytest.raises(ValueError, match="SolverError needs a method with an error estimate, got method=rk4"):
        nj.NeuralODE(FIELD, steps=nj.Fixed(4), method=nj.rk4, regularizers=(SolverError(),)).solve(Z0)


def test_random_end_leaves_a_given_end_alone():
    model = nj.NeuralODE(FIELD, regularizers=(RandomEnd(0.5),))
    assert float(model.solve(Z0, t1=3.0, key=KEY).t_reached) == 3.0
    latent = nj.nn.LatentODE.create(2, 4, 8, key=KEY, regularizers=(RandomEnd(0.5),))
    ts = jnp.linspace(0.0, 0.9, 4)
    assert bool(jnp.all(latent.solve(ts, jnp.zeros((4, 2)), key=KEY).solution.ok))


def test_random_end_is_drawn_with_a_key_only():
    model = nj.NeuralODE(FIELD, t1=2.0, regularizers=(RandomEnd(0.5),))
    ends = jax.vmap(lambda key: model.solve(Z0, key=key).t_reached)(jax.random.split(KEY, 200))
    assert 1.5 < float(ends.min()) < 1.55
    assert 2.45 < float(ends.max()) < 2.5
    assert float(model.solve(Z0).t_reached) == 2.0


def test_what_is_random_needs_a_key_unless_it_is_left_out():
    model = nj.NeuralODE(FIELD, regularizers=(JacobianFrobenius(),))
    with pytest.raises(ValueError, match="JacobianFrobenius is random: key must be a JAX random key, got None"):
        model.solve(Z0)
    assert model.solve(Z0, regularized=False).penalties == {}
    assert model(Z0).shape == (2,)


def test_regularizers_of_one_name_and_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="got 2 named 'kinetic'"):
        nj.NeuralODE(FIELD, regularizers=(Kinetic(), Kinetic()))
    for make, word in (
        (lambda: JacobianFrobenius(samples=0), "samples"),
        (lambda: JacobianFrobenius(noise="uniform"), "noise must be one of"),
        (lambda: TotalDerivative(0), "order"),
        (lambda: RandomEnd(-1.0), "b must be a positive number, got -1.0"),
        (lambda: SolverError(capacity=0), "capacity"),
    ):
        with pytest.raises(ValueError, match=word):
            make()


def test_with_penalties_serves_odesolve_and_takes_no_random_ones():
    penalized = nj.nn.with_penalties(decay, (Kinetic(), TotalDerivative(2)))
    steps = nj.Adaptive(rtol=1e-9, atol=1e-9, controlled=nj.nn.state_of)
    end = nj.odesolve(penalized, penalized.start(Z0), 0.0, 1.0, jnp.asarray(1.5), steps=steps).z1
    np.testing.assert_allclose(end.free["kinetic"], of(Kinetic()), rtol=1e-12)
    with pytest.raises(TypeError, match="with_penalties takes Kinetic and TotalDerivative"):
        nj.nn.with_penalties(decay, (JacobianFrobenius(),))


@pytest.mark.parametrize("z0", [2.0, jnp.array(2.0), np.float64(2.0)], ids=repr)
def test_scalars_of_any_kind_have_penalties(z0):
    model = nj.NeuralODE(decay, theta=1.5, steps=FINE, regularizers=(Kinetic(), SolverError()))
    expected = float(z0) ** 2 * 1.5 * (1 - np.exp(-3.0)) / 2
    np.testing.assert_allclose(model.solve(z0).penalties["kinetic"], expected, rtol=1e-5)


def test_energy_of_a_complex_state_is_that_of_its_modulus():
    model = nj.NeuralODE(lambda z, t, theta: 1j * z, steps=FINE, regularizers=(Kinetic(), SolverError()))
    penalties = model.solve(jnp.array([3.0 + 4.0j])).penalties
    np.testing.assert_allclose(penalties["kinetic"], 25.0, rtol=1e-7)
    assert float(penalties["solver_error"]) > 0


FACTOR = 1.0


class Scaled(eqx.Module):
    """A module of a user's own that reads a name from outside."""

    rate: jax.Array

    def __call__(self, z, t, theta):
        return -FACTOR * self.rate * z


@pytest.mark.parametrize(
    "wrap",
    [
        lambda f: nj.NeuralODE(f, regularizers=Kinetic()),
        lambda f: nj.NeuralODE(nj.nn.Augmented(f, 1)),
        lambda f: nj.NeuralODE(nj.nn.Frozen(f)),
    ],
    ids=["regularized", "augmented", "frozen"],
)
def test_name_that_a_wrapped_module_reads_is_seen_to_change(wrap, monkeypatch):
    model = wrap(Scaled(jnp.array(1.0)))
    first = model.solve(Z0).z1[0]
    monkeypatch.setitem(globals(), "FACTOR", 2.0)
    np.testing.assert_allclose(model.solve(Z0).z1[0], first**2, rtol=1e-5)


def test_error_of_a_solve_that_fails_at_its_start_has_no_gradient():
    def total(rate):
        field = lambda z, t, theta: -theta * jnp.sqrt(z)  # noqa: E731
        model = nj.NeuralODE(field, theta=rate, steps=nj.Adaptive(1e-3, 1e-3), regularizers=SolverError(8))
        solution = jax.vmap(lambda z0: model.solve(z0))(jnp.array([1.0, -1.0]))
        return jnp.sum(jnp.where(solution.ok, solution.penalties["solver_error"], 0.0))

    value, slope = jax.value_and_grad(total)(0.3)
    assert np.isfinite(value)
    assert np.isfinite(slope)
    assert slope != 0


def test_lanes_with_regularizers_equal_single_solves():
    model = nj.NeuralODE(FIELD, regularizers=(Kinetic(),))
    z0s = jax.random.normal(KEY, (300, 2))
    many = jax.vmap(model.solve)(z0s)
    one = model.solve(z0s[7])
    np.testing.assert_allclose(many.penalties["kinetic"][7], one.penalties["kinetic"], rtol=1e-12)
    slopes = jax.vmap(jax.grad(lambda z0: model.solve(z0).penalties["kinetic"]))(z0s)
    np.testing.assert_allclose(slopes[7], jax.grad(lambda z0: model.solve(z0).penalties["kinetic"])(z0s[7]), rtol=1e-10)
