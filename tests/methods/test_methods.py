"""Every method against the theory: order conditions by rooted trees, and the convergence seen in practice."""

import dataclasses
from fractions import Fraction
from functools import cache, partial
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from node_jax.methods import METHODS, ExplicitRK, heun

each_method = pytest.mark.parametrize("method", METHODS, ids=str)
each_first_same_as_last = pytest.mark.parametrize("method", [m for m in METHODS if m.first_same_as_last], ids=str)


# A rooted tree is the sorted tuple of the subtrees at its root: () is a single node.


def grown(tree):
    """Yield the trees that one more leaf makes of `tree`."""
    yield tuple(sorted((*tree, ())))
    for i, child in enumerate(tree):
        for larger in grown(child):
            yield tuple(sorted((*tree[:i], larger, *tree[i + 1 :])))


@cache
def trees(n):
    """All rooted trees with `n` nodes."""
    return [()] if n == 1 else sorted({new for tree in trees(n - 1) for new in grown(tree)})


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


def fraction(x):
    """Return the fraction with a small denominator that was rounded to `x`, or `x` itself."""
    q = Fraction(x).limit_denominator(10**6)
    return q if float(q) == x else Fraction(x)


@cache
def fractions(rows):
    return tuple(tuple(map(fraction, row)) for row in rows)


def allowed_defect(*rows):
    """Nothing where every number is recognised as a fraction, else the effect of rounding to float64."""
    return 0 if all(q.denominator <= 10**6 for row in rows for q in row) else 1e-12


def first_violated(method, weights, target):
    """Return the least size of a tree with `sum_i weights[i] Phi_i(tree) != target(tree)`, at most 10."""
    *rows, weights = fractions((*method.a, *method.a_dense, weights))
    rows, allowed = tuple(rows), allowed_defect(*rows, weights)

    def violated(tree):
        return abs(dot(weights, elementary_weights(rows, tree)) - target(tree)) > allowed

    return next((n for n in range(1, method.order + 2) if any(map(violated, trees(n)))), 10)


def dense_columns(method):
    """Weights of every slope at `x**1`, `x**2`, ... of dense output, the last ones zero."""
    degree = method.order + 1
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
    nodes, *rows = fractions((method.c + method.c_dense, *method.a, *method.a_dense))
    allowed = allowed_defect(nodes, *rows)
    assert all(abs(sum(row) - node) <= allowed for node, row in zip(nodes, rows, strict=True))


@each_method
def test_the_order_conditions_hold_up_to_the_order_and_not_beyond(method):
    assert first_violated(method, method.b, lambda tree: Fraction(1, density(tree))) == method.order + 1


@each_method
def test_the_error_estimates_behave_like_the_error_order_says(method):
    """Two estimates are combined to `high**2 / low`."""
    starts = [first_violated(method, row, lambda tree: 0) for row in (method.b_error, method.b_error_low) if row]
    exponent = 2 * starts[0] - starts[1] if len(starts) == 2 else sum(starts)
    assert method.error_order == (exponent or method.order)


@each_method
def test_the_order_conditions_of_dense_output_hold_at_every_fraction_of_the_step(method):
    """`sum_i w_i(x) Phi_i(tree) = x**size / density` for all x: compare the coefficients of every power."""

    def holds_until(power, column):
        return first_violated(method, column, lambda tree: Fraction(size(tree) == power, density(tree)))

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


def whirl(z, t, theta):
    """`z' = i w(t) |z|**2 z` in the plane: |z| stays, the angle grows by |z|**2 times the integral of w."""
    speed = theta * (1.0 + jnp.sin(3.0 * t)) * (z @ z)
    return speed * jnp.stack([-z[1], z[0]])


def whirl_exact(t, theta):
    angle = 0.3 + 1.44 * theta * (t + (1.0 - jnp.cos(3.0 * t)) / 3.0)
    return 1.2 * jnp.stack([jnp.cos(angle), jnp.sin(angle)])


@partial(jax.jit, static_argnums=0)
def error_at_one(method, n):
    """Largest error of `z1` at t = 1 after `n` equal steps."""
    h, theta = 1.0 / n, jnp.array(0.8)

    def body(k, carry):
        z, memory = carry
        step = method.step(whirl, k * h, z, h, theta, memory)
        return step.z1, step.memory

    z0, t0 = whirl_exact(jnp.array(0.0), theta), jnp.array(0.0)
    z, _ = jax.lax.fori_loop(0, n, body, (z0, method.start(whirl, t0, z0, theta)))
    return jnp.max(jnp.abs(z - whirl_exact(jnp.array(1.0), theta)))


@partial(jax.jit, static_argnums=0)
def error_inside_a_step(method, h):
    """Largest error of dense output over one step of size `h`."""
    t, theta = jnp.array(0.2), jnp.array(0.8)
    z = whirl_exact(t, theta)
    slopes = method.step(whirl, t, z, h, theta, method.start(whirl, t, z, theta)).dense
    slopes += method.complete(whirl, t, z, h, theta, slopes)

    def error(x):
        return method.at(z, h, slopes, x) - whirl_exact(t + x * h, theta)

    return jnp.max(jnp.abs(jax.vmap(error)(jnp.linspace(0.0, 1.0, 21))))


def exponent(error, method, sizes):
    """Exponent of `size` in `error(method, size)`, by least squares."""
    errors = [float(error(method, size)) for size in sizes]
    return np.polyfit(np.log(sizes), np.log(errors), 1)[0]


@each_method
def test_the_error_of_a_solve_shrinks_with_the_order(method):
    sizes = (64, 96, 128) if method.order < 8 else (8, 12, 16)  # above rounding errors
    assert exponent(error_at_one, method, sizes) == pytest.approx(-method.order, abs=0.3)


@each_method
def test_the_error_of_dense_output_shrinks_with_its_order(method):
    sizes = (0.04, 0.03, 0.02) if method.order < 8 else (0.08, 0.06, 0.04)
    assert exponent(error_inside_a_step, method, sizes) == pytest.approx(method.dense_order + 1, abs=0.3)


@each_method
def test_a_copy_of_a_record_is_equal_and_hashes_alike(method):
    copy = dataclasses.replace(method)
    assert copy is not method
    assert copy == method
    assert hash(copy) == hash(method)
    assert dataclasses.replace(method, name="another") != method


def test_the_methods_are_distinct_and_print_their_names():
    assert len(set(METHODS)) == len(METHODS)
    assert [*map(str, METHODS)] == (
        ["euler", "midpoint", "heun", "ralston", "rk4", "rk38", "bosh3", "dopri5", "tsit5", "dopri8"]
    )


@pytest.mark.parametrize("a", [((),), ((), ()), ((), (1.0, 0.0)), ((), (1.0,), (0.5, 0.5))], ids=str)
def test_rows_that_do_not_fit_the_nodes_raise_and_are_named(a):
    with pytest.raises(ValueError, match=r"a must have 2 rows, row i with i numbers; got lengths \[0"):
        ExplicitRK(2, heun.c, a, heun.b)
