"""What a field reads from outside is built into its compiled solve, and read again where it can be seen to change."""

import functools
import types
import weakref
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import node_jax as nj
from node_jax.outside import reads

RATE = 1.0
SETTINGS = types.SimpleNamespace(rate=1.0)
TRACED = []
CALLS = 0


class Settings:
    rate = 1.0


def of_global(z, t, theta):
    TRACED.append(t)
    return -RATE * z


def helper(z):
    return -RATE * z


def of_helper(z, t, theta):
    TRACED.append(t)
    return helper(z)


def of_lambda_inside(z, t, theta):
    TRACED.append(t)
    return jax.tree.map(lambda x: -RATE * x, z)


def of_object(z, t, theta):
    TRACED.append(t)
    return -SETTINGS.rate * z


def of_class(z, t, theta):
    TRACED.append(t)
    return -Settings.rate * z


class Decay:
    def __init__(self):
        self.rate, self.calls = 1.0, 0

    def __call__(self, z, t, theta):
        self.calls += 1  # a counter, which must not trace again
        return self.slope(z, t, theta)

    def slope(self, z, t, theta):
        TRACED.append(t)
        return -self.factor * z

    @property
    def factor(self):
        return self.rate


class Weighted(eqx.Module):
    weight: jax.Array

    def __call__(self, z, t, theta):
        TRACED.append(t)
        return self.slope(z)

    def slope(self, z):
        return -RATE * self.weight * z


def of_closure():
    rate = 1.0

    def field(z, t, theta):
        TRACED.append(t)
        return -rate * z

    def change(value):
        nonlocal rate
        rate = value

    return field, change


def change_global(value):
    global RATE
    RATE = value


def case(name) -> tuple[Callable, Callable]:
    decay = Decay()
    cases = {
        "global": (of_global, change_global),
        "helper of the same module": (of_helper, change_global),
        "function inside": (of_lambda_inside, change_global),
        "global object": (of_object, functools.partial(setattr, SETTINGS, "rate")),
        "global class": (of_class, functools.partial(setattr, Settings, "rate")),
        "closure": of_closure(),
        "partial": (functools.partial(of_global), change_global),
        "object": (decay, functools.partial(setattr, decay, "rate")),
        "bound method": (decay.slope, functools.partial(setattr, decay, "rate")),
        "method of a module": (Weighted(jnp.ones(())), change_global),
    }
    return cases[name]


NAMES = (
    "global",
    "helper of the same module",
    "function inside",
    "global object",
    "global class",
    "closure",
    "partial",
    "object",
    "bound method",
    "method of a module",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_value_read_from_outside_is_read_again_when_it_changed_and_only_then(name):
    field, change = case(name)
    TRACED.clear()
    for value, traces in ((1.0, 1), (1.0, 1), (2.0, 2), (2.0, 2), (1.0, 2)):
        change(value)
        z1 = nj.odesolve(field, 1.0, 0.0, 1.0).z1
        np.testing.assert_allclose(z1, np.exp(-value), rtol=1e-5)
        assert len(TRACED) == traces


def test_a_gradient_reaches_an_attribute_that_is_set_anew_for_each():
    field = Decay()

    def end(rate):
        field.rate = rate
        return nj.odesolve(field, 1.0, 0.0, 1.0).z1

    for rate in (1.0, 2.0):
        np.testing.assert_allclose(jax.grad(end)(rate), -np.exp(-rate), rtol=1e-5)


def test_a_key_holds_no_value_alive_that_can_be_referred_to_weakly():
    def field(z, t, theta):
        return held * z

    held = jnp.ones(3)
    key = reads(field)
    assert key == reads(field)
    assert hash(key) == hash(reads(field))
    before, held = weakref.ref(held), jnp.ones(3)
    assert before() is None
    assert key != reads(field)


@pytest.mark.parametrize("value", [float("nan"), -0.0, True, "text", (1, (2.0, None)), np.float32(3.0), 1j])
def test_numbers_and_text_count_by_value(value):
    def field(z, t, theta):
        return held

    held = value
    key = reads(field)
    held = type(value)(value)
    assert reads(field) == key
    held = 0.0
    assert reads(field) != key


def factorial(n):
    return 1 if n == 0 else n * factorial(n - 1)


def test_a_recursive_helper_and_a_counter_are_no_trouble():
    def field(z, t, theta):
        global CALLS
        CALLS += 1
        return -factorial(3) * z

    before = CALLS
    for _ in range(3):
        nj.odesolve(field, 1.0, 0.0, 1.0)
    assert before + 1 == CALLS
