"""States of every floating dtype and of every structure, and fields of every kind."""

import functools

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import node_jax as nj
from node_jax import testing

RATE = 0.7


def shrink(z, t, theta):
    """Decay of every leaf, at the rate 0.7 whatever the dtype."""
    return jax.tree.map(lambda x: -jnp.asarray(RATE, jnp.finfo(x.dtype).dtype) * x, z)


def phase(z, t, theta):
    return jax.tree.map(lambda x: jnp.asarray(1j, x.dtype) * x, z)


EPS = {
    "float64": 1e-5,
    "float32": 1e-4,
    "complex128": 1e-5,
    "complex64": 1e-4,
    "bfloat16": 2e-2,
    "float16": 2e-3,
}


@pytest.mark.parametrize("dtype", EPS)
def test_the_state_keeps_its_dtype_and_the_solution_is_right(dtype):
    z0 = jnp.asarray([1.0, -2.0], dtype)
    time = jnp.finfo(jnp.result_type(jnp.float32, z0)).dtype
    sol = nj.odesolve(shrink, z0, 0.0, 1.0, save=nj.SaveAt(jnp.array([0.5, 1.0], time)))
    assert sol.z1.dtype == sol.zs.dtype == z0.dtype
    assert sol.ts.dtype == sol.t_reached.dtype == time
    scale = np.exp(-RATE * np.array([0.5, 1.0]))[:, None]
    got = np.asarray(sol.zs).astype(complex)
    np.testing.assert_allclose(got, scale * np.array([1.0, -2.0]), rtol=EPS[dtype])


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_a_complex_state_turns_by_its_phase(dtype):
    sol = nj.odesolve(phase, jnp.asarray([1.0, 1j], dtype), 0.0, 1.0)
    np.testing.assert_allclose(sol.z1, np.exp(1j) * np.array([1.0, 1j]), rtol=EPS[dtype])


@pytest.mark.parametrize("dtype", ["float32", "complex64", "float64", "complex128", "bfloat16"])
def test_the_gradient_has_the_dtype_of_the_state(dtype):
    def loss(z0):
        z1 = nj.odesolve(shrink, z0, 0.0, 1.0, steps=nj.Fixed(8), method=nj.rk4).z1
        return jnp.sum(jnp.real(z1))

    z0 = jnp.asarray([1.0, -2.0], dtype)
    gradient = jax.grad(loss)(z0)
    assert gradient.dtype == z0.dtype
    np.testing.assert_allclose(np.asarray(gradient).astype(complex), np.exp(-RATE), rtol=EPS[dtype])


MIXED = {
    "matrix": jnp.ones((2, 3), jnp.float32),
    "scalar": jnp.asarray(2.0, jnp.float64),
    "pair": (jnp.ones(2, jnp.complex64), jnp.ones((1, 1, 2), jnp.bfloat16)),
    "empty": jnp.zeros((0, 4), jnp.float32),
    "none": None,
}


@pytest.mark.parametrize(
    "save",
    [nj.SaveEnd(), nj.SaveAt(np.array([0.5, 1.0])), nj.SaveSteps(32), nj.Dense(32)],
    ids=lambda s: type(s).__name__,
)
def test_a_tree_of_mixed_shapes_and_dtypes_keeps_them(save):
    sol = nj.odesolve(shrink, MIXED, 0.0, 1.0, method=nj.bosh3, steps=nj.Fixed(32), save=save)
    chex.assert_trees_all_equal_shapes_and_dtypes(sol.z1, MIXED)
    np.testing.assert_allclose(sol.z1["scalar"], 2.0 * np.exp(-RATE), rtol=1e-5)
    np.testing.assert_allclose(sol.z1["matrix"], np.full((2, 3), np.exp(-RATE)), rtol=1e-5)
    if sol.interpolant is not None:
        half = sol.evaluate(jnp.array([0.5]))
        chex.assert_trees_all_equal_dtypes(half, MIXED)
        np.testing.assert_allclose(half["scalar"], [2.0 * np.exp(-RATE / 2)], rtol=1e-5)
        assert half["empty"].shape == (1, 0, 4)


def warming(z, t, rate):
    return (-rate * t * z).astype(z.dtype)


def test_a_field_of_few_components_may_see_times_with_more_digits_than_they_have():
    def loss(rate):
        grid = nj.Grid(jnp.linspace(0.0, 1.0, 5, dtype=jnp.float64))
        run = jax.vmap(lambda z: nj.odesolve(warming, z, 0.0, 1.0, rate, steps=grid, method=nj.rk4).z1)
        return run(jnp.ones(3, jnp.float32)).sum()

    np.testing.assert_allclose(jax.grad(loss)(jnp.float32(1.0)), -1.5 * np.exp(-0.5), rtol=1e-4)


