"""What a solve writes down, and where its steps land."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import node_jax as nj
from node_jax.methods import METHODS

TIGHT = nj.Adaptive(1e-9, 1e-11)


def decay(z, t, theta):
    return -theta * z


def turn(z, t, theta):
    """Rotate with a speed that changes: |z| stays."""
    return (1.0 + 0.5 * jnp.cos(t)) * jnp.stack([-z[1], z[0]])


def turned(t):
    angle = np.asarray(t) + 0.5 * np.sin(t)
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


START = np.array([1.0, 0.0])
TIMES = np.linspace(0.0, 2.0, 9)


# SaveAt.


@functools.partial(jax.jit, static_argnums=(0, 1))
def error_between_steps(method, n):
    ts = jnp.linspace(0.0, 2.0, 57)
    sol = nj.odesolve(turn, START, 0.0, 2.0, method=method, steps=nj.Fixed(n), save=nj.SaveAt(ts))
    return jnp.max(jnp.abs(sol.zs - jnp.asarray(exact_turns(57))))


def exact_turns(n):
    return turned(np.linspace(0.0, 2.0, n))


@pytest.mark.parametrize(
    ("method", "counts"),
    [
        (nj.rk4, (12, 24)),
        (nj.bosh3, (12, 24)),
        (nj.dopri5, (12, 24)),
        (nj.tsit5, (12, 24)),
        (nj.dopri8, (5, 10)),
    ],
    ids=str,
)
def test_output_between_steps_converges_with_the_order_of_dense_output(method, counts):
    coarse, fine = (float(error_between_steps(method, n)) for n in counts)
    assert np.log2(coarse / fine) > min(method.order, method.dense_order + 1) - 0.6


@functools.partial(jax.jit, static_argnames="method")
def at(ts, t0, t1, method=nj.tsit5):
    z0 = jnp.stack([jnp.cos(t0 + 0.5 * jnp.sin(t0)), jnp.sin(t0 + 0.5 * jnp.sin(t0))])
    return nj.odesolve(turn, z0, t0, t1, method=method, steps=TIGHT, save=nj.SaveAt(ts))


@pytest.mark.parametrize(
    ("ts", "t0", "t1"),
    [
        (TIMES, 0.0, 2.0),
        (np.array([0.0, 0.0, 0.5, 0.5, 0.5, 0.7, 2.0, 2.0, 2.0]), 0.0, 2.0),
        (np.array([0.31, 0.32, 0.33, 0.34, 0.35, 0.36, 0.37, 0.38, 0.39]), 0.0, 2.0),
        (TIMES[::-1].copy(), 2.0, 0.0),
        (np.array([2.0, 2.0, 1.1, 1.1, 1.1, 0.2, 0.2, 0.0, 0.0]), 2.0, 0.0),
        (np.full(9, 1.0), 0.0, 2.0),
        (np.full(9, 2.0), 0.0, 2.0),
        (np.full(9, 0.7), 0.7, 0.7),
    ],
    ids=[
        "regular",
        "repeats and ends",
        "dense",
        "backwards",
        "backwards repeats",
        "one time",
        "padded end",
        "t0 == t1",
    ],
)
def test_states_at_the_times_asked_for_are_exact_to_the_tolerance(ts, t0, t1):
    sol = at(ts, t0, t1)
    assert sol.ok
    np.testing.assert_allclose(sol.zs, turned(ts), atol=2e-8)
    np.testing.assert_array_equal(sol.ts, ts)
    np.testing.assert_allclose(sol.z1, turned(t1), atol=2e-8)


def test_the_ends_are_saved_exactly():
    sol = at(TIMES, 0.0, 2.0)
    np.testing.assert_array_equal(sol.zs[0], START)
    np.testing.assert_allclose(sol.zs[-1], sol.z1, rtol=0.0, atol=1e-15)


def test_output_times_do_not_change_the_steps():
    plain = nj.odesolve(turn, START, 0.0, 2.0, steps=TIGHT)
    sol = at(TIMES, 0.0, 2.0)
    assert [*map(int, sol.stats)] == [*map(int, plain.stats)]
    np.testing.assert_allclose(sol.z1, plain.z1, rtol=1e-14)


def test_no_times_save_no_states():
    sol = nj.odesolve(turn, START, 0.0, 2.0, save=nj.SaveAt(jnp.zeros(0)))
    assert sol.ok
    assert sol.zs.shape == (0, 2)


def energy(z, t, theta):
    return {"square": z @ z, "time": t, "theta": theta}


def test_a_function_of_the_state_is_saved_at_each_time():
    sol = nj.odesolve(turn, START, 0.0, 2.0, jnp.array([4.0, 5.0]), steps=TIGHT, save=nj.SaveAt(TIMES, energy))
    np.testing.assert_allclose(sol.zs["square"], np.ones(9), atol=1e-7)
    np.testing.assert_array_equal(sol.zs["time"], TIMES)
    np.testing.assert_array_equal(sol.zs["theta"], np.tile([4.0, 5.0], (9, 1)))


# SaveSteps.


def test_every_accepted_step_is_saved_and_the_rest_is_nan():
    sol = nj.odesolve(turn, START, 0.0, 2.0, steps=TIGHT, save=nj.SaveSteps(128))
    count = int(sol.count)
    assert 10 < count < 128
    assert count == int(sol.stats.accepted)
    assert sol.ts.shape == (128,)
    assert np.all(np.diff(sol.ts[:count]) > 0)
    assert sol.ts[count - 1] == 2.0
    np.testing.assert_array_equal(sol.zs[count - 1], sol.z1)
    np.testing.assert_allclose(sol.zs[:count], turned(sol.ts[:count]), atol=2e-8)
    assert np.isnan(sol.ts[count:]).all()
    assert np.isnan(sol.zs[count:]).all()


# Dense.


@jax.jit
def dense(t0, t1):
    angle = t0 + 0.5 * jnp.sin(t0)
    z0 = jnp.stack([jnp.cos(angle), jnp.sin(angle)])
    return nj.odesolve(turn, z0, t0, t1, steps=TIGHT, save=nj.Dense(128))


@pytest.mark.parametrize(("t0", "t1"), [(0.0, 2.0), (2.0, 0.0)], ids=["forwards", "backwards"])
def test_dense_output_is_exact_at_scalars_and_arrays_of_times(t0, t1):
    sol = dense(t0, t1)
    np.testing.assert_allclose(sol.evaluate(0.3), turned(0.3), atol=2e-8)
    grid = np.linspace(0.0, 2.0, 12).reshape(3, 4)
    values = sol.evaluate(grid)
    assert values.shape == (3, 4, 2)
    np.testing.assert_allclose(values, turned(grid), atol=2e-8)
    np.testing.assert_allclose(sol.evaluate(t1), sol.z1, atol=1e-13)


def test_dense_output_without_a_step_is_the_start():
    sol = dense(1.0, 1.0)
    np.testing.assert_allclose(sol.evaluate(1.0), turned(1.0), rtol=1e-15)
    assert np.isnan(sol.evaluate(1.5)).all()


@jax.jit
def dense_lanes(t1s):
    return jax.vmap(lambda t1: nj.odesolve(turn, START, 0.0, t1, steps=TIGHT, save=nj.Dense(128)))(t1s)


def test_dense_output_of_a_batch_evaluates_every_lane():
    sol = dense_lanes(jnp.array([1.0, 2.0, 1.5]))
    values = sol.evaluate(jnp.array([0.2, 0.9, 1.2]))
    assert values.shape == (3, 3, 2)
    np.testing.assert_allclose(values[1], turned([0.2, 0.9, 1.2]), atol=2e-8)
    assert np.isnan(values[0, 2]).all()  # beyond its end
    assert sol.evaluate(0.5).shape == (3, 2)


def test_dense_output_keeps_at_most_eight_states_a_step():
    size, capacity = 1000, 16
    for method, most in [(nj.tsit5, 8), (nj.dopri5, 8), (nj.bosh3, 8), (nj.dopri8, 9)]:
        run = functools.partial(nj.odesolve, decay, theta=1.0, method=method, save=nj.Dense(capacity))
        shapes = jax.eval_shape(lambda z, run=run: run(z, 0.0, 1.0).interpolant, jnp.ones(size))
        assert sum(x.size for x in jax.tree.leaves(shapes)) <= capacity * (most * size + 2)


def test_dense_output_of_order_eight_is_as_exact_as_its_steps():
    sol = nj.odesolve(turn, START, 0.0, 2.0, method=nj.dopri8, steps=TIGHT, save=nj.Dense(64))
    grid = np.linspace(0.0, 2.0, 41)
    np.testing.assert_allclose(sol.evaluate(grid), turned(grid), atol=1e-7)
    at_times = at(grid[::5], 0.0, 2.0, method=nj.dopri8)
    np.testing.assert_allclose(at_times.zs, turned(grid[::5]), atol=1e-7)


# Breakpoints.

DOSES = np.array([0.6, 1.1, 1.4])


def infusion(z, t, theta):
    """Eliminate at rate 2; infuse 3 a unit of time from 0.6 to 1.1, and from 1.4 on."""
    running = ((t >= 0.6) & (t < 1.1)) | (t >= 1.4)
    return jnp.where(running, 3.0, 0.0) - 2.0 * z


def infused(t):
    z, last = 1.0, 0.0
    for end, rate in [(0.6, 0.0), (1.1, 3.0), (1.4, 0.0), (9.0, 3.0)]:
        h = min(end, t) - last
        z, last = rate / 2 + (z - rate / 2) * np.exp(-2 * h), min(end, t)
    return z


@pytest.mark.parametrize("tolerance", [1e-5, 1e-8])
def test_steps_land_on_breakpoints_and_the_error_stays_at_the_tolerance(tolerance):
    steps = nj.Adaptive(tolerance, tolerance, breakpoints=DOSES[[2, 0, 1]])
    sol = nj.odesolve(infusion, 1.0, 0.0, 2.0, steps=steps, save=nj.SaveSteps(128))
    assert set(DOSES) <= set(np.asarray(sol.ts).tolist())
    np.testing.assert_allclose(sol.z1, infused(2.0), rtol=0.0, atol=3 * tolerance)
    blind = nj.odesolve(infusion, 1.0, 0.0, 2.0, steps=nj.Adaptive(tolerance, tolerance))
    assert sol.stats.rejected < blind.stats.rejected


def test_a_backward_solve_lands_on_the_same_breakpoints():
    steps = nj.Adaptive(1e-9, 1e-9, breakpoints=DOSES)
    sol = nj.odesolve(infusion, infused(2.0), 2.0, 0.0, steps=steps, save=nj.SaveSteps(256))
    assert set(DOSES) <= set(np.asarray(sol.ts).tolist())
    np.testing.assert_allclose(sol.z1, 1.0, atol=2e-7)  # errors grow by exp(4) backwards


@jax.jit
def broken_at_many_times(ts):
    steps = nj.Adaptive(1e-9, 1e-9, breakpoints=DOSES)
    return nj.odesolve(infusion, 1.0, 0.0, 2.0, steps=steps, save=nj.SaveAt(ts))


def test_output_at_and_around_breakpoints_is_exact():
    ts = np.sort(np.concatenate([DOSES, DOSES - 1e-3, DOSES + 1e-3, [0.0, 2.0]]))
    np.testing.assert_allclose(broken_at_many_times(ts).zs, [infused(t) for t in ts], atol=1e-8)


def step_error(method, tolerance):
    steps = nj.Adaptive(tolerance, tolerance, breakpoints=jnp.array([0.6, 1.1, 1.4]))
    sol = nj.odesolve(infusion, 1.0, 0.0, 2.0, method=method, steps=steps)
    return abs(float(sol.z1) - infused(2.0)), int(sol.stats.accepted)


@pytest.mark.parametrize("method", [nj.tsit5, nj.bosh3], ids=str)
def test_the_order_is_kept_across_jumps(method):
    """The number of steps grows with the tolerance as for a smooth field: like `tolerance ** (-1 / order)`."""
    (_, coarse), (_, fine) = step_error(method, 1e-6), step_error(method, 1e-9)
    assert fine / coarse < 1.3 * 1e3 ** (1 / method.order)


@pytest.mark.parametrize("breakpoints", [[], [5.0], [0.0], [2.0], [-1.0, 0.0, 2.0, 3.0]], ids=str)
def test_breakpoints_outside_or_at_the_ends_change_nothing(breakpoints):
    plain = nj.odesolve(turn, START, 0.0, 2.0)
    sol = nj.odesolve(turn, START, 0.0, 2.0, steps=nj.Adaptive(breakpoints=jnp.array(breakpoints, float)))
    np.testing.assert_allclose(sol.z1, plain.z1, rtol=1e-12)
    assert int(sol.stats.accepted) == int(plain.stats.accepted)


def test_repeated_breakpoints_are_one():
    steps = nj.Adaptive(1e-8, 1e-8, breakpoints=jnp.array([0.6, 0.6, 1.1, 1.1, 1.4]))
    np.testing.assert_allclose(nj.odesolve(infusion, 1.0, 0.0, 2.0, steps=steps).z1, infused(2.0), atol=3e-8)


# Fixed, Grid and limits of the step.


def test_fixed_takes_equal_steps_and_counts_them():
    sol = nj.odesolve(turn, START, 0.0, 2.0, method=nj.rk4, steps=nj.Fixed(8), save=nj.SaveSteps(8))
    np.testing.assert_allclose(sol.ts, np.linspace(0.25, 2.0, 8), rtol=1e-15)
    assert sol.ts[-1] == 2.0
    assert [*map(int, sol.stats)] == [32, 8, 0, -1, 0, -1]


@pytest.mark.parametrize("ends", [(0.0, 2.0), (2.0, 0.0)], ids=["forwards", "backwards"])
def test_a_uniform_grid_is_fixed(ends):
    options = {"method": nj.rk4}
    grid = nj.odesolve(decay, 1.0, *ends, 1.0, steps=nj.Grid(np.linspace(*ends, 9)), **options)
    fixed = nj.odesolve(decay, 1.0, *ends, 1.0, steps=nj.Fixed(8), **options)
    np.testing.assert_allclose(grid.z1, fixed.z1, rtol=1e-14)


def test_a_grid_takes_its_own_steps_and_repeated_times_are_no_steps_in_effect():
    ts = np.array([0.0, 0.1, 0.1, 0.5, 2.0])
    sol = nj.odesolve(decay, 1.0, 0.0, 2.0, 1.0, method=nj.euler, steps=nj.Grid(ts))
    np.testing.assert_allclose(sol.z1, 0.9 * 0.6 * -0.5, rtol=1e-14)


def test_fixed_and_grid_ignore_max_steps():
    assert nj.odesolve(decay, 1.0, 0.0, 2.0, 1.0, method=nj.rk4, steps=nj.Fixed(8), max_steps=2).ok


def step_sizes(**options):
    steps = nj.Adaptive(1e-6, 1e-8, **options)
    sol = nj.odesolve(turn, START, 0.0, 2.0, steps=steps, save=nj.SaveSteps(512))
    return np.diff(np.concatenate([[0.0], sol.ts[: int(sol.count)]]))


def test_no_step_is_larger_than_max_step():
    assert step_sizes(max_step=0.02).max() <= 0.02 * 1.0101  # the last may stretch by 1 % to land on t1


def test_the_first_step_is_the_one_given():
    np.testing.assert_allclose(step_sizes(first_step=0.003)[0], 0.003, rtol=1e-12)


def test_a_first_step_that_is_too_large_is_rejected():
    assert step_sizes(first_step=2.0)[0] < 1.0


def test_no_step_but_the_last_is_smaller_than_min_step():
    assert step_sizes(min_step=0.05, first_step=0.06)[:-1].min() >= 0.05 * (1 - 1e-12)


# Tolerances and norms.


def fast_and_slow(z, t, theta):
    return {"fast": -50.0 * (z["fast"] - jnp.cos(t)), "slow": -z["slow"]}


PAIR = {"fast": np.zeros(2), "slow": np.ones(3)}


def accepted(rtol, atol, norm=nj.Adaptive().norm, z0=PAIR):
    sol = nj.odesolve(fast_and_slow, z0, 0.0, 1.0, steps=nj.Adaptive(rtol, atol, norm=norm))
    return int(sol.stats.accepted)


def test_tolerances_by_leaf_and_by_component_are_used():
    loose, tight = 1e-3, 1e-9
    everywhere_loose = accepted(loose, loose)
    by_leaf = {"fast": tight, "slow": loose}
    by_component = {"fast": np.array([loose, tight]), "slow": loose}
    assert accepted(by_leaf, by_leaf) > 2 * everywhere_loose
    assert accepted(by_component, by_component) > 2 * everywhere_loose


def test_equal_tolerances_by_component_are_the_scalar_ones():
    assert accepted({"fast": np.full(2, 1e-6), "slow": np.full(3, 1e-6)}, 1e-8) == accepted(1e-6, 1e-8)


def largest_norm(terms):
    return jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in jax.tree.leaves(terms)]))


def slow_only(terms):
    return jnp.max(jnp.abs(terms["slow"]))


def test_the_norm_is_the_one_given():
    assert accepted(1e-6, 1e-8, largest_norm) > accepted(1e-6, 1e-8) > accepted(1e-6, 1e-8, slow_only) / 3
    only = nj.odesolve(fast_and_slow, PAIR, 0.0, 0.01, steps=nj.Adaptive(1e-6, 1e-8, norm=slow_only))
    np.testing.assert_allclose(only.z1["slow"], np.exp(-0.01), rtol=1e-6)


@pytest.mark.parametrize("method", [m for m in METHODS if not m.has_error], ids=str)
def test_methods_without_an_error_estimate_work_with_fixed_steps(method):
    sol = nj.odesolve(decay, 1.0, 0.0, 1.0, 1.0, method=method, steps=nj.Fixed(200))
    np.testing.assert_allclose(sol.z1, np.exp(-1.0), rtol=3e-3)
