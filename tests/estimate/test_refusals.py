"""Wrong arguments of `fit_parameters` are named with their value."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import node_jax as nj
from node_jax.estimate.parameters import marked

TS = np.array([0.0, 1.0, 2.0])
SEEN = np.array([1.0, 0.5, 0.3])


def decay(z, t, theta):
    return -theta["rate"] * z


def text(z, theta):
    return jnp.zeros(2)


def total(predicted, observed):
    return jnp.sum((predicted - observed) ** 2)


def pair(z, t, theta):
    return z, z


def longer(z, t, theta):
    return jnp.stack([z, z])


def by_time(z, t):
    return -z * t


RIGHT = {"f": decay, "z0": 1.0, "theta": {"rate": 1.0}, "ts": TS, "observed": SEEN, "t0": 0.0}
LATE = 1.7e9 + np.array([0.0, 1e-7, 2e-7])

WRONG = [
    ({"f": 3}, TypeError, "f must be callable as .* got 3"),
    ({"f": pair}, TypeError, r"^f\(z, t, theta\) must return a pytree like z0 = \(\(\), 'float64'\), got \(\("),
    ({"f": longer}, TypeError, r"^f\(z, t, theta\) must return .* z0 = \(\(\), 'float64'\), got \(\(2,\), 'float64'\)"),
    ({"f": by_time}, TypeError, r"^f failed as f\(z, t, theta\), .*by_time.* takes two arguments"),
    ({"observe": "log"}, TypeError, "observe must be callable as .* got 'log'"),
    ({"observe": text}, ValueError, r"observe\(z, theta\) must return an array of shape \(\), .* got .*2"),
    ({"z0": jnp.ones(2)}, ValueError, r"without observe, z0 must be an array of shape \(\)"),
    ({"ts": 1.0}, ValueError, r"ts must have shape \(n,\)"),
    ({"ts": [], "observed": []}, ValueError, r"ts must have shape \(n,\) with n >= 1"),
    ({"ts": TS[::-1]}, ValueError, "ts must be sorted and begin at t0=0.0 or later"),
    ({"t0": 0.5}, ValueError, "ts must be sorted and begin at t0=0.5 or later"),
    ({"ts": [0.0, np.nan, 1.0]}, ValueError, "ts and t0 must be finite"),
    ({"t0": [0.0]}, ValueError, r"t0 must be a real scalar, got \[0.0\]"),
    ({"observed": SEEN[:2]}, ValueError, r"observed must have 3 rows, one for each of ts, got shape \(2,\)"),
    ({"observed": [1.0, np.inf, 0.0]}, ValueError, "observed must be finite, or NaN where it is missing"),
    ({"observed": SEEN * 1j}, TypeError, "observed must be an array of real numbers"),
    ({"mask": [1, 1, 0]}, ValueError, r"mask must be bool of shape \(3,\) or \(3,\), got int"),
    ({"mask": [True]}, ValueError, r"mask must be bool of shape \(3,\) or \(3,\), got bool \(1,\)"),
    ({"mask": [False] * 3}, ValueError, r"as many values as there are parameters, 1 \(rate\), got 0"),
    ({"observed": SEEN * np.nan}, ValueError, r"as many values as there are parameters, 1 \(rate\), got 0"),
    ({"transform": "exp"}, ValueError, "transform must hold .*, got 'exp'"),
    ({"transform": {"k": "log"}}, ValueError, r"transform must be a pytree prefix of theta=.*, got \{'k': 'log'\}"),
    ({"fit_z0": ["log"]}, ValueError, r"fit_z0 must be a pytree prefix of z0=.*, got \['log'\]"),
    ({"theta": {"rate": -1.0}, "transform": "log"}, ValueError, "rate must be positive .* 'log', got -1.0"),
    ({"theta": {"rate": 1.5}, "transform": "logit"}, ValueError, "rate must be between 0 and 1 .* got 1.5"),
    ({"theta": {"rate": np.nan}}, ValueError, "rate must be finite to start from, got nan"),
    ({"z0": 0.0, "fit_z0": "log"}, ValueError, "z0 must be positive .* got 0.0"),
    ({"theta": {"rate": 1}, "transform": "log"}, ValueError, "rate = 1 is no real floating number"),
    ({"transform": False}, ValueError, "no floating number to fit"),
    ({"theta": {"rate": "fast"}}, TypeError, r"theta\['rate'\] must be an array, a number or a function, got 'fast'"),
    ({"loss": "poisson"}, TypeError, "loss must be .*, got 'poisson'"),
    ({"loss": total}, TypeError, r"negative log-likelihood of each value, of shape \(3,\), got"),
    ({"optimizer": "newton"}, ValueError, "optimizer must be .* got 'newton'"),
    ({"optimizer": 1}, TypeError, "optimizer must be .* got 1"),
    ({"starts": 0}, ValueError, "starts must be a positive integer, got 0"),
    ({"updates": 1.5}, ValueError, "updates must be a positive integer, got 1.5"),
    ({"starts": 4}, ValueError, r"starts=4 needs key=jax.random.key"),
    ({"starts": 4, "key": 7}, TypeError, r"key must be a random key such as jax.random.key\(7\), got 7"),
    ({"spread": -1.0}, ValueError, "spread must be a positive number, got -1.0"),
    ({"tolerance": "small"}, ValueError, "tolerance must be a positive number, got 'small'"),
    ({"method": "tsit5"}, TypeError, "method must be a method such as"),
    ({"steps": 0.1}, TypeError, r"steps must be Adaptive\(...\), Fixed\(n\) or Grid\(ts\)"),
    ({"max_steps": -1}, ValueError, "max_steps must be a positive integer or None, got -1"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_a_wrong_argument_is_named_with_its_value(change, error, message):
    with pytest.raises(error, match=message):
        inspect.unwrap(nj.fit_parameters)(**RIGHT | change)  # without the check of annotations


def test_what_observes_is_told_its_arguments():
    with pytest.raises(TypeError) as caught:
        nj.fit_parameters(decay, 1.0, {"rate": 1.0}, TS, SEEN, t0=0.0, observe=lambda z: z)
    assert "observe is called as observe(z, theta)." in caught.value.__notes__


def test_a_keyword_of_another_package_is_refused_with_what_to_use():
    with pytest.raises(TypeError, match="unexpected keyword argument 'rtol': use steps="):
        nj.fit_parameters(**RIGHT | {"rtol": 1e-9})


def test_parameters_are_called_by_their_path():
    z0 = {"prey": 1.0, "rest": (2.0, jnp.ones(2))}
    parameters, _ = marked(({"rate": 1.0}, 2.0), z0, None, True)
    assert parameters.names == ("theta[0].rate", "theta[1]", "z0.prey", "z0.rest[0]", "z0.rest[1][0]", "z0.rest[1][1]")
    assert marked({"rate": (1.0, 2.0)}, z0, "log", False)[0].names == ("rate[0]", "rate[1]")
    assert marked(1.0, 1.0, None, True)[0].names == ("theta", "z0")


@pytest.mark.usefixtures("float32")
def test_times_that_single_precision_cannot_tell_apart_are_refused():
    with pytest.raises(ValueError, match="ts cannot be told apart in float32"):
        nj.fit_parameters(**RIGHT | {"ts": LATE, "t0": LATE[0]})


def test_shapes_are_looked_at_inside_a_transformation_too():
    def fit(seen):
        return nj.fit_parameters(**RIGHT | {"observed": seen}).loss

    with pytest.raises(ValueError, match="observed must have 3 rows"):
        jax.vmap(fit)(jnp.ones((2, 4)))
