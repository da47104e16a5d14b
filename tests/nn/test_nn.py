"""Vector fields and the NeuralODE module."""

import subprocess
import sys
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import node_jax as nj

KEY = jax.random.key(0)


def decay(z, t, rate):
    return -rate * z


def test_importing_the_package_imports_neither_matplotlib_nor_tqdm():
    check = "import sys, node_jax; assert not {'matplotlib', 'tqdm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=120)


def test_model_of_a_plain_function_is_its_exact_flow():
    model = nj.NeuralODE(decay, 0.0, 2.0, theta=jnp.array(0.7), steps=nj.Adaptive(rtol=1e-9, atol=1e-9))
    np.testing.assert_allclose(model(jnp.ones(3)), np.exp(-1.4) * np.ones(3), rtol=1e-8)


def test_trajectory_starts_at_t0_and_may_go_beyond_t1():
    model = nj.NeuralODE(decay, 0.0, 1.0, theta=jnp.array(1.0), steps=nj.Adaptive(rtol=1e-9, atol=1e-9))
    ts = jnp.array([0.0, 0.5, 3.0])
    np.testing.assert_allclose(model.trajectory(jnp.ones(()), ts), np.exp(-np.asarray(ts)), rtol=1e-7)
    np.testing.assert_allclose(model.trajectory(jnp.ones(()), ts[1:]), np.exp(-np.asarray(ts[1:])), rtol=1e-7)


def test_options_of_a_call_replace_those_of_the_module():
    model = nj.NeuralODE(decay, 0.0, 1.0, theta=jnp.array(1.0))
    sol = model.solve(jnp.ones(()), t1=2.0, method=nj.rk4, steps=nj.Fixed(200))
    np.testing.assert_allclose(sol.z1, np.exp(-2.0), rtol=1e-8)
    assert int(sol.stats.accepted) == 200


def test_vmap_of_a_model_equals_its_calls_one_by_one():
    model = nj.NeuralODE(nj.nn.MLPField(3, 8, 1, key=KEY))
    z0s = jax.random.normal(KEY, (5, 3))
    each = jnp.stack([model(z0) for z0 in z0s])
    np.testing.assert_allclose(jax.vmap(model)(z0s), each, rtol=1e-12, atol=1e-14)


def test_gradient_reaches_weights_and_a_trained_end_time():
    model = nj.NeuralODE(nj.nn.MLPField(2, 8, 1, key=KEY), 0.0, jnp.array(1.0))
    z0 = jnp.ones(2)
    gradient = eqx.filter_grad(lambda model: jnp.sum(model(z0)))(model)
    np.testing.assert_allclose(gradient.t1, jnp.sum(model.field(model(z0), 1.0)), rtol=1e-5)
    assert all(jnp.any(x != 0) for x in jax.tree.leaves(gradient.field))


def test_time_dependent_field_sees_the_time_and_the_other_does_not():
    z = jnp.ones(2)
    for sees in (True, False):
        field = nj.nn.MLPField(2, 8, 1, key=KEY, time_dependent=sees)
        assert bool(jnp.any(field(z, 0.0) != field(z, 1.0))) is sees
        assert nj.NeuralODE(field)(z).shape == (2,)


def test_field_keeps_the_dtype_of_the_state():
    field = nj.nn.MLPField(2, 8, 1, key=KEY)
    assert field(jnp.ones(2, jnp.float32), 0.0).dtype == jnp.float32
    assert field(jnp.ones(2, jnp.float64), 0.0).dtype == jnp.float64


@pytest.mark.parametrize(("name", "value"), [("size", 0), ("width", -3), ("depth", -1)])
def test_wrong_sizes_of_a_field_are_named(name, value):
    sizes: dict[str, Any] = {"size": 2, "width": 8, "depth": 1} | {name: value}
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least .*, got {value}"):
        nj.nn.MLPField(**sizes, key=KEY)


def test_state_of_the_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"z must have shape \(2,\), got \(5, 2\); use jax.vmap"):
        nj.nn.MLPField(2, 8, 1, key=KEY)(jnp.ones((5, 2)), 0.0)


def test_field_that_cannot_be_called_is_named():
    with pytest.raises(TypeError, match="field must be callable"):
        nj.NeuralODE(3.0)


@pytest.mark.parametrize(("name", "value"), [("method", "rk4"), ("steps", 8), ("adjoint", nj.Checkpointed)])
def test_parts_of_a_layer_that_are_none_are_named(name, value):
    with pytest.raises(TypeError, match=f"{name} must be"):
        nj.NeuralODE(nj.nn.MLPField(2, 8, 1, key=KEY), **{name: value})


def test_sample_of_another_shape_is_named():
    model = nj.nn.Classifier.create((4,), 3, width=8, key=KEY)
    with pytest.raises(ValueError, match=r"x must be a sample of shape \(4,\), got \(5, 4\): jax.vmap"):
        model(jnp.ones((5, 4)))


def test_hare_and_lynx_record_is_whole():
    record = nj.datasets.hare_lynx()
    assert record.years.tolist() == list(range(1900, 1921))
    assert record.hare.shape == record.lynx.shape == (21,)
    assert float(record.lynx[-1]) == 8.6