def test_a_vmapped_tree_of_mixed_dtypes_equals_its_lanes():
    batch = jax.tree.map(lambda x: jnp.stack([x, 3 * x]), MIXED)
    run = jax.jit(lambda z: nj.odesolve(shrink, z, 0.0, 1.0, steps=nj.Fixed(8), method=nj.rk4).z1)
    many, one = jax.vmap(run)(batch), run(MIXED)
    chex.assert_trees_all_equal_shapes_and_dtypes(many, batch)
    np.testing.assert_allclose(many["matrix"][0], one["matrix"], rtol=1e-6)
    np.testing.assert_allclose(many["scalar"], [one["scalar"], 3 * one["scalar"]], rtol=1e-13)


def test_a_scalar_state_may_be_a_python_float():
    sol = nj.odesolve(shrink, 1.0, 0, 1)
    assert sol.z1.shape == ()
    assert sol.z1.dtype == jnp.float64
    np.testing.assert_allclose(sol.z1, np.exp(-RATE), rtol=1e-5)


@pytest.mark.parametrize("z0", [(), {}, jnp.zeros(0), [jnp.zeros((3, 0))]], ids=str)
@pytest.mark.parametrize("steps", [nj.Adaptive(), nj.Fixed(3)], ids=["Adaptive", "Fixed"])
def test_a_state_without_elements_is_solved(z0, steps):
    sol = nj.odesolve(shrink, z0, 0.0, 1.0, steps=steps)
    assert sol.ok
    assert sol.t_reached == 1.0
    chex.assert_trees_all_equal_shapes_and_dtypes(sol.z1, z0)


SEEN = []


def notes_the_dtype_of_time(z, t, theta):
    SEEN.append((t.dtype, t.shape))
    return -z


@pytest.mark.parametrize(
    ("z", "time"),
    [
        ("float32", "float32"),
        ("float64", "float64"),
        ("bfloat16", "float32"),
        ("complex64", "float32"),
        ("complex128", "float64"),
    ],
)
def test_the_field_sees_scalar_times_of_the_states_real_dtype(z, time):
    SEEN.clear()
    nj.odesolve(notes_the_dtype_of_time, jnp.ones(2, z), 0, 1.0, method=nj.rk4, steps=nj.Fixed(2))
    assert SEEN
    assert set(SEEN) == {(jnp.dtype(time), ())}


def stays_put(z, t, theta):
    return jax.tree.map(jnp.zeros_like, z)


def test_a_field_of_zeros_returns_the_start():
    sol = nj.odesolve(stays_put, MIXED, 0.0, 1e6)
    chex.assert_trees_all_equal(sol.z1, MIXED)


# Fields of every kind.


class Module(eqx.Module):
    weight: jax.Array
    scale: float
    act: object = jnp.tanh

    def __call__(self, z, t, theta):
        return self.scale * self.act(self.weight @ z)


def test_a_module_is_a_field_and_its_arrays_get_gradients():
    module = Module(jnp.array([[0.1, 0.2], [-0.3, 0.4]]), -0.5)

    @eqx.filter_jit
    def loss(module):
        return jnp.sum(nj.odesolve(module, jnp.ones(2), 0.0, 1.0, steps=nj.Fixed(8), method=nj.rk4).z1)

    gradient = eqx.filter_grad(loss)(module)
    assert gradient.weight.shape == (2, 2)
    testing.assert_gradient(lambda weight: loss(eqx.tree_at(lambda m: m.weight, module, weight)), module.weight)


def test_a_bound_method_a_partial_and_a_closure_are_fields():
    rate = jnp.array(0.7)

    def closed_over(z, t, theta):
        return -rate * z

    fields = [closed_over, functools.partial(with_rate, rate), Holder(rate).field]
    for f in fields:
        np.testing.assert_allclose(nj.odesolve(f, 1.0, 0.0, 1.0).z1, np.exp(-0.7), rtol=1e-5)


def with_rate(rate, z, t, theta):
    return -rate * z


class Holder:
    def __init__(self, rate):
        self.rate = rate

    def field(self, z, t, theta):
        return -self.rate * z


def parametrised(z, t, rate, shift):
    return -rate * z + shift


def torch_style(t, z):
    return -RATE * z


def diffrax_style(t, z, args):
    return -args["rate"] * z


