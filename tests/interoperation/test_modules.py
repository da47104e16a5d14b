"""One network written in Equinox, in Flax NNX and as a plain function: the same solution, the same gradient."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import node_jax as nj

Z0 = jnp.array([1.0, -0.5])
STARTS = jnp.array([[1.0, -0.5], [0.2, 0.3], [-1.0, 0.8]])


def weights():
    """Two layers, `(in, out)` as Flax has them."""
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = ((2, 5), (5,), (5, 2), (2,))
    return [0.5 * jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


def plain(z, t, theta):
    w1, b1, w2, b2 = theta
    return jnp.tanh(z @ w1 + b1) @ w2 + b2


class EquinoxField(eqx.Module):
    mlp: eqx.nn.MLP

    def __call__(self, z, t, theta):
        return self.mlp(z)


@dataclasses.dataclass(frozen=True)
class FlaxField:
    """What `nnx.split` takes off a module besides its arrays, which are theta."""

    merge: Callable
    graph: Any

    def __call__(self, z, t, theta):
        return self.merge(self.graph, theta)(z)


def in_equinox(values):
    w1, b1, w2, b2 = values
    mlp = eqx.nn.MLP(2, 2, 5, 1, jnp.tanh, key=jax.random.key(1))
    return EquinoxField(eqx.tree_at(_leaves, mlp, (w1.T, b1, w2.T, b2)))


def _leaves(mlp):
    first, second = mlp.layers
    return first.weight, first.bias, second.weight, second.bias


def in_flax(values):
    nnx = pytest.importorskip("flax.nnx")

    class Network(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            self.first = nnx.Linear(2, 5, param_dtype=jnp.float64, rngs=rngs)
            self.second = nnx.Linear(5, 2, param_dtype=jnp.float64, rngs=rngs)

        def __call__(self, z):
            return self.second(jnp.tanh(self.first(z)))

    network = Network()
    w1, b1, w2, b2 = values
    network.first.kernel[...], network.first.bias[...] = w1, b1
    network.second.kernel[...], network.second.bias[...] = w2, b2
    return network


def solve_all(field, theta):
    return jax.vmap(lambda z0: nj.odesolve(field, z0, 0.0, 2.0, theta).z1)(STARTS)


def total(field, theta):
    return jnp.sum(solve_all(field, theta) ** 2)


def of_plain():
    values = weights()
    return solve_all(plain, values), jax.grad(lambda values: total(plain, values))(values)


def test_a_module_of_equinox_is_a_field_and_its_leaves_have_gradients():
    field = in_equinox(weights())
    solution, gradient = of_plain()
    np.testing.assert_allclose(solve_all(field, None), solution, rtol=1e-12)
    slopes = eqx.filter_grad(total)(field, None)
    for ours, theirs in zip(_leaves(slopes.mlp), gradient, strict=True):
        np.testing.assert_allclose(ours.T, theirs, rtol=1e-9, atol=1e-12)


def test_arrays_of_a_flax_module_as_theta_have_gradients():
    nnx = pytest.importorskip("flax.nnx")
    graph, state = nnx.split(in_flax(weights()))
    solution, gradient = of_plain()
    field = FlaxField(nnx.merge, graph)
    np.testing.assert_allclose(solve_all(field, state), solution, rtol=1e-12)
    slopes = jax.grad(lambda state: total(field, state))(state)
    found = (slopes["first"]["kernel"], slopes["first"]["bias"], slopes["second"]["kernel"], slopes["second"]["bias"])
    for ours, theirs in zip(found, gradient, strict=True):
        np.testing.assert_allclose(ours[...], theirs, rtol=1e-9, atol=1e-12)


def test_a_flax_module_that_a_field_closes_over_has_gradients_by_its_own_transformations():
    nnx = pytest.importorskip("flax.nnx")
    _, gradient = of_plain()

    def loss(network):
        def field(z, t, theta):
            return network(z)

        return total(field, None)

    slopes = nnx.grad(loss)(in_flax(weights()))
    np.testing.assert_allclose(slopes["first"]["kernel"][...], gradient[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(slopes["second"]["bias"][...], gradient[3], rtol=1e-9, atol=1e-12)


def spiral(t, z):
    return jnp.stack([-0.1 * z[0] - 2.0 * z[1], 2.0 * z[0] - 0.1 * z[1]])


def pulled(t, z, args):
    rate, target = args
    return rate * (target - z) * (1 + 0.1 * t)


def test_a_field_in_the_order_of_torchdiffeq_solves_to_the_exponential():
    sol = nj.odesolve(nj.from_torchdiffeq(spiral), jnp.array([1.0, 0.0]), 0.0, 3.0, steps=nj.Adaptive(1e-10, 1e-12))
    exact = np.exp(-0.3) * np.array([np.cos(6.0), np.sin(6.0)])
    np.testing.assert_allclose(sol.z1, exact, rtol=1e-8)


def test_a_field_in_the_order_of_diffrax_has_the_solution_and_gradient_of_diffrax():
    diffrax = pytest.importorskip("diffrax")

    def ours(args):
        sol = nj.odesolve(nj.from_diffrax(pulled), Z0, 0.0, 3.0, args, steps=nj.Adaptive(1e-10, 1e-12))
        return jnp.sum(sol.z1**2)

    def theirs(args):
        control = diffrax.PIDController(rtol=1e-10, atol=1e-12)
        sol = diffrax.diffeqsolve(
            diffrax.ODETerm(pulled), diffrax.Tsit5(), 0.0, 3.0, None, Z0, args, stepsize_controller=control
        )
        return jnp.sum(sol.ys[-1] ** 2)

    args = (jnp.asarray(0.4), jnp.array([0.3, 0.9]))
    got, want = (jax.value_and_grad(f)(args) for f in (ours, theirs))
    np.testing.assert_allclose(got[0], want[0], rtol=1e-8)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got[1], want[1])
