"""The fields of `nj.nn`: formulas, shapes, conditions and closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import node_jax as nj
from node_jax.nn import conv

KEY = jax.random.key(0)
Z = jax.random.normal(jax.random.key(1), (3,))
FIELDS = {
    "mlp": nj.nn.MLPField(3, 8, 1, key=KEY, time_dependent=True, condition_size=2),
    "concat": nj.nn.ConcatField(3, (8, 8), key=KEY, condition_size=2),
    "squash": nj.nn.ConcatSquashField(3, (8, 8), key=KEY, condition_size=2),
    "hyper": nj.nn.HyperField(3, 8, key=KEY, condition_size=2),
    "polynomials": nj.nn.Galerkin(nj.nn.MLPField(3, 8, 1, key=KEY, time_dependent=True, condition_size=2)),
}
PLANAR = {
    "planar": nj.nn.PlanarField(3, 8, key=KEY),
    "planar without gates": nj.nn.PlanarField(3, 8, key=KEY, gate=False),
    "hyper": nj.nn.HyperField(3, 8, key=KEY),
    "polynomials": nj.nn.Galerkin(nj.nn.PlanarField(3, 8, key=KEY)),
}


class Turning(eqx.Module):
    rate: jax.Array

    def __call__(self, z, t, theta=None):
        return self.rate * z


def sizes(module):
    return sum(x.size for x in jax.tree.leaves(eqx.filter(module, eqx.is_array)))


@pytest.mark.parametrize("name", FIELDS)
def test_field_depends_on_state_time_and_condition_and_refuses_other_shapes(name):
    field, condition = FIELDS[name], jnp.array([0.3, -1.0])
    slope = field(Z, 0.5, condition)
    assert slope.shape == Z.shape
    assert slope.dtype == Z.dtype
    for other in (field(Z + 1, 0.5, condition), field(Z, 0.7, condition), field(Z, 0.5, condition + 1)):
        assert np.max(np.abs(other - slope)) > 1e-6
    assert field(Z.astype(jnp.float32), 0.5, condition).dtype == jnp.float32
    with pytest.raises(ValueError, match=r"z must have shape \(3,\), got \(4,\)"):
        field(jnp.zeros(4), 0.5, condition)
    with pytest.raises(ValueError, match=r"condition, must have shape \(2,\), got None"):
        field(Z, 0.5)
    with pytest.raises(ValueError, match=r"condition, must have shape \(2,\), got shape \(3,\)"):
        field(Z, 0.5, jnp.zeros(3))


TAKE_ARRAYS = [
    *((field, Z, 0.5, np.array([0.3, -1.0])) for field in FIELDS.values()),
    *((field.divergence, Z, 0.5) for field in PLANAR.values()),
    (nj.nn.ConvField(2, key=KEY), np.ones((2, 6, 6)), 0.5),
    (nj.nn.Residual(nj.nn.MLPField(3, 8, 1, key=KEY)), Z),
    (nj.nn.Augmented(nj.nn.MLPField(4, 8, 1, key=KEY), 1).lifted, Z),
    (nj.nn.PlanarFlow(3, 2, key=KEY).forward, Z),
    (nj.nn.PlanarFlow(3, 2, key=KEY, invert=True).log_prob, Z),
    (nj.nn.CNF(nj.NeuralODE(nj.nn.PlanarField(3, 4, key=KEY), steps=nj.Fixed(2)), 3).log_prob, Z),
    (nj.nn.CNF(nj.NeuralODE(nj.nn.PlanarField(3, 4, key=KEY), steps=nj.Fixed(2)), 3).forward, Z),
    (nj.nn.Classifier.create((1, 8, 8), 3, width=4, key=KEY, steps=nj.Fixed(2)), np.ones((1, 8, 8))),
    (nj.nn.LatentODE.create(1, 3, 4, key=KEY, steps=nj.Fixed(2)).decode, Z, np.array([0.0, 0.5])),
    (nj.datasets.Checkerboard().log_prob, Z[:2]),
    (nj.datasets.Moons().log_prob, Z[:2]),
]


@pytest.mark.parametrize(("fn", "args"), [(fn, args) for fn, *args in TAKE_ARRAYS])
def test_numpy_arrays_are_taken_where_arrays_go(fn, args):
    got = fn(*(np.asarray(x) if np.ndim(x) else x for x in args))
    assert isinstance(got, jax.Array)
    np.testing.assert_allclose(got, fn(*map(jnp.asarray, args)), rtol=1e-12)


@pytest.mark.parametrize("kind", [nj.nn.ConcatField, nj.nn.ConcatSquashField])
def test_layers_are_the_formulas_of_the_docstring(kind):
    field = kind(3, (5,), key=KEY, activation=jax.nn.softplus)
    t, x = 0.7, np.asarray(Z)
    for i, layer in enumerate(field.layers):
        w, b, c = layer.linear.weight, layer.linear.bias, layer.shift.weight[:, 0]
        x = np.asarray(jax.nn.softplus(x)) if i else x
        gate = 1.0
        if kind is nj.nn.ConcatSquashField:
            gate = 1 / (1 + np.exp(-(layer.gate.weight[:, 0] * t + layer.gate.bias)))
        x = (w @ x + b) * gate + c * t
    np.testing.assert_allclose(field(Z, t), x, rtol=1e-12)


@pytest.mark.parametrize("name", PLANAR)
def test_planar_divergence_is_the_trace_of_the_jacobian(name):
    field = PLANAR[name]
    trace = jnp.trace(jax.jacfwd(lambda z: field(z, 0.4))(Z))
    np.testing.assert_allclose(field.divergence(Z, 0.4), trace, rtol=1e-12)


def test_gates_and_hypernetworks_make_the_field_depend_on_time():
    changes = {name: float(np.max(np.abs(field(Z, 0.1) - field(Z, 0.9)))) for name, field in PLANAR.items()}
    assert changes["planar without gates"] == 0.0
    assert changes["planar"] > 1e-6
    assert changes["hyper"] > 1e-6


def test_weights_of_a_galerkin_field_are_legendre_series_of_the_time():
    plain = nj.nn.PlanarField(3, 8, key=KEY, gate=False)
    field = nj.nn.Galerkin(plain, 4, t0=1.0, t1=3.0)
    np.testing.assert_array_equal(field(Z, 1.7), plain(Z, 1.7))  # as it begins
    noise = jax.random.normal(KEY, field.coefficients.fixed.u.shape)
    field = eqx.tree_at(lambda field: field.coefficients.fixed.u, field, noise)
    for t in (1.0, 1.7, 3.0):
        np.testing.assert_allclose(field.at(t).fixed.u, np.polynomial.legendre.legval(t - 2.0, noise), rtol=1e-12)
    for t, end in ((0.5, 1.0), (3.5, 3.0)):
        np.testing.assert_array_equal(field(Z, t), field(Z, end))
    np.testing.assert_array_equal(field.at(1.0).fixed.w, plain.fixed.w)


def test_a_galerkin_field_may_have_complex_weights():
    field = nj.nn.Galerkin(Turning(jnp.array(2.0 + 1.0j)), 3)
    field = eqx.tree_at(lambda field: field.coefficients.rate, field, jnp.array([2.0 + 1.0j, 1.0, 0.0]))
    z1 = nj.odesolve(field, jnp.array([1.0 + 0.0j]), 0.0, 1.0).z1
    np.testing.assert_allclose(z1, np.exp([2.0 + 1.0j]), rtol=1e-5)  # the second polynomial has no mean


@pytest.mark.usefixtures("float32")
def test_galerkin_fields_of_lanes_have_the_gradients_of_single_solves():
    field = nj.nn.Galerkin(Turning(jnp.array(-0.5)), 4)
    rate = jnp.array([-0.5, 0.3, 0.0, 0.1])

    def end(rate, z0):
        moved = eqx.tree_at(lambda field: field.coefficients.rate, field, rate)
        return nj.NeuralODE(moved, steps=nj.Adaptive(1e-4, 1e-6))(z0)

    def total(rate, z0s):
        return jnp.sum(jax.vmap(end, (None, 0))(rate, z0s))

    for lanes in (1, 257, 3000):
        z0s = jnp.linspace(0.5, 2.0, lanes)
        each = jax.jit(jax.vmap(jax.grad(end), (None, 0)))(rate, z0s)
        whole = jax.jit(jax.grad(total))(rate, z0s)
        want = np.outer(z0s, np.exp(-0.5) * np.array([1.0, 0.0, 0.0, 0.0]))
        np.testing.assert_allclose(each, want, atol=2e-3)
        np.testing.assert_allclose(whole, each.sum(0), rtol=1e-3, atol=1e-4 * lanes)


@pytest.mark.parametrize("terms", [1, 2, 3])
def test_a_galerkin_field_has_as_many_weights_as_terms_and_leaves_frozen_ones_alone(terms):
    held = nj.nn.Frozen(nj.nn.MLPField(3, 8, 1, key=KEY))
    field = nj.nn.Galerkin(nj.nn.Batched(FIELDS["mlp"]), terms)
    assert sizes(field) == terms * sizes(FIELDS["mlp"])
    with pytest.raises(ValueError, match="field must have floating arrays as weights, got Frozen"):
        nj.nn.Galerkin(held, terms)


def test_a_galerkin_field_without_a_closed_form_has_its_divergence_by_forward_mode():
    field = nj.nn.Galerkin(nj.nn.MLPField(3, 8, 1, key=KEY))
    trace = jnp.trace(jax.jacfwd(lambda z: field(z, 0.4))(Z))
    np.testing.assert_allclose(field.divergence(Z, 0.4), trace, rtol=1e-12)


def test_hypernetwork_has_the_sizes_of_the_example_of_torchdiffeq():
    field = nj.nn.HyperField(2, 64, key=KEY)
    assert sizes(field) == (1 * 32 + 32) + (32 * 32 + 32) + 33 * (3 * 64 * 2 + 64)


def test_convolutional_field_sees_time_and_keeps_the_shape():
    field = nj.nn.ConvField(4, width=6, key=KEY)
    image = jax.random.normal(KEY, (4, 5, 7))
    assert field(image, 0.5).shape == image.shape
    assert np.max(np.abs(field(image, 0.5) - field(image, 0.6))) > 1e-6
    with pytest.raises(ValueError, match="z must have shape"):
        field(jnp.zeros((3, 5, 7)), 0.5)
    with pytest.raises(ValueError, match="kernel must be odd"):
        nj.nn.ConvField(4, key=KEY, kernel=2)
    with pytest.raises(ValueError, match="groups must divide"):
        nj.nn.ConvField(4, key=KEY, groups=3)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_product_of_matrices_is_the_convolution(kernel):
    image, weight = jax.random.normal(KEY, (3, 5, 7)), jax.random.normal(KEY, (4, 3, kernel, kernel))
    np.testing.assert_allclose(conv._by_product(image, weight), conv._by_convolution(image, weight), atol=1e-12)


def test_images_of_another_dtype_than_the_weights_keep_theirs():
    field, image = nj.nn.ConvField(4, key=KEY), jnp.ones((4, 6, 6), jnp.float32)
    assert field(image, 0.5).dtype == jnp.float32
    model = nj.nn.Classifier.create((1, 8, 8), 10, width=4, key=KEY)
    assert np.isfinite(model(jnp.ones((1, 8, 8), jnp.float32))).all()


def test_frozen_modules_are_called_and_have_no_derivative():
    model = nj.NeuralODE(nj.nn.Frozen(FIELDS["mlp"]), theta=jnp.zeros(2))
    slopes = eqx.filter_grad(lambda model: jnp.sum(model(Z)))(model)
    assert all(np.all(x == 0) for x in jax.tree.leaves(slopes.field))
    assert np.any(slopes.theta != 0)


def test_classifier_of_mnist_has_the_official_number_of_parameters():
    model = nj.nn.Classifier.create((1, 28, 28), 10, key=KEY)
    assert sizes(model) == 208_266


def test_one_euler_step_is_the_residual_block_bit_for_bit():
    field = nj.nn.MLPField(3, 8, 1, key=KEY)
    model = nj.NeuralODE(field, steps=nj.Fixed(1), method=nj.euler)
    block = nj.nn.Residual(field)
    z0s = jax.random.normal(KEY, (64, 3))
    for run in (lambda f: jax.jit(lambda z: f(z))(Z), lambda f: jax.jit(lambda zs: jax.vmap(f)(zs))(z0s)):
        np.testing.assert_array_equal(run(model), run(block))


def test_augmented_field_appends_zeros_to_vectors_and_images():
    field = nj.nn.Augmented(nj.nn.MLPField(5, 8, 1, key=KEY), extra=2)
    model = nj.NeuralODE(field)
    np.testing.assert_array_equal(model(Z), nj.NeuralODE(field.field)(jnp.append(Z, jnp.zeros(2))))
    assert model.trajectory(Z, jnp.array([0.5, 1.0])).shape == (2, 5)
    assert nj.nn.Augmented(None, extra=2).lifted(jnp.ones((3, 4, 4))).shape == (5, 4, 4)
    with pytest.raises(ValueError, match="extra must be an integer of at least 1, got 0"):
        nj.nn.Augmented(field, extra=0)
    with pytest.raises(ValueError, match="one array with an axis"):
        model(jnp.ones(()))


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: nj.nn.MLPField(0, 8, 1, key=KEY), "size must be an integer of at least 1, got 0"),
        (lambda: nj.nn.ConcatField(2, 8, key=KEY), "widths must be a tuple"),
        (lambda: nj.nn.ConcatField(2, (8, -1), key=KEY), r"widths\[1\] must be"),
        (lambda: nj.nn.PlanarField(2, True, key=KEY), "width must be an integer of at least 1, got True"),
        (lambda: nj.nn.HyperField(2, key=KEY, condition_size=-1), "condition_size must be an integer of at least 0"),
        (lambda: nj.nn.Galerkin(FIELDS["mlp"], 0), "terms must be an integer of at least 1, got 0"),
        (lambda: nj.nn.Galerkin(FIELDS["mlp"], t0=1.0), "must be finite and differ, got t0=1.0 and t1=1.0"),
        (lambda: nj.nn.Galerkin(FIELDS["mlp"], t0=np.nan), "must be finite and differ, got t0=nan"),
    ],
)
def test_sizes_that_make_no_sense_are_named(make, word):
    with pytest.raises(ValueError, match=word):
        make()
