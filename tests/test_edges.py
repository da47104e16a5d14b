"""Right values at the edges: directions, lengths of zero, jumps, states at rest, times with many digits, lost lanes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import node_jax as nj
from node_jax import Status
from node_jax.testing import decay

ADJOINTS = {
    "checkpointed": nj.Checkpointed(),
    "two slots": nj.Checkpointed(checkpoints=2),
    "backsolve": nj.Backsolve(),
    "interpolated": nj.Interpolated(),
    "reversible": nj.Reversible(),
    "direct": nj.Direct(),
}
every_adjoint = pytest.mark.parametrize("adjoint", ADJOINTS.values(), ids=ADJOINTS.keys())


def falling(z, t, g):
    return jnp.stack([z[1], -g + 0 * z[1]])


def reaction(z, t, k):
    return k * jnp.stack([-z[0], z[0]])


def timed(z, t, p):
    return -z * t


def dose(z, t, p):
    k, tau = p
    return -k * z * (1 + t) + jnp.where(t >= tau, 1.0, 0.0)


def dose_alone(z, t, p):
    return -p[0] * z + jnp.where(t >= p[1], 1.0, 0.0)


def lotka_volterra(z, t, p):
    return jnp.stack([p[0] * z[0] - p[1] * z[0] * z[1], -p[2] * z[1] + p[3] * z[0] * z[1]])


def test_a_backward_solve_of_huge_numbers_goes_backwards():
    ts = jnp.array([0.75, 0.25, 0.0], jnp.float32)

    def rows(k):
        return nj.odesolve(reaction, jnp.array([6.022e23, 0.0], jnp.float32), 1.0, 0.0, k, save=nj.SaveAt(ts)).zs[:, 0]

    k = jnp.float32(1.0)
    np.testing.assert_allclose(rows(k), 6.022e23 * np.exp(1 - ts), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(lambda k: rows(k)[1])(k), 6.022e23 * 0.75 * np.exp(0.75), rtol=1e-5)


@every_adjoint
def test_a_component_of_size_zero_without_absolute_tolerance_has_a_first_step(adjoint):
    ts = jnp.array([0.75, 0.5, 0.0])

    def rows(g):
        steps = nj.Adaptive(1e-6, 0.0)
        return nj.odesolve(
            falling, jnp.array([1.0, 0.0]), 1.0, 0.0, g, steps=steps, save=nj.SaveAt(ts), adjoint=adjoint
        ).zs

    np.testing.assert_allclose(rows(9.81)[:, 0], 1 - 0.5 * 9.81 * (1 - ts) ** 2, atol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda g: rows(g)[1, 0])(9.81), -0.125, rtol=1e-5)


@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0)], ids=["forwards", "backwards"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_state_of_sixteen_bits_goes_both_ways(dtype, ends):
    one, half = jnp.ones((), dtype), jnp.array([0.5], jnp.float32)
    sol = nj.odesolve(decay, one, *ends, 2 * one, save=nj.SaveAt(half))
    few = 16 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(np.float32(sol.z1), np.exp(-2 * (ends[1] - ends[0])), rtol=few)
    np.testing.assert_allclose(np.float32(sol.zs[0]), np.exp(-2 * (0.5 - ends[0])), rtol=few)


def test_a_node_that_is_repeated_backwards_writes_no_rows_ahead():
    grid, ts = jnp.array([1.0, 0.75, 0.5, 0.5, 0.25, 0.0]), jnp.array([0.9, 0.4, 0.1, 0.0])
    sol = nj.odesolve(decay, 1.0, 1.0, 0.0, 1.0, steps=nj.Grid(grid), method=nj.rk4, save=nj.SaveAt(ts))
    np.testing.assert_allclose(sol.zs, np.exp(1 - ts), rtol=1e-3)


def test_steps_of_size_zero_by_rounding_go_backwards():
    ts = jnp.linspace(1e4, 9999.0, 5, dtype=jnp.float32)
    sol = nj.odesolve(decay, jnp.float32(1), 1e4, 9999.0, 1.0, steps=nj.Fixed(2000), method=nj.rk4, save=nj.SaveAt(ts))
    np.testing.assert_allclose(sol.zs, np.exp(1e4 - np.float64(ts)), rtol=1e-5)


TAUS = np.round(np.random.default_rng(0).uniform(-0.9, 2.9, 40), 2)


@pytest.mark.parametrize("name", ["two slots", "direct", "interpolated"])
def test_a_step_taken_again_sees_a_jump_from_the_side_it_saw(name):
    def slope(adjoint):
        def end(k, tau):
            steps = nj.Adaptive(breakpoints=tau[None])
            return nj.odesolve(dose, 1.0, -1.0, 3.0, (k, tau), steps=steps, adjoint=adjoint, max_steps=128).z1

        return jax.jit(jax.vmap(lambda tau: jax.grad(end)(0.7, tau)))(jnp.asarray(TAUS))

    np.testing.assert_allclose(slope(ADJOINTS[name]), slope(nj.Checkpointed()), rtol=1e-5)


def stopped(z, t, tau):
    return jnp.where(t < tau, t, 0.0) + 0.0 * z


def until(tau, adjoint, t1=3.0):
    steps = nj.Adaptive(breakpoints=jnp.stack([tau, jnp.asarray(jnp.inf)]))
    return nj.odesolve(stopped, 0.0, 0.0, t1, tau, method=nj.bosh3, steps=steps, adjoint=adjoint, max_steps=32).z1


def test_second_derivatives_in_a_breakpoint_hold_the_slope_in_time():
    tau = jnp.array(1.25)
    for adjoint, modes in ((nj.Checkpointed(), (jax.jacfwd, jax.grad)), (nj.Forward(), (jax.jacfwd, jax.jacfwd))):
        outer, inner = modes
        np.testing.assert_allclose(inner(lambda x, a=adjoint: until(x, a))(tau), 1.25, rtol=1e-6)
        np.testing.assert_allclose(outer(inner(lambda x, a=adjoint: until(x, a)))(tau), 1.0, rtol=1e-6)


def test_a_gradient_in_the_breakpoints_of_a_batch_passes_a_field_of_few_components():
    def end(tau):
        return nj.odesolve(timed, 1.0, 0.0, 1.0, steps=nj.Adaptive(breakpoints=tau), max_steps=64).z1

    taus = jnp.array([[0.25], [0.5]])
    np.testing.assert_allclose(jax.grad(lambda taus: jax.vmap(end)(taus).sum())(taus), 0.0, atol=1e-12)


def test_second_derivatives_in_an_end_at_a_breakpoint_hold_the_slope_in_time():
    def end(t1):
        return until(jnp.array(1.25), nj.Checkpointed(), t1)

    np.testing.assert_allclose(jax.jacfwd(jax.grad(end))(1.25), 1.0, rtol=1e-6)


@pytest.mark.parametrize("pad", [5.0, -4.0, np.inf, -np.inf])
def test_breakpoints_that_pad_change_no_gradient(pad):
    def end(p):
        steps = nj.Adaptive(breakpoints=jnp.stack([jnp.asarray(pad), p[0]]))
        return nj.odesolve(switched, 0.0, 0.0, 3.0, p, steps=steps).z1

    np.testing.assert_allclose(jax.grad(end)(jnp.array([1.25, 1.0, 2.0])), [3.0, 1.25, -1.75], rtol=1e-6)


def switched(z, t, p):
    return jnp.where(t < p[0], p[1], -p[2]) + 0.0 * z


@every_adjoint
def test_breakpoints_apart_by_rounding_share_no_gradient(adjoint):
    def end(points):
        steps = nj.Adaptive(1e-3, 1e-3, breakpoints=points)
        p = (1.3, jnp.array(0.3))
        return nj.odesolve(dose_alone, 1.0, 0.0, 1.0, p, steps=steps, adjoint=adjoint, max_steps=32).z1

    apart = jnp.array([0.3, np.nextafter(0.3, 1.0)])
    np.testing.assert_allclose(jax.grad(end)(apart), [-np.exp(-1.3 * 0.7), 0.0], rtol=1e-2, atol=1e-12)


def test_a_jump_at_time_zero_has_two_sides():
    def end(p):
        steps = nj.Adaptive(breakpoints=p[:1])
        return nj.odesolve(switched, 0.0, -1.0, 1.0, p, steps=steps, adjoint=nj.Checkpointed(checkpoints=2)).z1

    p = jnp.array([0.0, 1.0, 2.0])
    np.testing.assert_allclose(end(p), -1.0, rtol=1e-12)
    np.testing.assert_allclose(jax.grad(end)(p), [3.0, 1.0, -1.0], rtol=1e-12)


def jumps_at_one(z, t, p):
    return jnp.where(t <= 1.0, p[0], p[1])


@pytest.mark.parametrize("tolerance", [1e-8, 1e-12])
def test_the_way_back_sees_a_jump_at_an_output_time_from_the_right_side(tolerance):
    def last(p):
        steps, save = nj.Adaptive(tolerance, tolerance), nj.SaveAt(jnp.array([1.0, 2.0]))
        return nj.odesolve(jumps_at_one, 0.0, 0.0, 2.0, p, steps=steps, adjoint=nj.Backsolve(), save=save).zs[1]

    np.testing.assert_allclose(jax.grad(last)(jnp.array([1.0, 2.0])), [1.0, 1.0], atol=1e-6)


@pytest.mark.parametrize("method", [nj.heun, nj.tsit5], ids=["heun", "tsit5"])
@pytest.mark.parametrize("points", [[0.5], []], ids=["one", "none"])
def test_the_way_back_restarts_with_any_method(method, points):
    def end(rate):
        steps, save = nj.Adaptive(1e-5, breakpoints=jnp.array(points)), nj.SaveAt(jnp.array([0.5, 1.0]))
        sol = nj.odesolve(decay, 1.0, 0.0, 1.0, rate, steps=steps, adjoint=nj.Backsolve(method=method), save=save)
        return sol.zs[1]

    np.testing.assert_allclose(jax.grad(end)(1.0), -np.exp(-1.0), rtol=1e-3)


@every_adjoint
def test_a_state_at_rest_has_the_gradient_of_the_flow(adjoint):
    def end(z0, t1):
        return nj.odesolve(lotka_volterra, z0, 0.0, t1, jnp.ones(4), adjoint=adjoint, max_steps=256).z1[0]

    slope = jax.jit(jax.grad(end))
    for t1 in (1.0, 5.0, 10.0):
        np.testing.assert_allclose(slope(jnp.ones(2), t1), [np.cos(t1), -np.sin(t1)], atol=2e-5)


@pytest.mark.parametrize("method", [nj.ralston, nj.tsit5], ids=lambda m: m.name)
def test_a_state_that_is_almost_at_rest_has_the_gradient_of_the_flow(method):
    """The guess of the first step is the whole way: the slope is tiny beside the state, yet it is not zero."""

    def logistic(z, t, cap):
        return 1.5 * z * (1 - z / cap)

    def end(cap):
        return nj.odesolve(logistic, 1.8 + 3e-8, 0.0, 1.0, cap, method=method, steps=nj.Adaptive(1e-5, 1e-6)).z1

    np.testing.assert_allclose(jax.grad(end)(1.8), 1 - np.exp(-1.5), rtol=1e-3)


def test_steps_whose_estimate_says_nothing_are_counted():
    stats = nj.odesolve(lotka_volterra, jnp.ones(2), 0.0, 5.0, jnp.ones(4)).stats
    assert int(stats.unseen) == int(stats.accepted) > 8
    stats = nj.odesolve(lotka_volterra, jnp.array([1.0, 2.0]), 0.0, 5.0, jnp.ones(4)).stats
    assert int(stats.unseen) <= 2


def test_the_certificate_does_not_stand_on_the_steps_it_judges():
    p, options = jnp.ones(4), {"steps": nj.Adaptive(first_step=1.0)}  # grows from there, on estimates of zero
    assert not nj.check_gradient(lotka_volterra, jnp.ones(2), 0.0, 10.0, p, **options).ok
    assert nj.check_gradient(lotka_volterra, jnp.ones(2), 0.0, 10.0, p, adjoint=nj.Backsolve(), **options).ok


def test_a_tangent_in_the_state_is_controlled():
    field = nj.with_tangent(lotka_volterra)

    def end(z0):
        steps = nj.Adaptive(first_step=1.0)
        return nj.odesolve(field, (z0, jnp.array([0.7, 0.4])), 0.0, 10.0, jnp.ones(4), steps=steps).z1[0][0]

    np.testing.assert_allclose(jax.grad(end)(jnp.ones(2)), [np.cos(10.0), -np.sin(10.0)], atol=1e-4)


def quadratic(z, t, k):
    return -k * z**2 / 1e-9


def test_a_state_below_the_absolute_tolerance_is_warned_of():
    with pytest.warns(UserWarning, match="smaller than atol"):
        sol = nj.odesolve(quadratic, 1e-9, 0.0, 5.0, 1.0)
    np.testing.assert_allclose(sol.z1, 1e-9 / 6, rtol=1e-3)


def test_the_first_step_does_not_lie_where_an_estimate_is_zero():
    sol = nj.odesolve(decay, 1.0, 0.0, 2e-6, 1e6, steps=nj.Adaptive(1e-3, 1e-6), method=nj.bosh3)
    np.testing.assert_allclose(sol.z1, np.exp(-2.0), rtol=1e-2)


STEPS = {"fixed": (nj.Fixed(4), nj.rk4), "adaptive": (nj.Adaptive(), nj.tsit5)}


@pytest.mark.parametrize("adjoint", [a for n, a in ADJOINTS.items() if n != "direct"])
@pytest.mark.parametrize(("steps", "method"), STEPS.values(), ids=STEPS.keys())
def test_a_way_of_no_length_has_the_derivatives_of_the_flow(steps, method, adjoint):
    def end(z0, t0, t1):
        return nj.odesolve(decay, z0, t0, t1, 2.0, steps=steps, method=method, adjoint=adjoint, max_steps=32).z1

    np.testing.assert_allclose(jax.grad(end, (0, 1, 2))(1.5, 0.3, 0.3), (1.0, 3.0, -3.0), rtol=1e-6)


@every_adjoint
def test_rows_of_a_way_of_no_length_have_the_derivatives_of_the_flow(adjoint):
    def rows(z0, t0, t1, ts):
        options = {"steps": nj.Fixed(2), "adjoint": adjoint, "max_steps": 32}
        at = nj.odesolve(decay, z0, t0, t1, 2.0, save=nj.SaveAt(ts), **options)
        dense = nj.odesolve(decay, z0, t0, t1, 2.0, save=nj.Dense(2), **options)
        return at.zs.sum() + 10 * dense.evaluate(ts).sum()

    got = jax.jit(jax.grad(rows, (0, 1, 2, 3)))(1.5, 0.3, 0.3, jnp.array([0.3, 0.3]))
    for value, want in zip(got, (22.0, 66.0, 0.0, -33.0), strict=True):
        np.testing.assert_allclose(value, want, rtol=1e-6, atol=1e-12)


def test_rows_where_nothing_is_integrated_move_with_its_start():
    def rows(t0, ts):
        save, options = nj.SaveAt(ts), {"adjoint": nj.Direct(), "max_steps": 16}
        return nj.odesolve(decay, 1.5, t0, 0.3, 2.0, save=save, **options).zs.sum()

    for value, want in zip(jax.grad(rows, (0, 1))(0.3, jnp.array([0.3, 0.3])), (6.0, -3.0), strict=True):
        np.testing.assert_allclose(value, want, rtol=1e-6)


@pytest.mark.parametrize("steps", [nj.Fixed(20), nj.Adaptive()], ids=["fixed", "adaptive"])
def test_a_row_at_an_end_moves_forwards_with_its_own_time(steps):
    def rows(t0, t1, ts):
        return nj.odesolve(decay, 1.5, t0, t1, 2.0, steps=steps, save=nj.SaveAt(ts), max_steps=64).zs

    ts = jnp.array([0.3, 0.8])
    by_t0, by_t1, by_ts = jax.jit(jax.jacfwd(rows, (0, 1, 2)))(0.3, 0.8, ts)
    slope = 3.0 * np.exp(-2.0 * (ts - 0.3))
    np.testing.assert_allclose(by_t0, slope, rtol=1e-4)
    np.testing.assert_allclose(by_t1, [0.0, 0.0], atol=1e-4)
    np.testing.assert_allclose(by_ts, np.diag(-slope), rtol=1e-4, atol=1e-4)


def test_dense_output_of_a_way_of_no_length_is_constant_in_a_batch_too():
    sol = jax.vmap(lambda t1: nj.odesolve(decay, 1.0, 0.0, t1, 1.0, save=nj.Dense(64)))(jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(sol.evaluate(0.0), [1.0, 1.0])


@pytest.mark.parametrize("grid", [[0.0, 0.5, 1.0, 1.0], [1.0, 0.5, 0.5, 0.0]], ids=["forwards", "backwards"])
def test_dense_output_passes_a_node_that_is_repeated(grid):
    grid = jnp.array(grid)
    sol = nj.odesolve(decay, 1.0, grid[0], grid[-1], 1.0, steps=nj.Grid(grid), method=nj.rk4, save=nj.Dense(8))
    ts = grid[0] + jnp.array([0.25, 0.5, 0.6, 1.0]) * (grid[-1] - grid[0])
    np.testing.assert_allclose(sol.evaluate(ts), np.exp(grid[0] - ts), rtol=2e-3)


def twice(z, t, theta):
    return 2 * z


def test_a_function_of_the_rows_is_taken_on_a_way_of_no_length():
    def rows(z):
        return nj.odesolve(decay, z, 1.0, 1.0, 0.5, save=nj.SaveAt(jnp.array([1.0, 1.0]), twice)).zs

    np.testing.assert_allclose(rows(3.0), [6.0, 6.0])
    np.testing.assert_allclose(jax.grad(lambda z: rows(z).sum())(3.0), 4.0)


@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0)], ids=["forwards", "backwards"])
def test_nothing_is_known_outside_of_a_solve(ends):
    sol = nj.odesolve(decay, 1.0, *ends, 1.0, save=nj.Dense(64))
    values = sol.evaluate(jnp.array([-3.0, -0.1, 0.0, 1.0, 1.1]))
    assert np.isnan(values).tolist() == [True, True, False, False, True]


def slow(z, t, a):
    return -z / 50.0


def test_times_keep_the_digits_they_come_with():
    z0, start = jnp.ones(1, jnp.float32), 1.7e9  # seconds since 1970
    sol = nj.odesolve(slow, z0, start, start + 50.0)
    assert sol.z1.dtype == jnp.float32
    np.testing.assert_allclose(sol.z1, np.exp(-1.0), rtol=1e-5)
    hours = 2000.0 + np.arange(1, 6) / 8766
    rows = nj.odesolve(hourly, z0, 2000.0, hours[-1], save=nj.SaveAt(hours)).zs[:, 0]
    np.testing.assert_allclose(rows, np.exp(-np.arange(1, 6) / 5), rtol=1e-5)
    np.testing.assert_allclose(nj.odeint(slow_int, z0, [start, start + 50.0])[-1], np.exp(-1.0), rtol=1e-5)


def hourly(z, t, a):
    return -z * 8766 / 5


def slow_int(z, t):
    return -z / 50.0


def test_times_that_cannot_be_told_apart_are_refused(float32):
    with pytest.raises(ValueError, match=r"t1=1700000050.0 .* nearer origin"):
        nj.odesolve(slow, jnp.ones(1), 1.7e9, 1.7e9 + 50.0)


def test_a_time_beyond_an_end_by_rounding_is_that_end():
    ts = jnp.arange(4) * 0.1  # the last is one unit in the last place above 0.3
    rows = jax.jit(lambda t1: nj.odesolve(decay, 1.0, 0.0, t1, 1.0, save=nj.SaveAt(ts)).zs)(0.3)
    np.testing.assert_allclose(rows, np.exp(-ts), rtol=1e-6)


def test_times_of_32_bits_end_where_they_do_in_their_own_digits():
    ts = jnp.array([1.5, np.nextafter(np.float32(2.7), np.float32(3.0))], jnp.float32)
    z0 = jnp.ones((), jnp.float64)
    rows = jax.jit(lambda t1: nj.odesolve(decay, z0, 1.0, t1, 1.0, save=nj.SaveAt(ts)).zs)(jnp.float32(2.7))
    np.testing.assert_allclose(rows, np.exp(1.0 - ts), rtol=1e-6)
    grid = nj.Grid(jnp.linspace(0.0, 0.7, 9, dtype=jnp.float32))  # ends below 0.7
    sol = nj.odesolve(decay, z0, 0.0, 0.7, 1.0, steps=grid, method=nj.rk4, save=nj.Dense(8))
    np.testing.assert_allclose(sol.evaluate(np.nextafter(np.float32(0.7), np.float32(1.0))), np.exp(-0.7), rtol=1e-6)


def leaves_its_domain(z, t, p):
    return p[0] * jnp.sqrt(p[1] - t) * z


SAVES = [nj.SaveEnd(), nj.SaveSteps(64), nj.Dense(64), nj.SaveAt(jnp.array([0.1]))]


@pytest.mark.parametrize("save", SAVES, ids=lambda save: type(save).__name__)
def test_a_masked_lane_adds_nothing_to_shared_parameters(save):
    def loss(rate, t1, ends):
        sol = jax.vmap(lambda end, t1: nj.odesolve(leaves_its_domain, 1.0, 0.0, t1, (rate, end), save=save))(ends, t1)
        return jnp.sum(jnp.where(sol.ok, sol.z1, 0.0))

    both = jax.grad(loss, (0, 1))(0.7, jnp.ones(2), jnp.array([3.0, 0.6]))
    alone = jax.grad(loss, (0, 1))(0.7, jnp.ones(1), jnp.array([3.0]))
    np.testing.assert_allclose(both[1][0], alone[1][0], rtol=1e-14)
    np.testing.assert_allclose(both[0], alone[0], rtol=1e-14)
    assert both[1][1] == 0.0


LOST = {
    "state": (np.nan, 0.0, 1.0, 1.0),
    "t0": (1.0, np.nan, 1.0, 1.0),
    "t1": (1.0, 0.0, np.inf, 1.0),
    "rate": (1.0, 0.0, 1.0, np.nan),
}


@every_adjoint
def test_a_masked_solve_that_failed_has_a_gradient_of_exactly_zero(adjoint):
    def loss(z0, t0, t1, rate):
        sol = nj.odesolve(decay, z0, t0, t1, rate, adjoint=adjoint, max_steps=32)
        return jnp.where(sol.ok, sol.z1, 0.0)

    slopes = jax.jit(jax.grad(loss, (0, 1, 2, 3)))
    for name, lost in LOST.items():
        np.testing.assert_array_equal(slopes(*lost), 0.0, err_msg=name)


def squared(z, t, theta):
    return theta * z**2


def test_a_second_derivative_of_nothing_but_failed_lanes_is_zero():
    def loss(rate, starts):
        def one(z0):
            sol = nj.odesolve(decay, z0, 0.0, 1.0, rate, adjoint=nj.Direct(), max_steps=16)
            return jnp.where(sol.ok, sol.z1, 0.0)

        return jnp.sum(jax.vmap(one)(starts))

    second = jax.jit(jax.jacrev(jax.grad(loss), (0, 1)))(0.7, jnp.array([np.nan]))
    assert [x.tolist() for x in second] == [0.0, [0.0]]


def test_rows_that_were_not_reached_do_not_reach_a_function_of_the_rows():
    def loss(theta):
        save = nj.SaveAt(jnp.array([0.5, 1.0]), squared)
        sol = jax.vmap(lambda z0: nj.odesolve(decay, z0, 0.0, 1.0, theta, save=save))(jnp.array([1.0, jnp.nan]))
        return jnp.sum(jnp.where(sol.ok[:, None], sol.zs, 0.0))

    want = sum((1 - 2 * 0.7 * t) * np.exp(-1.4 * t) for t in (0.5, 1.0))
    np.testing.assert_allclose(jax.grad(loss)(0.7), want, rtol=1e-5)


def test_dense_output_of_a_masked_lane_adds_nothing():
    def loss(rate):
        sol = jax.vmap(lambda z0: nj.odesolve(decay, z0, 0.0, 1.0, rate, save=nj.Dense(32)))(jnp.array([1.0, jnp.nan]))
        return jnp.sum(jnp.where(sol.ok, sol.evaluate(0.5), 0.0))

    np.testing.assert_allclose(jax.grad(loss)(0.7), -0.5 * np.exp(-0.35), rtol=1e-5)


def test_a_loss_of_filled_states_may_be_masked_afterwards():
    def loss(rate):
        sol = jax.vmap(lambda z0: nj.odesolve(decay, z0, 0.0, 1.0, rate))(jnp.array([0.5, jnp.nan, 1.0]))
        return jnp.sum(jnp.where(sol.ok, (sol.filled().z1 - 0.3) ** 2, 0.0))

    want = sum(2 * (z0 * np.exp(-0.5) - 0.3) * -z0 * np.exp(-0.5) for z0 in (0.5, 1.0))
    np.testing.assert_allclose(jax.grad(loss)(0.5), want, rtol=1e-5)


WRONG = {
    "rtol": ({"steps": nj.Adaptive(rtol=-1.0)}, r"rtol=\.\.\..*-1.0"),
    "first_step": ({"steps": nj.Adaptive(first_step=0.0)}, r"first_step=\.\.\..*0.0"),
    "late": ({"save": nj.SaveAt(jnp.array([0.5, 1.5]))}, r"ts\[1\]=1.5 lies beyond t1=1.0"),
    "turning": ({"save": nj.SaveAt(jnp.array([0.5, 0.25]))}, r"ts\[1\]=0.25 comes after 0.5"),
    "grid": ({"steps": nj.Grid(jnp.array([0.0, 0.5])), "method": nj.rk4}, "must begin at t0=0.0 and end at t1=1.0"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_value_is_named_in_an_eager_call(options, message):
    with pytest.raises(ValueError, match=message) as raised:
        nj.odesolve(decay, 1.0, 0.0, 1.0, 1.0, **options)
    assert raised.value.solution.status == Status.BAD_INPUT


def test_a_smallest_step_may_be_forced():
    def stiff(z, t, k):
        return -k * (z - jnp.cos(t))

    steps = nj.Adaptive(1e-9, 1e-9, min_step=0.01)
    refused = nj.odesolve(stiff, 0.0, 0.0, 0.5, 50.0, steps=steps, throw=False)
    assert refused.status == Status.STEP_UNDERFLOW
    forced = nj.Adaptive(1e-9, 1e-9, min_step=0.01, force_min_step=True)
    assert nj.odesolve(stiff, 0.0, 0.0, 0.5, 50.0, steps=forced).ok