def test_odeint_passes_its_arguments_and_returns_the_states():
    ts = jnp.linspace(0.0, 1.0, 4)
    zs = nj.odeint(parametrised, jnp.ones(2), ts, 0.7, jnp.zeros(2), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(zs, np.exp(-0.7 * ts)[:, None] * np.ones(2), rtol=1e-6)


def test_odeint_runs_backwards_and_at_a_single_time():
    zs = nj.odeint(parametrised, {"a": jnp.ones(2)}["a"], jnp.array([1.0, 0.0]), 0.7, 0.0)
    np.testing.assert_allclose(zs[1], np.exp(0.7) * np.ones(2), rtol=1e-5)
    np.testing.assert_array_equal(nj.odeint(parametrised, jnp.ones(2), jnp.array([3.0]), 0.7, 0.0), np.ones((1, 2)))


def test_fields_of_other_packages_are_rearranged():
    sol = nj.odesolve(nj.from_torchdiffeq(torch_style), 1.0, 0.0, 1.0)
    np.testing.assert_allclose(sol.z1, np.exp(-RATE), rtol=1e-5)
    sol = nj.odesolve(nj.from_diffrax(diffrax_style), 1.0, 0.0, 1.0, {"rate": 0.7})
    np.testing.assert_allclose(sol.z1, np.exp(-0.7), rtol=1e-5)


@pytest.mark.parametrize(
    "theta",
    [None, 0.7, 1, np.float32(0.7), {"rate": jnp.array(0.7), "act": jnp.tanh, "n": 3}],
    ids=["None", "float", "int", "scalar", "dict"],
)
def test_theta_may_be_any_tree(theta):
    assert nj.odesolve(uses_rate, 1.0, 0.0, 1.0, theta).ok


def uses_rate(z, t, theta):
    if isinstance(theta, dict):
        assert theta["act"] is jnp.tanh
        theta = theta["rate"] * theta["n"]
    return -z if theta is None else -jnp.asarray(theta, z.dtype) * z


# The checks of testing.py find what they look for.


@pytest.mark.parametrize(
    ("f", "words"),
    [
        (lambda z, t, theta: z[0], "structure"),
        (lambda z, t, theta: (z[0], z[1][:1]), r"leaf z\[1\] has shape \(2,\), that of the slope is \(1,\)"),
        (lambda z, t, theta: (z[0].astype(jnp.float32), z[1]), r"leaf z\[0\] has dtype float64.*float32"),
        (lambda z, t, theta: (z[0], z[1] / 0.0), r"leaf z\[1\]: 2 of 2 entries of the slope are not finite"),
    ],
)
def test_assert_field_names_what_differs(f, words):
    with pytest.raises(AssertionError, match=words):
        testing.assert_field(f, (jnp.ones(()), jnp.ones(2)))


def test_assert_field_passes_the_fields_it_comes_with():
    testing.assert_field(testing.decay, jnp.ones(3), 0.0, 2.0)
    testing.assert_field(testing.lotka_volterra, jnp.ones(2), 0.0, (1.5, 1.0, 3.0, 1.0))


@pytest.mark.parametrize("method", nj.methods.METHODS, ids=str)
def test_assert_method_order_passes_every_method_and_refuses_a_higher_order(method):
    testing.assert_method_order(method)
    with pytest.raises(
        AssertionError, match=f"expected order {method.order + 1}, observed {method.order}|{method.order - 1}"
    ):
        testing.assert_method_order(method, method.order + 1)


STABILITY = {
    "euler": 2.0,
    "midpoint": 2.0,
    "heun": 2.0,
    "ralston": 2.0,
    "rk4": 2.785,
    "rk38": 2.785,
    "bosh3": 2.513,
}


@pytest.mark.parametrize("method", nj.methods.METHODS, ids=str)
def test_the_real_stability_interval_is_that_of_the_polynomial_of_the_tableau(method):
    a = np.zeros((len(method.c), len(method.c)))
    for i, row in enumerate(method.a):
        a[i, : len(row)] = row
    b = np.zeros(len(method.c))
    b[: len(method.b)] = method.b
    powers = [b @ np.linalg.matrix_power(a, k) @ np.ones(len(b)) for k in range(len(b))]
    polynomial = np.polynomial.Polynomial([1.0, *powers])
    y = np.linspace(0.0, 12.0, 120_001)
    first = int(np.argmax(np.abs(polynomial(-y)) > 1 + 1e-9))
    assert STABILITY.get(str(method), y[first]) == pytest.approx(y[first], abs=2e-3)
    testing.assert_stability_interval(method, float(y[first]), tolerance=2e-3)
    with pytest.raises(AssertionError, match="expected stability"):
        testing.assert_stability_interval(method, float(y[first]) + 0.1)


@jax.custom_vjp
def wrong_gradient(x):
    return jnp.sum(x**2)


wrong_gradient.defvjp(lambda x: (jnp.sum(x**2), x), lambda x, g: (2.001 * g * x,))


def right(x):
    return jnp.sum(jnp.sin(x["a"]) ** 2) * jnp.real(x["b"] * jnp.conj(x["b"])) + jnp.real(x["b"] ** 2)


def test_assert_gradient_tells_right_from_wrong():
    testing.assert_gradient(right, {"a": jnp.arange(3.0), "b": jnp.array(0.3 + 0.4j), "n": jnp.array(3)})
    with pytest.raises(AssertionError, match="differences give"):
        testing.assert_gradient(wrong_gradient, jnp.arange(1.0, 4.0))
    with pytest.raises(AssertionError, match="differences give nan"):
        testing.assert_gradient(lambda x: jnp.log(x - 5.0), jnp.array(1.0))
    with pytest.raises(ValueError, match="floating"):
        testing.assert_gradient(lambda n: 1.0 * n, 3)


def test_a_solve_has_the_gradient_of_its_differences():
    def loss(z0, theta):
        sol = nj.odesolve(testing.lotka_volterra, z0, 0.0, 2.0, theta, steps=nj.Fixed(20), method=nj.rk4)
        return jnp.sum(sol.z1**2)

    testing.assert_gradient(loss, jnp.ones(2), jnp.array([1.5, 1.0, 3.0, 1.0]))
