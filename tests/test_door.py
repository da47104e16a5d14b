"""What a newcomer types: lists where arrays go, names of other packages, and arguments that are wrong."""

import dataclasses
import inspect
import re
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import node_jax as nj
from node_jax import hints
from node_jax.testing import decay

TIMES = [[0, 1, 2], (0.0, 1, 2.0), np.arange(3), jnp.arange(3), [jnp.array(0.0), 1.0, np.float32(2)]]


@pytest.mark.parametrize("ts", TIMES, ids=lambda ts: f"{type(ts).__name__} of {type(ts[1]).__name__}")
def test_times_may_be_any_array_like(ts):
    want = np.exp(-np.arange(3.0))
    for zs in (
        nj.odesolve(decay, 1.0, 0, 2, 1.0, save=nj.SaveAt(ts)).zs,
        nj.odeint(decay, 1.0, ts, 1.0),
        nj.NeuralODE(decay, theta=1.0).trajectory(1.0, ts),
    ):
        np.testing.assert_allclose(zs, want, rtol=1e-5)
    assert nj.odesolve(decay, 1.0, 0, 2, 1.0, steps=nj.Grid(ts)).stats.accepted == 2
    assert nj.odesolve(decay, 1.0, 0, 2, 1.0, steps=nj.Adaptive(breakpoints=ts)).ok


def test_a_list_keeps_all_digits():
    times = [1.7e9, 1.7e9 + 1e-6]
    assert nj.SaveAt(times).ts.tolist() == times


def test_one_breakpoint_and_tolerances_in_a_list_are_taken():
    steps = nj.Adaptive([1e-4, 1e-5], [1e-7, 1e-8], breakpoints=0.5)
    assert nj.odesolve(decay, jnp.ones(2), 0.0, 1.0, 1.0, steps=steps).ok


def test_a_state_in_a_list_stays_a_list():
    z1 = nj.odesolve(lambda z, t, theta: [-z[0], z[1]], [1.0, np.zeros(2)], 0.0, 1.0).z1
    assert isinstance(z1, list)
    assert jnp.shape(z1[1]) == (2,)


@pytest.mark.parametrize("make", [nj.SaveAt, nj.Grid, lambda ts: nj.Adaptive(breakpoints=ts)])
@pytest.mark.parametrize("ts", [["a", "b"], "now", [True, False], [0.0, 1j], [0.0, [1.0]], [0.0, None]])
def test_times_that_are_no_real_numbers_are_refused_with_their_value(make, ts):
    with pytest.raises((TypeError, ValueError), match=r"(ts|breakpoints) must be .*real numbers"):
        make(ts)


def test_records_of_times_can_still_hold_places_of_mapped_axes():
    def end(steps):
        return nj.odesolve(decay, 1.0, 0.0, 1.0, 1.0, steps=steps).z1

    axes = nj.Adaptive(None, None, None, None, None, 0)
    assert jax.vmap(end, (axes,))(nj.Adaptive(breakpoints=jnp.array([[0.2], [0.4]]))).shape == (2,)


@pytest.mark.parametrize("keyword", hints.KEYWORDS)
def test_a_keyword_of_another_package_is_refused_with_what_to_use(keyword):
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{keyword}': (use|there are)"):
        nj.odesolve(decay, 1.0, 0.0, 1.0, 1.0, **{keyword: 1})


def test_a_keyword_that_is_nearly_right_is_refused_with_the_right_one():
    with pytest.raises(TypeError, match="'maxsteps': use max_steps"):
        nj.odeint(decay, 1.0, [0.0, 1.0], 1.0, maxsteps=3)
    with pytest.raises(TypeError, match="'mxstep': use max_steps"):
        nj.odeint(decay, 1.0, [0.0, 1.0], 1.0, mxstep=3)
    with pytest.raises(TypeError, match=r"keyword argument 'colour'$"):
        nj.NeuralODE(decay).solve(1.0, colour="blue")


def test_signatures_show_what_there_is():
    assert list(inspect.signature(nj.odesolve).parameters)[:6] == ["f", "z0", "t0", "t1", "theta", "method"]
    assert not [x for x in inspect.signature(nj.odesolve).parameters.values() if x.kind == x.VAR_KEYWORD]


