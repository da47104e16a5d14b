"""Assertions about methods, fields, gradients and other parts of your own; the package runs them on its own parts.

Each raises `AssertionError` with the numbers that it found.
"""

from node_jax.testing.fields import assert_field, decay, lotka_volterra
from node_jax.testing.gradients import assert_gradient
from node_jax.testing.methods import (
    assert_method_order,
    assert_stability_interval,
    stability_function,
    stability_interval,
)
from node_jax.testing.parts import assert_adjoint, assert_method, assert_save, assert_steps

__all__ = [
    "assert_adjoint",
    "assert_field",
    "assert_gradient",
    "assert_method",
    "assert_method_order",
    "assert_save",
    "assert_stability_interval",
    "assert_steps",
    "decay",
    "lotka_volterra",
    "stability_function",
    "stability_interval",
]
