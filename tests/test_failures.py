"""Failures are values: which status, at what time, what stays, and what an error says."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import node_jax as nj
from node_jax import Status

ADAPTIVE, FIXED = nj.Adaptive(1e-6, 1e-8), nj.Fixed(40)
solve = partial(nj.odesolve, throw=False)


# Fields.


def turns_nan(z, t, theta):
    return jnp.where(t >= 0.5, jnp.nan, -z)


def turns_nan_at(z, t, theta):
    return jnp.where(t >= theta, jnp.nan, -z)


def square(z, t, theta):
    return z**2


def decay(z, t, theta):
    return -theta * z


def cosine(z, t, theta):
    return theta * jnp.cos(t) * jnp.ones_like(z)


def stiff(z, t, theta):
    return -1e6 * (z - jnp.cos(t))


def emptying(z, t, theta):
    return -jnp.sqrt(z)


def logarithm(z, t, theta):
    return -jnp.log(z) - 1.0


def square_root_of_two(z, t, theta):
    return -jnp.sqrt(z - 1.0) * jnp.sqrt(z)


def sign(z, t, theta):
    return -1e3 * jnp.sign(z)


def inverse(z, t, theta):
    return -1.0 / z


def trials(sol):
    return int(sol.stats.accepted + sol.stats.rejected)


# Which status, and when.


@pytest.mark.parametrize("method", [nj.tsit5, nj.bosh3, nj.dopri8], ids=str)
def test_a_field_that_turns_nan_is_reported_within_45_attempts(method):
    sol = solve(turns_nan, 1.0, 0.0, 1.0, method=method)
    assert sol.status == Status.NON_FINITE
    assert trials(sol) <= 45
    assert 0.5 - 1e-6 <= sol.t_reached <= 0.5


@pytest.mark.parametrize("steps", [nj.Fixed(40), nj.Grid(np.linspace(0.0, 1.0, 41))], ids=["Fixed", "Grid"])
def test_a_field_that_turns_nan_stops_fixed_steps_where_they_are(steps):
    sol = solve(turns_nan, 1.0, 0.0, 1.0, method=nj.rk4, steps=steps)
    assert sol.status == Status.NON_FINITE
    np.testing.assert_allclose(sol.t_reached, 0.475, rtol=1e-12)  # the step to 0.5 sees the NaN
    assert int(sol.stats.accepted) == 19
    assert trials(sol) <= 45
    assert np.isnan(sol.z1)


def test_a_field_that_turns_nan_going_backwards_is_reported_too():
    sol = solve(lambda z, t, theta: jnp.where(t <= 0.5, jnp.nan, z), 1.0, 1.0, 0.0)
    assert sol.status == Status.NON_FINITE
    assert trials(sol) <= 45
    assert 0.5 <= sol.t_reached <= 0.5 + 1e-6


@pytest.mark.parametrize("max_steps", [4096, None])
@pytest.mark.parametrize("method", [nj.tsit5, nj.dopri5, nj.dopri8], ids=str)  # bosh3 needs 3,788 at this tolerance
def test_a_blow_up_is_reported_within_1500_attempts_at_its_time(method, max_steps):
    sol = solve(square, 1.0, 0.0, 2.0, method=method, max_steps=max_steps)
    assert sol.status in (Status.NON_FINITE, Status.STEP_UNDERFLOW)
    assert trials(sol) <= 1500
    np.testing.assert_allclose(sol.t_reached, 1.0, atol=1e-5)


def test_a_blow_up_in_float32_is_reported_at_its_time():
    sol = solve(square, jnp.float32(1.0), 0.0, 2.0)
    assert sol.status in (Status.NON_FINITE, Status.STEP_UNDERFLOW)
    assert trials(sol) <= 1500
    np.testing.assert_allclose(sol.t_reached, 1.0, atol=1e-3)


def test_an_infinite_state_after_finite_slopes_is_not_accepted():
    sol = solve(square, 1e200, 0.0, 1.0, steps=nj.Fixed(2), method=nj.euler)
    assert sol.status == Status.NON_FINITE
    assert sol.t_reached == 0.0


@pytest.mark.parametrize(
    ("f", "z0", "t1", "exact"),
    [
        (emptying, 1.0, 1.95, 0.025**2),
        (emptying, 1.0, 2.5, 0.0),
        (emptying, 100.0, 19.9, 0.05**2),
        (square_root_of_two, 2.0, 1.7, None),
        (logarithm, 2.0, 30.0, float(np.exp(-1.0))),
        (inverse, 1.0, 0.49, float(np.sqrt(1 - 2 * 0.49))),
    ],
    ids=["sqrt", "sqrt beyond empty", "sqrt from 100", "two roots", "log", "inverse"],
)
def test_trial_steps_that_leave_the_domain_are_rejected_and_the_solve_goes_on(f, z0, t1, exact):
    if f is emptying and t1 == 2.5:
        sol = solve(f, z0, 0.0, t1)
        # the right answer stays at 0, which a float reaches only by a step that ends there
        assert sol.status in (Status.SUCCESS, Status.NON_FINITE, Status.STEP_UNDERFLOW)
        np.testing.assert_allclose(sol.t_reached, 2.0, atol=1e-3) if not sol.ok else None
        return
    sol = nj.odesolve(f, z0, 0.0, t1)
    if exact is None:
        exact = nj.odesolve(f, z0, 0.0, t1, steps=nj.Adaptive(1e-11, 1e-11)).z1
    np.testing.assert_allclose(sol.z1, exact, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("t0", [1e6, 1e8, -1e7])
def test_a_discontinuity_in_float32_at_large_times_ends_or_finishes_but_never_hangs(t0):
    sol = solve(sign, jnp.float32(1.0), t0, t0 + 100.0, max_steps=None)
    assert sol.status in (Status.SUCCESS, Status.STEP_UNDERFLOW)


@pytest.mark.parametrize("t0", [1e6, 1e7])
def test_float32_at_large_times_counts_time_without_drift(t0):
    """Steps below the spacing of t (0.06 at 1e6) still add up: 3000 of them decay as they should."""
    sol = nj.odesolve(decay, jnp.float32(1.0), t0, t0 + 2.0, 1.0)
    np.testing.assert_allclose(sol.z1, np.exp(-2.0), rtol=1e-4)
    assert sol.t_reached == np.float32(t0 + 2.0)


def test_a_stiff_problem_in_float32_at_a_large_time_underflows_or_runs_out_but_does_not_claim_success():
    sol = solve(stiff, jnp.float32(0.0), 1e6, 1e6 + 10.0, max_steps=2000)
    assert sol.status in (Status.MAX_STEPS, Status.STEP_UNDERFLOW)
    assert np.isnan(sol.z1)


def test_a_minimal_step_that_is_rejected_underflows():
    sol = solve(stiff, 0.0, 0.0, 1.0, steps=nj.Adaptive(1e-6, 1e-8, min_step=1e-2))
    assert sol.status == Status.STEP_UNDERFLOW
    assert sol.t_reached == 0.0


def test_a_tolerance_of_zero_is_that_of_rounding_and_ends():
    sol = solve(cosine, jnp.ones(2), 0.0, 1.0, 1.0, steps=nj.Adaptive(0.0, 0.0), max_steps=None)
    assert sol.status in (Status.SUCCESS, Status.STEP_UNDERFLOW)
    if sol.ok:
        np.testing.assert_allclose(sol.z1, np.full(2, 1.0 + np.sin(1.0)), rtol=1e-13)


def test_a_component_that_stays_zero_needs_no_absolute_tolerance():
    sol = solve(cosine, jnp.zeros(2), 0.0, 1.0, jnp.array([0.0, 1.0]), steps=nj.Adaptive(1e-6, 0.0, first_step=1e-3))
    assert sol.ok
    np.testing.assert_allclose(sol.z1, [0.0, np.sin(1.0)], rtol=1e-5)


def test_max_steps_counts_attempts_and_reports_the_time_reached():
    sol = solve(decay, 1.0, 0.0, 50.0, 1.0, max_steps=7)
    assert sol.status == Status.MAX_STEPS
    assert trials(sol) == 7
    assert 0.0 < sol.t_reached < 50.0


def test_a_solve_that_needs_exactly_max_steps_succeeds():
    needed = trials(nj.odesolve(decay, 1.0, 0.0, 5.0, 1.0))
    assert nj.odesolve(decay, 1.0, 0.0, 5.0, 1.0, max_steps=needed).ok
    assert solve(decay, 1.0, 0.0, 5.0, 1.0, max_steps=needed - 1).status == Status.MAX_STEPS


@pytest.mark.parametrize("z0", [jnp.nan, jnp.inf])
def test_a_start_that_is_not_finite_stops_before_the_first_step(z0):
    for steps in (ADAPTIVE, FIXED):
        sol = solve(decay, z0, 0.0, 1.0, 1.0, steps=steps)
        assert sol.status == Status.NON_FINITE
        assert trials(sol) == 0
        assert sol.t_reached == 0.0


BAD_INPUT = {
    "t0 NaN": {"t0": jnp.nan},
    "t1 NaN": {"t1": jnp.nan},
    "t1 infinite": {"t1": jnp.inf},
    "negative rtol": {"steps": nj.Adaptive(rtol=-1e-3)},
    "NaN atol": {"steps": nj.Adaptive(atol=jnp.nan)},
    "infinite atol": {"steps": nj.Adaptive(atol=jnp.inf)},
    "negative first step": {"steps": nj.Adaptive(first_step=-0.1)},
    "NaN first step": {"steps": nj.Adaptive(first_step=jnp.nan)},
    "zero max step": {"steps": nj.Adaptive(max_step=0.0)},
    "NaN max step": {"steps": nj.Adaptive(max_step=jnp.nan)},
    "negative min step": {"steps": nj.Adaptive(min_step=-1.0)},
    "NaN min step": {"steps": nj.Adaptive(min_step=jnp.nan)},
    "NaN breakpoint": {"steps": nj.Adaptive(breakpoints=jnp.array([0.5, jnp.nan]))},
    "ts unsorted": {"save": nj.SaveAt(jnp.array([0.2, 0.1]))},
    "ts outside": {"save": nj.SaveAt(jnp.array([0.2, 1.1]))},
    "ts before": {"save": nj.SaveAt(jnp.array([-0.1, 0.5]))},
    "ts NaN": {"save": nj.SaveAt(jnp.array([0.1, jnp.nan]))},
    "ts against the direction": {"t1": -1.0, "save": nj.SaveAt(jnp.array([-0.5, -0.1]))},
    "ts where t0 equals t1": {"t1": 0.0, "save": nj.SaveAt(jnp.array([0.5]))},
    "grid starts late": {"steps": nj.Grid(jnp.array([0.1, 1.0]))},
    "grid ends early": {"steps": nj.Grid(jnp.array([0.0, 0.9]))},
    "grid turns back": {"steps": nj.Grid(jnp.array([0.0, 0.6, 0.5, 1.0]))},
    "grid NaN": {"steps": nj.Grid(jnp.array([0.0, jnp.nan, 1.0]))},
}


@pytest.mark.parametrize("call", BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_values_are_bad_input_without_a_step(call):
    call = {"t0": 0.0, "t1": 1.0} | call
    t0, t1 = call.pop("t0"), call.pop("t1")
    sol = solve(decay, 1.0, t0, t1, 1.0, **call)
    assert sol.status == Status.BAD_INPUT
    assert trials(sol) == 0
    np.testing.assert_equal(np.asarray(sol.t_reached), np.asarray(t0))
    assert np.isnan(sol.z1)
    if sol.zs is not None:
        assert np.all(np.isnan(sol.zs))


# What stays.


@pytest.mark.parametrize("steps", [ADAPTIVE, nj.Fixed(41)], ids=["Adaptive", "Fixed"])
def test_outputs_saved_before_the_failure_stay_and_those_after_are_nan(steps):
    ts = jnp.linspace(0.0, 1.0, 11)
    sol = solve(turns_nan, jnp.ones(2), 0.0, 1.0, save=nj.SaveAt(ts), steps=steps)
    before = np.asarray(ts) <= np.asarray(sol.t_reached)
    assert 4 <= before.sum() <= 6
    np.testing.assert_allclose(sol.zs[before, 1], np.exp(-ts[before]), rtol=1e-5)
    assert np.all(np.isnan(sol.zs[~before]))
    assert np.all(np.isnan(sol.z1))
    np.testing.assert_array_equal(sol.ts, ts)


def test_functions_of_the_state_are_nan_after_the_failure_even_if_constant():
    sol = solve(turns_nan, 1.0, 0.0, 1.0, save=nj.SaveAt(jnp.array([0.2, 0.7]), constant))
    np.testing.assert_array_equal(sol.zs, [3.0, np.nan])


def constant(z, t, theta):
    return jnp.array(3.0)


def test_steps_saved_before_the_failure_stay():
    sol = solve(turns_nan, 1.0, 0.0, 1.0, save=nj.SaveSteps(64))
    count = int(sol.count)
    assert 0 < count < 64
    assert sol.ts[count - 1] == sol.t_reached
    np.testing.assert_allclose(sol.zs[:count], np.exp(-sol.ts[:count]), rtol=1e-5)
    assert np.all(np.isnan(sol.zs[count:]))
    assert np.all(np.isnan(sol.ts[count:]))


def test_dense_output_before_the_failure_stays():
    sol = solve(turns_nan, 1.0, 0.0, 1.0, save=nj.Dense(64))
    np.testing.assert_allclose(sol.evaluate(jnp.array([0.0, 0.3, 0.49])), np.exp([-0.0, -0.3, -0.49]), rtol=1e-5)
    assert np.isnan(sol.evaluate(0.51))
    assert np.all(np.isnan(sol.evaluate(jnp.array([0.6, 1.0]))))


@pytest.mark.parametrize("save", [nj.SaveSteps(5), nj.Dense(5)], ids=["SaveSteps", "Dense"])
def test_a_full_buffer_is_capacity_and_keeps_its_rows(save):
    sol = solve(decay, 1.0, 0.0, 50.0, 1.0, save=save)
    assert sol.status == Status.CAPACITY
    assert int(sol.count) == 5
    assert 0.0 < sol.t_reached < 50.0
    assert np.isnan(sol.z1)
    if sol.zs is not None:
        np.testing.assert_allclose(sol.zs, np.exp(-sol.ts), rtol=1e-5)
    else:
        half = sol.t_reached / 2
        np.testing.assert_allclose(sol.evaluate(half), np.exp(-half), rtol=1e-5)


@pytest.mark.parametrize("make", [nj.SaveSteps, nj.Dense], ids=["SaveSteps", "Dense"])
def test_a_buffer_that_just_suffices_is_enough(make):
    needed = int(nj.odesolve(decay, 1.0, 0.0, 5.0, 1.0).stats.accepted)
    assert nj.odesolve(decay, 1.0, 0.0, 5.0, 1.0, save=make(needed)).ok
    assert solve(decay, 1.0, 0.0, 5.0, 1.0, save=make(needed - 1)).status == Status.CAPACITY


# What an error says.


@pytest.mark.parametrize(
    ("f", "options", "words"),
    [
        (decay, {"max_steps": 3}, ["MAX_STEPS", "t=", "max_steps"]),
        (turns_nan, {}, ["NON_FINITE", "t=0.5", "domain"]),
        (decay, {"save": nj.SaveSteps(2)}, ["CAPACITY", "t=", "capacity"]),
        (decay, {"steps": nj.Adaptive(rtol=-1.0)}, ["BAD_INPUT", "t=0", "rtol"]),
        (stiff, {"steps": nj.Adaptive(min_step=0.1)}, ["STEP_UNDERFLOW", "t=0", "singularity"]),
    ],
    ids=["MAX_STEPS", "NON_FINITE", "CAPACITY", "BAD_INPUT", "STEP_UNDERFLOW"],
)
def test_the_error_names_status_time_and_remedy_and_carries_the_solution(f, options, words):
    with pytest.raises(nj.SolveError) as caught:
        nj.odesolve(f, 0.5, 0.0, 9.0, 1.0, **options)
    for word in [*words, "throw=False"]:
        assert word in str(caught.value)
    sol = caught.value.solution
    assert isinstance(sol, nj.Solution)
    assert not sol.ok
    assert Status(int(sol.status)).name == words[0]


def test_throw_false_returns_the_failed_solution():
    sol = nj.odesolve(turns_nan, 1.0, 0.0, 1.0, throw=False)
    assert not sol.ok
    assert "NON_FINITE" in str(sol)


@jax.jit
def status_inside(z0, theta):
    return nj.odesolve(turns_nan_at, z0, 0.0, 1.0, theta).status


def z1_of(z0, theta):
    return nj.odesolve(turns_nan_at, z0, 0.0, 1.0, theta).z1


def test_nothing_raises_under_a_transformation():
    theta = jnp.array(0.5)
    assert status_inside(1.0, theta) == Status.NON_FINITE
    assert np.isnan(jax.vmap(z1_of, (0, None))(jnp.ones(2), theta)).all()
    assert np.isnan(jax.grad(z1_of)(1.0, theta))
    assert np.isnan(jax.vmap(jax.grad(z1_of), (0, None))(jnp.ones(2), theta)).all()
    assert np.isnan(jax.jit(jax.grad(z1_of))(1.0, theta))


def test_the_summary_of_a_batch_counts_and_names_the_earliest():
    sol = jax.vmap(lambda stop: solve(turns_nan_at, 1.0, 0.0, 1.0, stop))(jnp.array([2.0, 0.73, 2.0, 0.41, 2.0]))
    assert str(sol) == "Solution: 3 ok, 2 NON_FINITE, earliest at t=0.41"
    assert repr(sol) == str(sol)


def test_the_summary_separates_thousands_and_statuses():
    status = np.zeros(4096, np.int32)
    status[[5, 6, 9]] = Status.MAX_STEPS
    status[1] = Status.BAD_INPUT
    reached = np.full(4096, 10.0)
    reached[[5, 6, 9, 1]] = [1.73, 4.0, 3.0, 2.0]
    zeros = jnp.zeros(4096, jnp.int32)
    stats = nj.Stats(*[zeros] * 6)
    sol = nj.Solution(zeros, None, None, jnp.asarray(status), jnp.asarray(reached), stats, None)
    assert str(sol) == "Solution: 4,092 ok, 3 MAX_STEPS, 1 BAD_INPUT, earliest at t=1.73"


def test_the_earliest_failure_of_a_backward_batch_is_the_one_that_came_least_far():
    sol = jax.vmap(lambda t0: solve(turns_nan_backwards, 1.0, t0, 0.0))(jnp.array([1.0, 2.0, 0.3]))
    assert [Status(int(s)) for s in sol.status] == [Status.NON_FINITE, Status.NON_FINITE, Status.NON_FINITE]
    np.testing.assert_allclose(sol.t_reached, [0.5, 0.5, 0.3], atol=1e-6)


def turns_nan_backwards(z, t, theta):
    return jnp.where(t <= 0.5, jnp.nan, z)


# A failed lane is alone.


@pytest.mark.parametrize("steps", [ADAPTIVE, FIXED], ids=["Adaptive", "Fixed"])
def test_a_nan_lane_does_not_change_the_other_lanes(steps):
    run = jax.jit(jax.vmap(lambda z0, rate: nj.odesolve(decay, z0, 0.0, 2.0, rate, steps=steps), in_axes=(0, 0)))
    rates, clean = jnp.array([0.5, 1.0, 2.0, 4.0]), jnp.ones((4, 3))
    want, got = run(clean, rates), run(clean.at[2, 1].set(jnp.nan), rates)
    others = np.array([0, 1, 3])
    np.testing.assert_array_equal(got.z1[others], want.z1[others])
    for a, b in zip(got.stats, want.stats, strict=True):
        np.testing.assert_array_equal(a[others], b[others])
    assert got.status.tolist() == [0, 0, Status.NON_FINITE, 0]
    assert int(got.stats.accepted[2]) == 0
    assert np.isnan(got.z1[2]).all()


def test_lanes_fail_each_in_its_own_way():
    def one(z0, rate, rtol, t1):
        return nj.odesolve(decay, z0, 0.0, t1, rate, steps=nj.Adaptive(rtol, 1e-8), max_steps=30)

    sol = jax.vmap(one)(
        jnp.array([1.0, jnp.nan, 1.0, 1.0, 1.0]),
        jnp.array([1.0, 1.0, 1.0, 1.0, jnp.nan]),
        jnp.array([1e-6, 1e-6, -1.0, 1e-6, 1e-6]),
        jnp.array([1.0, 1.0, 1.0, 1e3, 1.0]),
    )
    want = [Status.SUCCESS, Status.NON_FINITE, Status.BAD_INPUT, Status.MAX_STEPS, Status.NON_FINITE]
    assert sol.status.tolist() == want
    np.testing.assert_array_equal(np.isfinite(sol.z1), sol.ok)


def test_without_a_limit_everything_but_endless_smooth_integration_ends():
    for f, z0, status in [
        (square, 1.0, (Status.NON_FINITE, Status.STEP_UNDERFLOW)),
        (turns_nan, 1.0, (Status.NON_FINITE,)),
        (emptying, 1.0, (Status.SUCCESS, Status.NON_FINITE, Status.STEP_UNDERFLOW)),
    ]:
        assert solve(f, z0, 0.0, 2.1, max_steps=None).status in status, f


def test_chattering_about_a_singularity_ends_with_underflow():
    """Past t = 0.5 the sign of z flips from step to step and steps shrink to the spacing of t."""
    sol = solve(inverse, 1.0, 0.0, 2.1, max_steps=100_000)
    assert sol.status in (Status.NON_FINITE, Status.STEP_UNDERFLOW)
    np.testing.assert_allclose(sol.t_reached, 0.5, atol=1e-6)


# Wrong arguments raise, with name and value.


def wrong_shape(z, t, theta):
    return jnp.ones(3)


def wrong_dtype(z, t, theta):
    return z.astype(jnp.float32)


def wrong_structure(z, t, theta):
    return (z, z)


def torch_style(t, z, theta):
    return -jnp.stack([z[1], z[0]]) * theta


def time_first(t, z):
    return -z


STATE = np.ones(2)
NO_DENSE = nj.ExplicitRK(1, (0.0,), ((),), (1.0,), name="bare")

WRONG = {
    "f": ((3, STATE, 0.0, 1.0), {}, TypeError, ["f must be callable", "3"]),
    "z0 integer": ((decay, jnp.arange(3), 0.0, 1.0), {}, TypeError, ["z0", "int64"]),
    "z0 Python integer": ((decay, 1, 0.0, 1.0), {}, TypeError, ["z0", "int"]),
    "z0 text": ((decay, "one", 0.0, 1.0), {}, TypeError, ["z0", "str"]),
    "t0 vector": ((decay, STATE, jnp.zeros(2), 1.0), {}, ValueError, ["t0", "[0."]),
    "t1 complex": ((decay, STATE, 0.0, 1j), {}, ValueError, ["t1", "1j"]),
    "t1 None": ((decay, STATE, 0.0, None), {}, ValueError, ["t1", "None"]),
    "method": ((decay, STATE, 0.0, 1.0), {"method": "tsit5"}, TypeError, ["method", "'tsit5'"]),
    "steps": ((decay, STATE, 0.0, 1.0), {"steps": 0.1}, TypeError, ["steps", "0.1"]),
    "save": ((decay, STATE, 0.0, 1.0), {"save": [0.5]}, TypeError, ["save", "[0.5]"]),
    "adjoint": ((decay, STATE, 0.0, 1.0), {"adjoint": "direct"}, TypeError, ["adjoint", "'direct'"]),
    "max_steps zero": ((decay, STATE, 0.0, 1.0), {"max_steps": 0}, ValueError, ["max_steps", "0"]),
    "max_steps float": ((decay, STATE, 0.0, 1.0), {"max_steps": 10.0}, ValueError, ["max_steps", "10.0"]),
    "max_steps bool": ((decay, STATE, 0.0, 1.0), {"max_steps": True}, ValueError, ["max_steps", "True"]),
    "lane_width": ((decay, STATE, 0.0, 1.0), {"lane_width": 0}, ValueError, ["lane_width", "0"]),
    "adaptive euler": ((decay, STATE, 0.0, 1.0), {"method": nj.euler}, ValueError, ["euler", "Fixed"]),
    "no dense output": (
        (decay, STATE, 0.0, 1.0),
        {"method": NO_DENSE, "steps": nj.Fixed(3), "save": nj.Dense(3)},
        ValueError,
        ["bare", "dense"],
    ),
    "rtol shape": ((decay, STATE, 0.0, 1.0), {"steps": nj.Adaptive(rtol=jnp.ones(3))}, ValueError, ["rtol"]),
    "atol tree": ((decay, STATE, 0.0, 1.0), {"steps": nj.Adaptive(atol=(1.0, 1.0))}, ValueError, ["atol"]),
    "atol broadcasts z": (
        (decay, STATE, 0.0, 1.0),
        {"steps": nj.Adaptive(atol=jnp.ones((3, 2)))},
        ValueError,
        ["atol"],
    ),
    "slope shape": ((wrong_shape, STATE, 0.0, 1.0), {}, TypeError, ["(3,)", "(2,)"]),
    "slope dtype": ((wrong_dtype, STATE, 0.0, 1.0), {}, TypeError, ["float32", "float64"]),
    "slope structure": ((wrong_structure, STATE, 0.0, 1.0), {}, TypeError, ["z0"]),
    "swapped": ((torch_style, STATE, 0.0, 1.0), {}, TypeError, ["swapped", "from_torchdiffeq"]),
    "time first": ((time_first, STATE, 0.0, 1.0), {}, TypeError, ["from_torchdiffeq"]),
}


@pytest.mark.parametrize(("args", "options", "error", "words"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_argument_raises_and_is_named_with_its_value(args, options, error, words):
    args = (*args, 1.0)  # theta
    with pytest.raises(error) as caught:
        inspect.unwrap(nj.odesolve)(*args, **options)  # as users call it, without the tests' checks of annotations
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (nj.Fixed, 0),
        (nj.Fixed, 2.5),
        (nj.Fixed, True),
        (nj.SaveSteps, 0),
        (nj.SaveSteps, "9"),
        (nj.Dense, -1),
        (nj.Dense, None),
        (lambda checkpoints: nj.Checkpointed(checkpoints=checkpoints), 0),
        (lambda memory: nj.Checkpointed(memory=memory), 1.5),
    ],
)
def test_a_record_with_a_wrong_number_raises_and_names_it(make, value):
    with pytest.raises((ValueError, TypeError)) as caught:
        make(value)
    assert str(value) in str(caught.value)


@pytest.mark.parametrize(
    ("make", "shape"),
    [(nj.SaveAt, ()), (nj.SaveAt, (2, 2)), (nj.Grid, (1,)), (nj.Grid, ()), (nj.Grid, (2, 2))],
)
def test_times_of_a_wrong_shape_raise_and_name_it(make, shape):
    with pytest.raises(ValueError, match=r"ts must have shape") as caught:
        make(jnp.zeros(shape))
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("ts", [jnp.zeros(()), jnp.zeros(0), jnp.zeros((2, 1))], ids=["()", "(0,)", "(2, 1)"])
def test_odeint_refuses_times_of_a_wrong_shape(ts):
    with pytest.raises(ValueError, match="ts must have shape"):
        nj.odeint(decay, 1.0, ts, 1.0)


def test_a_gradient_without_a_limit_of_steps_raises_and_names_the_remedy():
    with pytest.raises(ValueError, match=r"max_steps=None.*max_steps=4096"):
        jax.grad(lambda z0: nj.odesolve(decay, z0, 0.0, 1.0, 1.0, max_steps=None).z1)(1.0)


def test_evaluate_without_dense_output_raises_and_names_the_remedy():
    with pytest.raises(ValueError, match="Dense"):
        nj.odesolve(decay, 1.0, 0.0, 1.0, 1.0).evaluate(0.5)