@pytest.mark.parametrize("name", hints.NAMES)
def test_a_name_of_another_package_is_refused_with_what_to_use(name):
    with pytest.raises(AttributeError, match=f"node_jax has no attribute '{name}': (use|there are)"):
        getattr(nj, name)


def test_a_hint_names_only_what_there_is():
    texts = [*hints.NAMES.values(), *hints.KEYWORDS.values(), *hints.ATTRIBUTES.values()]
    names = {part.partition("(")[0].strip(",.") for text in texts for part in text.replace("=", " ").split()}
    for name in sorted(name.removeprefix("nj.") for name in names if name.startswith("nj.")):
        assert hasattr(nj, name)


def test_a_solution_says_what_its_parts_are_called():
    sol = nj.odesolve(decay, 1.0, 0.0, 1.0, 1.0)
    for name in hints.ATTRIBUTES:
        with pytest.raises(AttributeError, match=f"Solution has no attribute '{name}': use "):
            getattr(sol, name)
    for name in hints.COUNTS:
        for read in (getattr, lambda stats, name: stats[name]):
            with pytest.raises(AttributeError, match=f"stats has no attribute '{name}': use "):
                read(sol.stats, name)
    assert sol.stats[0] is sol.stats.nfe


def test_a_method_given_by_name_is_refused_with_its_record():
    for name, record in (("RK45", "nj.dopri5"), ("tsit5", "nj.tsit5"), ("LSODA", "there are no implicit methods yet")):
        with pytest.raises(TypeError, match=f"got '{name}'.*{record}"):
            inspect.unwrap(nj.odesolve)(decay, 1.0, 0.0, 1.0, 1.0, method=name)


def test_the_directory_lists_public_names_only():
    assert dir(nj) == sorted([*nj.__all__, "__version__"])


@pytest.mark.parametrize("throw", ["str", None, 1])
def test_throw_is_true_or_false(throw):
    with pytest.raises(TypeError, match=f"throw must be True or False, got {throw!r}"):
        inspect.unwrap(nj.odesolve)(decay, 1.0, 0.0, 1.0, 1.0, throw=throw)


@pytest.mark.parametrize(
    "leaf", ["linear", object(), np.array(["a"]), np.array([None])], ids=["str", "object", "U", "O"]
)
def test_theta_refuses_what_is_no_array_number_or_function_by_its_path(leaf):
    with pytest.raises(TypeError, match=r"theta\['shape'\]\[1\] must be an array, a number or a function, got"):
        nj.odesolve(decay, 1.0, 0.0, 1.0, {"shape": [1.0, leaf]})


def test_numbers_in_theta_are_traced_and_functions_are_called():
    def field(z, t, theta):
        assert all(isinstance(x, jax.core.Tracer) for x in (theta["on"], theta["n"], theta["rate"]))
        return jnp.where(theta["on"], -theta["rate"] * theta["act"](z) * theta["n"], 0.0)

    theta = {"on": True, "n": 2, "rate": 0.5, "act": jnp.positive}
    np.testing.assert_allclose(nj.odesolve(field, 1.0, 0.0, 1.0, theta).z1, np.exp(-1.0), rtol=1e-5)
    np.testing.assert_allclose(nj.odesolve(field, 1.0, 0.0, 1.0, {**theta, "on": False}).z1, 1.0)


def outer(z, t, A):
    return A @ z[:, None] * z[None]


def twice(z, t, theta):
    return jnp.stack([z, z])


def row(z, t, theta):
    return z[None] * t


def unnamed(a, b, theta):
    return jnp.stack([a, a])


@pytest.mark.parametrize("f", [outer, twice, row, unnamed])
def test_a_slope_of_another_shape_is_not_taken_for_swapped_arguments(f):
    with pytest.raises(TypeError, match="must return a pytree like z0") as caught:
        nj.odesolve(f, jnp.ones(2), 0.0, 1.0, jnp.eye(2))
    assert "swapped" not in str(caught.value)


