"""Continuous and planar normalizing flows against determinants and quadratures."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as distributions
import pytest

import node_jax as nj
from node_jax.nn import CNF, Exact, Hutchinson, PlanarFlow

KEY = jax.random.key(0)
X = jnp.array([0.4, -0.8])
FINE = nj.Adaptive(rtol=1e-10, atol=1e-10)
FIELD = nj.nn.ConcatSquashField(2, (8,), key=KEY)


def flow(field=FIELD, steps=FINE, **options):
    return CNF(nj.NeuralODE(field, steps=steps), 2, **options)


def first(z):
    return z[:1]


def line(z, t, theta):
    return jnp.tanh(z) * jnp.cos(t)


@pytest.mark.parametrize("field", [FIELD, nj.nn.PlanarField(2, 8, key=KEY), nj.nn.HyperField(2, 8, key=KEY)])
def test_log_density_is_that_of_the_base_and_the_determinant_of_the_flow(field):
    model = flow(field)
    z, jacobian = model.inverse(X), jax.jacrev(model.inverse)(X)
    expected = model.base.log_prob(z) + jnp.linalg.slogdet(jacobian)[1]
    np.testing.assert_allclose(model.log_prob(X), expected, rtol=1e-8)


def test_density_integrates_to_one():
    model = flow(steps=nj.Adaptive(1e-6, 1e-6))
    axis = jnp.linspace(-8.0, 8.0, 81)
    grid = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    total = jnp.sum(jnp.exp(jax.vmap(model.log_prob)(grid))) * (axis[1] - axis[0]) ** 2
    np.testing.assert_allclose(total, 1.0, atol=1e-4)


def test_samples_come_with_the_density_that_log_prob_gives():
    model = flow()
    xs, log_probs = model.sample_and_log_prob(jax.random.key(1), (2, 3))
    assert xs.shape == (2, 3, 2)
    np.testing.assert_allclose(log_probs, jax.vmap(jax.vmap(model.log_prob))(xs), rtol=1e-7)
    assert model.sample(KEY).shape == (2,)
    np.testing.assert_allclose(model.forward(model.inverse(X)), X, rtol=1e-8)


def test_estimate_of_the_trace_has_no_bias_and_needs_a_key():
    model = flow(steps=nj.Adaptive(1e-6, 1e-6), trace=Hutchinson(noise="normal"))
    keys = jax.random.split(KEY, 4000)
    values = jax.vmap(lambda key: model.log_prob(X, key=key))(keys)
    error = float(jnp.std(values)) / 4000**0.5
    np.testing.assert_allclose(jnp.mean(values), flow().log_prob(X), atol=4 * error)
    with pytest.raises(ValueError, match="Hutchinson is random: key"):
        model.log_prob(X)


def test_signs_as_noise_are_exact_in_one_dimension():
    one = {trace: CNF(nj.NeuralODE(line, steps=FINE), 1, trace=trace) for trace in (Exact(), Hutchinson(samples=3))}
    first, second = (model.log_prob(X[:1], key=KEY) for model in one.values())
    np.testing.assert_allclose(first, second, rtol=1e-12)


def test_condition_reaches_the_field():
    field = nj.nn.ConcatSquashField(2, (8,), key=KEY, condition_size=1)
    model = flow(field)
    low, high = (model.log_prob(X, jnp.array([c])) for c in (0.0, 2.0))
    assert abs(low - high) > 1e-3
    assert model.sample(KEY, (4,), jnp.array([1.0])).shape == (4, 2)
    with pytest.raises(ValueError, match="condition, must have shape"):
        model.log_prob(X)


def test_base_may_be_that_of_another_package():
    base = distributions.Normal(jnp.zeros(2), jnp.ones(2)).to_event(1)
    np.testing.assert_allclose(flow(base=base).log_prob(X), flow().log_prob(X), rtol=1e-12)
    assert flow(base=base).sample(KEY, (3,)).shape == (3, 2)


def test_regularizers_of_the_field_are_reported_and_change_nothing():
    ode = nj.NeuralODE(FIELD, steps=FINE, regularizers=(nj.nn.Kinetic(), nj.nn.JacobianFrobenius()))
    found = CNF(ode, 2).solve(X, key=KEY)
    assert set(found.penalties) == {"kinetic", "jacobian_frobenius"}
    np.testing.assert_array_equal(found.log_prob, flow().log_prob(X))


def test_failed_solve_has_no_density_and_no_gradient():
    steps = nj.Adaptive(1e-6, 1e-6)
    points = jnp.stack([X, jnp.full(2, jnp.nan)])

    def total(scale):
        model = flow(lambda z, t, theta: scale * FIELD(z, t), steps)
        found = jax.vmap(model.log_prob)(points)
        return jnp.sum(jnp.where(jnp.isfinite(found), found, 0.0)), found

    (value, found), slope = jax.value_and_grad(total, has_aux=True)(1.0)
    assert np.isnan(found[1])
    assert np.isfinite(value)
    assert np.isfinite(slope)


def test_gradient_of_the_likelihood_agrees_with_differences():
    def total(scale):
        return flow(lambda z, t, theta: scale * FIELD(z, t)).log_prob(X)

    h = 1e-5
    np.testing.assert_allclose(jax.grad(total)(1.0), (total(1.0 + h) - total(1.0 - h)) / (2 * h), rtol=1e-6)


@pytest.mark.parametrize("count", [1, 257])
def test_batches_in_single_precision(count):
    model = jax.tree.map(lambda x: x.astype(jnp.float32) if hasattr(x, "dtype") else x, flow(steps=nj.Adaptive()))
    points = jnp.zeros((count, 2), jnp.float32)
    values = jax.vmap(model.log_prob)(points)
    assert values.dtype == jnp.float32
    slopes = jax.vmap(jax.grad(model.log_prob))(points)
    assert np.isfinite(slopes).all()


def test_grid_of_steps_is_taken_both_ways():
    grid = nj.Grid(jnp.linspace(0.0, 1.0, 41))
    np.testing.assert_allclose(flow(steps=grid).log_prob(X), flow().log_prob(X), rtol=1e-6)
    np.testing.assert_allclose(flow(steps=grid).sample(KEY), flow().sample(KEY), rtol=1e-6)


def test_end_is_random_on_the_side_of_the_data():
    ode = nj.NeuralODE(FIELD, steps=FINE, regularizers=(nj.nn.RandomEnd(0.5),))
    model = CNF(ode, 2)
    np.testing.assert_array_equal(model.log_prob(X), flow().log_prob(X))
    found = model.solve(X, key=KEY)
    assert float(found.solution.t_reached) == 0.0
    assert abs(float(found.log_prob - model.log_prob(X))) > 1e-4
    with pytest.raises(ValueError, match="b must be less than"):
        nj.NeuralODE(FIELD, regularizers=(nj.nn.RandomEnd(1.0),))


def test_tolerances_and_parts_of_the_state_of_a_user_are_kept():
    steps = nj.Adaptive(rtol=[1e-10, 1e-10], atol=jnp.array([1e-10, 1e-9]), controlled=first)
    with pytest.raises(ValueError, match="rtol must be a scalar"):
        flow(steps=steps).log_prob(X)
    steps = nj.Adaptive(rtol=[1e-10, 1e-10], atol=jnp.array([1e-10, 1e-9]))
    np.testing.assert_allclose(flow(steps=steps).log_prob(X), flow().log_prob(X), rtol=1e-8)


def test_base_is_not_trained():
    base = distributions.Normal(jnp.zeros(2), jnp.ones(2)).to_event(1)
    slopes = eqx.filter_grad(lambda model: model.log_prob(X))(flow(base=base))
    assert all(np.all(x == 0) for x in jax.tree.leaves(slopes.frozen_base))


def test_samples_are_the_same_with_and_without_density():
    model = flow()
    np.testing.assert_allclose(model.sample(KEY, 3), model.sample_and_log_prob(KEY, 3)[0], rtol=1e-8)


def test_wrong_parts_of_a_flow_are_named():
    with pytest.raises(ValueError, match=r"x must have shape \(2,\), got \(3,\)"):
        flow().log_prob(jnp.zeros(3))
    with pytest.raises(TypeError, match="base must have methods"):
        flow(base=3.0)
    with pytest.raises(TypeError, match="base must have methods"):
        PlanarFlow(2, 3, key=KEY, base=3.0)
    with pytest.raises(ValueError, match="must not have an Augmented field"):
        flow(nj.nn.Augmented(nj.nn.MLPField(3, 8, 1, key=KEY), 1))
    with pytest.raises(TypeError, match=r"trace must be nj.nn.Exact\(\) or nj.nn.Hutchinson\(\)"):
        flow(trace=Hutchinson)
    with pytest.raises(ValueError, match="noise must be one of"):
        Hutchinson(noise="cauchy")


def test_planar_layers_have_the_determinant_of_their_jacobian():
    model = PlanarFlow(2, 6, key=KEY, invert=True)
    expected = model.base.log_prob(model.inverse(X)) + jnp.linalg.slogdet(jax.jacrev(model.inverse)(X))[1]
    np.testing.assert_allclose(model.log_prob(X), expected, rtol=1e-10)
    other = PlanarFlow(2, 6, key=KEY)
    z = other.base.sample(KEY)
    x, log_prob = other.sample_and_log_prob(KEY)
    np.testing.assert_allclose(other.forward(z), x)
    expected = other.base.log_prob(z) - jnp.linalg.slogdet(jax.jacrev(other.forward)(z))[1]
    np.testing.assert_allclose(log_prob, expected, rtol=1e-10)


@pytest.mark.parametrize(("invert", "names"), [(False, ("inverse", "log_prob")), (True, ("forward",))])
def test_planar_flow_refuses_the_way_it_does_not_know(invert, names):
    for name in names:
        with pytest.raises(ValueError, match=rf"{name}: a planar layer has no inverse in closed form"):
            getattr(PlanarFlow(2, 3, key=KEY, invert=invert), name)(X)


def test_planar_flow_refuses_a_condition():
    ways = {False: ("forward", "sample", "sample_and_log_prob"), True: ("inverse", "log_prob")}
    for invert, names in ways.items():
        model = PlanarFlow(2, 3, key=KEY, invert=invert)
        for name in names:
            first = KEY if name.startswith("sample") else X
            with pytest.raises(
                ValueError, match=r"PlanarFlow\.\w+ takes no condition, got condition=3\.0; nj\.nn\.CNF"
            ):
                getattr(model, name)(first, condition=3.0)
    with pytest.raises(ValueError, match="takes no condition"):
        nj.train.nll(PlanarFlow(2, 3, key=KEY, invert=True), (X[None], X[None]), KEY)


@pytest.mark.parametrize("field", [FIELD, nj.nn.HyperField(2, 8, key=KEY)])
def test_points_of_a_batch_with_common_steps_have_the_density_of_each(field):
    xs = jnp.stack([X, 2 * X, -X])
    model = flow(field)
    found = jax.jit(lambda xs: model.solve_batch(xs))(xs)
    assert found.log_prob.shape == (3,)
    assert found.solution.stats.nfe.shape == ()
    np.testing.assert_allclose(found.log_prob, jax.jit(jax.vmap(model.log_prob))(xs), rtol=1e-8)
    samples, log_probs = model.sample_and_log_prob(KEY, (2, 2), common_steps=True)
    assert samples.shape == (2, 2, 2)
    np.testing.assert_allclose(log_probs, jax.vmap(jax.vmap(model.log_prob))(samples), rtol=1e-7)
    with pytest.raises(ValueError, match=r"xs must have shape \(n, 2\), got \(2,\)"):
        model.solve_batch(X)


def test_points_of_a_batch_with_common_steps_have_their_own_conditions_and_penalties():
    field = nj.nn.ConcatSquashField(2, (8,), key=KEY, condition_size=1)
    model = CNF(nj.NeuralODE(field, steps=FINE, regularizers=(nj.nn.Kinetic(),)), 2)
    xs, conditions = jnp.stack([X, X]), jnp.array([[0.5], [-1.0]])
    together = model.solve_batch(xs, conditions)
    alone = jax.vmap(model.solve)(xs, conditions)
    np.testing.assert_allclose(together.log_prob, alone.log_prob, rtol=1e-8)
    np.testing.assert_allclose(together.penalties["kinetic"], alone.penalties["kinetic"], rtol=1e-6)


def test_estimates_with_common_steps_have_noise_of_their_own():
    model = flow(steps=nj.Adaptive(1e-6, 1e-6), trace=Hutchinson())
    found = model.solve_batch(jnp.tile(X, (16, 1)), key=KEY).log_prob
    assert len(np.unique(np.asarray(found).round(6))) > 1
    with pytest.raises(ValueError, match="Hutchinson is random: key"):
        model.solve_batch(jnp.tile(X, (2, 1)))


def test_hypernetwork_is_evaluated_once_for_a_batch_with_common_steps():
    def products(common):
        flow = CNF(nj.NeuralODE(nj.nn.HyperField(2, 8, key=KEY), steps=nj.Fixed(1), method=nj.euler), 2)
        loss = lambda xs: nj.train.nll(flow, xs, KEY, common_steps=common)[0]  # noqa: E731
        text = jax.jit(loss).lower(jnp.zeros((64, 2))).as_text()
        return [line for line in text.splitlines() if "dot_general" in line and "64x32x" in line.replace("tensor<", "")]

    assert products(False)
    assert not products(True)
