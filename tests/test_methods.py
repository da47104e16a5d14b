"""Every method against the theory: order conditions by rooted trees, and the convergence seen in practice."""

import dataclasses
from fractions import Fraction
from functools import cache, partial
from itertools import count
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from node_jax.interpolate import at_fraction
from node_jax.methods import METHODS, ExplicitRK, heun

each_method = pytest.mark.parametrize("method", METHODS, ids=str)
each_first_same_as_last = pytest.mark.parametrize(
    "method", [m for m in METHODS if m.first_same_as_last], ids=str
)


# A rooted tree is the sorted tuple of the subtrees at its root: () is a single node.


def grown(tree):
    """Yield the trees that one more leaf makes of `tree`."""
    yield tuple(sorted((*tree, ())))
    for i, child in enumerate(tree):
        for larger in grown(child):
            yield tuple(sorted((*tree[:i], larger, *tree[i + 1 :])))


@cache
def trees(size):
    """All rooted trees with `size` nodes."""
    return [()] if size == 1 else sorted({new for tree in trees(size - 1) for new in grown(tree)})


def size(tree):
    return 1 + sum(map(size, tree))


def density(tree):
    return size(tree) * prod(map(density, tree))


@cache
def elementary_weights(rows, tree):
    """Phi_i(tree) of every slope i."""
    children = [elementary_weights(rows, child) for child in tree]
    return [prod(dot(row, phi) for phi in children) for row in rows]


def dot(weights, values):
    return sum(w * v for w, v in zip(weights, values, strict=False))


def rational(x):
    """Return the fraction with a denominator of at most six digits that was rounded to `x`; `x` if none was."""
    q = Fraction(x).limit_denominator(10**6)
    return q if float(q) == x else x


def rationals(rows):
    return tuple(tuple(map(rational, row)) for row in rows)


def vanishes(x, tolerance=1e-12):
    return abs(x) < tolerance if isinstance(x, float) else x == 0


def first_violated(method, weights, target, tolerance=1e-12):
    """Return the least size of a tree whose `sum_i weights[i] Phi_i(tree)` is not `target(tree)`."""
    rows, weights = rationals(method.a + method.a_dense), tuple(map(rational, weights))

    def violated(tree):
        return not vanishes(dot(weights, elementary_weights(rows, tree)) - target(tree), tolerance)

    return next(n for n in count(1) if any(map(violated, trees(n))))


def dense_columns(method):
    """Weights of every slope at `x**1`, `x**2`, ... of dense output."""
    degree = max(map(len, method.dense))
    return list(zip(*(row + (0.0,) * (degree - len(row)) for row in method.dense), strict=True))


def test_the_generator_finds_every_rooted_tree():
    assert [len(trees(n)) for n in range(1, 9)] == [1, 1, 2, 4, 9, 20, 48, 115]
    assert {tree: density(tree) for tree in trees(4)} == {
        ((), (), ()): 4,
        ((), ((),)): 8,
        (((), ()),): 12,
        ((((),),),): 24,
    }


@each_method
def test_every_number_of_a_method_is_a_python_float(method):
    rows = (method.c, *method.a, method.b, method.b_error, method.b_error_low, *method.dense)
    assert {type(x) for row in (*rows, method.c_dense, *method.a_dense) for x in row} == {float}


@each_method
def test_the_rows_of_a_method_have_the_lengths_of_its_stages(method):
    stages, slopes = len(method.c), len(method.c) + len(method.c_dense)
    assert max(len(method.b), len(method.b_error), len(method.b_error_low)) <= stages
    assert [*map(len, method.a + method.a_dense)] == [*range(slopes)]
    assert len(method.dense) == slopes


@each_method
def test_every_stage_lies_where_its_row_adds_up(method):
    nodes = map(rational, method.c + method.c_dense)
    assert all(vanishes(sum(row) - c) for c, row in zip(nodes, rationals(method.a + method.a_dense), strict=True))


@each_method
def test_the_order_conditions_hold_up_to_the_order_and_not_beyond(method):
    assert first_violated(method, method.b, lambda tree: Fraction(1, density(tree))) == method.order + 1


@each_method
def test_the_error_estimates_behave_like_the_error_order_says(method):
    """Two estimates combine to `high**2 / low`, see the record."""
    rows = [row for row in (method.b_error, method.b_error_low) if row]
    starts = [first_violated(method, row, lambda tree: 0) for row in rows]
    combined = {0: method.order, 1: sum(starts), 2: 2 * starts[0] - starts[-1] if starts else 0}[len(starts)]
    assert combined == method.error_order


@each_method
def test_the_order_conditions_of_dense_output_hold_at_every_fraction_of_the_step(method):
    """`sum_i w_i(x) Phi_i(tree) = x**size / density` for all x: compare the coefficient of every power."""
    tolerance = 1e-12 * max(10.0, *(abs(x) for row in method.dense for x in row))

    def holds_until(power, column):
        return first_violated(
            method, column, lambda tree: Fraction(size(tree) == power, density(tree)), tolerance
        )

    assert min(holds_until(*item) for item in enumerate(dense_columns(method), 1)) == method.dense_order + 1


@each_method
def test_dense_output_ends_at_the_end_of_the_step(method):
    b = method.b + (0.0,) * (len(method.dense) - len(method.b))
    np.testing.assert_allclose([sum(row) for row in method.dense], b, rtol=0.0, atol=1e-12)


@each_method
def test_dense_output_starts_with_the_first_slope(method):
    np.testing.assert_array_equal([row[0] for row in method.dense], np.arange(len(method.dense)) == 0)


@each_first_same_as_last
def test_dense_output_ends_with_the_slope_that_the_next_step_starts_with(method):
    ends = [sum(j * x for j, x in enumerate(row, 1)) for row in method.dense]
    np.testing.assert_allclose(ends, np.arange(len(ends)) == len(method.c) - 1, rtol=0.0, atol=5e-12)