def flow(ode):
    return nj.nn.CNF(ode, 2).log_prob(jnp.ones(2))


def regularized(ode):
    return dataclasses.replace(ode, regularizers=(nj.nn.JacobianFrobenius(),)).solve(jnp.ones(2), key=jax.random.key(0))


def with_tangent(ode):
    return nj.odesolve(nj.with_tangent(ode.field), (jnp.ones(2), jnp.ones(2)), 0.0, 1.0)


def both(z, t, theta):
    return z, z


@pytest.mark.parametrize("solve", [flow, regularized, with_tangent])
def test_a_wrong_field_of_a_larger_system_is_described_by_itself(solve):
    with pytest.raises(TypeError, match=r"^f\(z, t, theta\) must return .* z0 = \(\(2,\), 'float64'\), got \(\(\(2,\)"):
        solve(nj.NeuralODE(both))
    with pytest.raises(TypeError, match=r"^f failed as .* write it with a third, f\(z, t, theta\)"):
        solve(nj.NeuralODE(lambda z, t: -z))


def test_a_field_of_two_arguments_is_told_about_the_third():
    with pytest.raises(TypeError, match=r"with a third, f\(z, t, theta\)"):
        nj.odesolve(lambda z, t: -z, jnp.ones(2), 0.0, 1.0)
    with pytest.raises(TypeError, match="from_torchdiffeq"):
        nj.odesolve(lambda t, z: -z, jnp.ones(2), 0.0, 1.0)


def stretched(z, t, rate):
    return -rate * z


def test_a_field_of_the_state_alone_is_told_how_to_be_called():
    network = eqx.nn.MLP(2, 2, 8, 1, key=jax.random.key(0))
    with pytest.raises(TypeError, match=r"takes the state alone: call it in a function f\(z, t, theta\)"):
        nj.NeuralODE(network)(jnp.ones(2))


def rated(z, t, theta=None):
    return -z if theta is None else -theta["rate"] * z


def lone(z, t=0.0, theta=None):
    return rated(z, t, theta)


@pytest.mark.parametrize("f", [rated, lone])
def test_a_field_that_takes_three_arguments_is_not_told_of_fewer(f):
    with pytest.raises(KeyError, match="rate"):
        nj.odesolve(f, jnp.ones(2), 0.0, 1.0, {"speed": 1.0})


def test_a_field_that_needs_theta_is_told_when_it_was_not_given():
    with pytest.raises(TypeError) as caught:
        nj.odesolve(stretched, jnp.ones(2), 0.0, 1.0)
    assert "theta was not given: f was called as f(z, t, None)." in caught.value.__notes__


def test_odeint_warns_of_a_field_whose_first_argument_is_a_time():
    with pytest.warns(UserWarning, match=r"called as f\(z, t, \*args\).*from_torchdiffeq"):
        nj.odeint(lambda t, y: -y, 1.0, [0.0, 1.0])


def test_wrapped_fields_go_where_no_theta_is_given():
    for field in (nj.from_torchdiffeq(lambda t, y: -y), nj.from_diffrax(lambda t, y, args: -y)):
        np.testing.assert_allclose(nj.odeint(field, 1.0, [0.0, 1.0])[-1], np.exp(-1.0), rtol=1e-5)


def test_names_of_implicit_methods_and_breakpoints_are_answered():
    for name in ("kvaerno5", "KenCarp4", "BDF"):
        with pytest.raises(AttributeError, match="there are no implicit methods yet"):
            getattr(nj, name)
    with pytest.raises(TypeError, match=r"use steps=nj.Adaptive\(breakpoints=...\)"):
        nj.odesolve(decay, 1.0, 0.0, 1.0, 1.0, breakpoints=[0.5])


def test_a_blow_up_is_told_how_breakpoints_are_given():
    with pytest.raises(nj.SolveError, match=r"a jump: nj.Adaptive\(breakpoints=...\)"):
        nj.odesolve(lambda z, t, theta: z**2, 1.0, 0.0, 2.0)


def test_too_many_steps_and_implicit_methods_lead_to_the_page_on_stiff_problems():
    with pytest.raises(nj.SolveError, match=r"Raise max_steps or loosen the tolerance.*see docs/stiff.md"):
        nj.odesolve(decay, 1.0, 0.0, 9.0, 1.0, max_steps=3)
    with pytest.raises(AttributeError, match=r"no implicit methods yet \(docs/stiff.md"):
        _ = nj.kvaerno5


def test_memory_is_estimated_of_one_strategy_too():
    assert nj.estimate_memory(decay, 1.0, 0.0, 1.0, 1.0, adjoints=nj.Backsolve())["Backsolve()"].law == 0


def test_a_report_of_prescribed_steps_advises_more_steps():
    report = nj.check_gradient(decay, 1.0, 0.0, 6.0, 1.0, method=nj.rk4, steps=nj.Fixed(4))
    assert not report.ok
    assert "More steps are needed, or another method." in str(report)
    assert re.search(r"its relative error is \S+, give or take \S+; up to 1e-02 is accepted\.", str(report))


def test_swapped_arguments_that_fit_by_chance_are_warned_of():
    with pytest.warns(UserWarning, match=r"name of a time.*from_diffrax") as caught:
        nj.odesolve(lambda t, y, args: -y, 1.0, 0.0, 1.0)
    assert caught[0].filename == __file__


def test_a_relative_tolerance_below_the_dtype_is_said_at_the_line_that_asks_for_it():
    z0 = jnp.ones(2, jnp.float32)
    with pytest.warns(UserWarning, match=r"rtol=1e-09 is below .* float32: 4.77e-07 is used") as caught:
        nj.odesolve(decay, z0, 0.0, 1.0, jnp.float32(1.0), steps=nj.Adaptive(1e-9))
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rtol in (0.0, jnp.array(1e-9), 1e-6):
            nj.odesolve(decay, z0, 0.0, 1.0, jnp.float32(1.0), steps=nj.Adaptive(rtol))


def test_a_model_shows_its_times_its_method_and_its_steps():
    model = nj.NeuralODE(nj.nn.MLPField(2, 8, 1, key=jax.random.key(0)), t1=2.0, steps=nj.Fixed(40))
    for text in ("field=MLPField(", "t0=0.0", "t1=2.0", "method=tsit5", "steps=Fixed(n=40)"):
        assert text in repr(model)
    assert eqx.tree_equal(model, jax.tree.map(lambda x: x, model))


def test_other_values_and_tolerances_do_not_compile_again():
    traced = []

    def field(z, t, rate):
        traced.append(t)
        return -rate * z

    def solve(z0, t1, rate, rtol):
        return nj.odesolve(field, z0, 0.0, t1, rate, steps=nj.Adaptive(rtol)).z1

    solve(1.0, 1.0, 2.0, 1e-6)
    once = len(traced)
    np.testing.assert_allclose(solve(3.0, 0.5, 4.0, 1e-8), 3 * np.exp(-2.0), rtol=1e-6)
    assert len(traced) == once


def test_another_limit_does_not_compile_again_and_holds():
    traced = []

    def field(z, t, rate):
        traced.append(t)
        return -rate * z

    def solve(max_steps):
        return nj.odesolve(field, 1.0, 0.0, 10.0, 1.0, max_steps=max_steps, throw=False)

    assert solve(4096).ok
    once = len(traced)
    assert solve(9).status == nj.Status.MAX_STEPS
    assert solve(9).stats.accepted + solve(9).stats.rejected == 9
    assert solve(100_000).ok
    assert len(traced) == once


def test_a_limit_bounds_the_history_of_a_field_that_closes_over_what_moves():
    def total(k):
        def field(z, t, _):
            return -k["rate"] * z

        ends = [nj.odesolve(field, 1.0, 0.0, 5.0, max_steps=n, throw=False) for n in (8, 4096)]
        return jnp.where(ends[0].ok, ends[0].z1, 0.0) + ends[1].z1

    np.testing.assert_allclose(jax.grad(total)({"rate": 1.0})["rate"], -5 * np.exp(-5.0), rtol=1e-4)
