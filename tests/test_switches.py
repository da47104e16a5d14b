"""What JAX's own switches do to a solve: each finds what it looks for, and a healthy solve passes."""

import contextlib
import functools
import gc
import json
import os
import pathlib
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify, io_callback

import node_jax as nj
from node_jax.lanes import primitive as lanes


@contextlib.contextmanager
def checking_leaks():
    """Look for leaks among new objects only: the search through all that other tests left takes most of the time."""
    gc.collect()
    gc.freeze()
    try:
        with jax.checking_leaks():
            yield
    finally:
        gc.unfreeze()


SWITCHES = {
    "disable_jit": jax.disable_jit,
    "checking_leaks": checking_leaks,
    "debug_nans": lambda: jax.debug_nans(True),
    "debug_infs": lambda: jax.debug_infs(True),
    "strict": lambda: jax.numpy_dtype_promotion("strict"),
}
ADJOINTS = [nj.Checkpointed(), nj.Direct(), nj.Interpolated(), nj.Backsolve(), nj.Reversible()]


def doubled(z, t, rate):
    return 2.0 * z


ENDS = jnp.array([0.05, 0.1])
SAVES = [nj.SaveEnd(), nj.SaveAt(ENDS), nj.SaveSteps(4), nj.Dense(4), nj.SaveAt(ENDS, doubled)]
BODIES = {lanes.solve_p: lanes._run, lanes.tangent_p: lanes._call, lanes.backward_p: lanes._call}
RATE = jnp.array(0.5)
every_switch = pytest.mark.parametrize("switch", SWITCHES.values(), ids=SWITCHES)


def decay(z, t, rate):
    return -rate * z


def solved(rate, z0=None, **options):
    options = {"method": nj.bosh3, "steps": nj.Adaptive(1e-3, 1e-3), **options}
    return nj.odesolve(decay, jnp.ones(2) if z0 is None else z0, 0.0, 0.1, rate, **options)


def near(x, exact):
    assert jnp.allclose(x, exact, atol=1e-5), (x, exact)


@every_switch
@pytest.mark.parametrize("save", SAVES, ids=lambda save: type(save).__name__)
def test_each_save_passes_under_each_switch(switch, save):
    with switch():
        sol = solved(RATE, save=save)
        near(sol.z1, jnp.exp(-0.05))
        if sol.interpolant is not None:
            near(sol.evaluate(ENDS[:1]), jnp.exp(-0.025))


@every_switch
@pytest.mark.parametrize("adjoint", ADJOINTS, ids=lambda adjoint: type(adjoint).__name__)
def test_the_gradient_of_each_adjoint_passes_under_each_switch(switch, adjoint):
    prescribed = isinstance(adjoint, nj.Direct | nj.Reversible)
    options = {"adjoint": adjoint, **({"steps": nj.Fixed(1)} if prescribed else {})}
    with switch():
        near(jax.grad(lambda rate: solved(rate, **options).z1[0])(RATE), -0.1 * jnp.exp(-0.05))


@every_switch
def test_forward_mode_passes_under_each_switch(switch):
    with switch():
        _, dot = jax.jvp(lambda rate: solved(rate, adjoint=nj.Forward()).z1[0], (RATE,), (jnp.ones_like(RATE),))
        near(dot, -0.1 * jnp.exp(-0.05))


@every_switch
def test_a_batch_and_its_gradients_pass_under_each_switch(switch):
    rates = jnp.array([0.5, 1.0])
    with switch():
        values, bars = jax.vmap(jax.value_and_grad(lambda rate: solved(rate).z1[0]))(rates)
    near(values, jnp.exp(-0.1 * rates))
    near(bars, -0.1 * jnp.exp(-0.1 * rates))


@every_switch
def test_rows_have_gradients_under_each_switch(switch):
    def loss(rate):
        dense = solved(rate, save=nj.Dense(4)).evaluate(jnp.array(0.05))[0]
        return dense + solved(rate, save=SAVES[1]).zs[1, 0] + solved(rate, save=nj.SaveSteps(4)).zs[0, 0]

    with switch():
        assert jnp.isfinite(jax.grad(loss)(RATE))


def test_a_batch_of_each_save_passes_where_unused_rows_are_watched():
    rates = jnp.array([0.5, 1.0])
    with jax.debug_nans(True):
        for save in SAVES:
            near(jax.vmap(lambda rate, save=save: solved(rate, save=save).z1[0])(rates), jnp.exp(-0.1 * rates))
            sol = jax.vmap(lambda rate, save=save: solved(rate, save=save))(rates)
            near(sol.z1[:, 0], jnp.exp(-0.1 * rates))
            if sol.interpolant is not None:
                near(sol.evaluate(jnp.array(0.05))[:, 0], jnp.exp(-0.05 * rates))
                outside = sol.evaluate(jnp.array(5.0))
    assert jnp.isnan(outside).all()


@pytest.mark.parametrize("switch", ["debug_nans", "debug_infs"])
def test_a_lane_without_a_nan_of_its_own_fails_as_it_does_elsewhere(switch):
    with SWITCHES[switch]():
        sol = jax.vmap(lambda rate: solved(rate, max_steps=4))(jnp.array([0.5, 5e3]))
        ends = sol.filled().z1
    assert sol.status.tolist() == [nj.Status.SUCCESS, nj.Status.MAX_STEPS]
    near(ends[0], jnp.exp(-0.05))
    assert ends[1].tolist() == [0.0, 0.0]


@every_switch
def test_rows_are_observed_under_each_switch(switch):
    with switch():
        near(
            solved(RATE, save=nj.SaveAt(jnp.array([0.05, 0.1]), fn=lambda z, t, rate: 2.0 * z[0])).zs[1],
            2 * jnp.exp(-0.05),
        )


def test_a_field_that_closes_over_a_value_of_vmap_leaks_nothing():
    def slope(scale):
        return jax.grad(lambda rate: ended(lambda z, t, rate: -rate * scale * z, rate))(RATE)

    with jax.checking_leaks():
        near(jax.vmap(slope)(jnp.array([1.0, 2.0])), jnp.array([-0.1, -0.2]) * jnp.exp(jnp.array([-0.05, -0.1])))


def lost(z, t, rate):
    return -rate * jnp.where(t > 0.05, jnp.log(-z), z)


def ended(f, rate, **options):
    return nj.odesolve(f, jnp.ones(2), 0.0, 0.1, rate, throw=False, **options).z1[0]


@pytest.mark.parametrize("switch", ["debug_nans", "debug_infs"])
def test_a_nan_of_the_field_is_found_where_values_are_watched(switch):
    many = jax.vmap(lambda rate: ended(lost, rate))
    with SWITCHES[switch]():
        with pytest.raises(FloatingPointError, match="NON_FINITE at t = "):
            ended(lost, RATE)
        with pytest.raises(FloatingPointError, match="NON_FINITE"):
            many(jnp.ones(2))
        with pytest.raises(FloatingPointError, match="NON_FINITE"):
            jax.grad(lambda rate: ended(lost, rate))(RATE)


def found(fn, errors=checkify.nan_checks):
    return checkify.checkify(fn, errors=errors)(RATE)[0].get() or ""


def test_checkify_finds_a_failed_solve_and_passes_rows_that_no_step_wrote():
    assert "odesolve" in found(lambda rate: ended(lost, rate))
    assert "odesolve" in found(jax.grad(lambda rate: ended(lost, rate)))
    assert "odesolve" in found(lambda rate: ended(decay, rate, max_steps=1, steps=nj.Adaptive(1e-9, 1e-9)))
    assert found(lambda rate: ended(decay, rate, save=nj.SaveSteps(8))) == ""
    assert found(jax.grad(lambda rate: ended(decay, rate))) == ""


def divides(z, t, rate):
    return -rate * z / (1.0 + t)


def looks_up(z, t, rate):
    return -rate * z * jnp.array([1.0, 2.0])[t.astype(int)]


@pytest.mark.parametrize(
    ("f", "errors", "name"),
    [(divides, checkify.float_checks, "div_checks"), (looks_up, checkify.index_checks, "index_checks")],
)
def test_checks_that_cannot_look_into_a_solve_are_refused_where_they_would_see_something(f, errors, name):
    with pytest.raises(NotImplementedError, match=name):
        found(lambda rate: ended(f, rate), errors)
    assert found(lambda rate: ended(decay, rate), errors) == ""


def printing(z, t, rate):
    jax.debug.print("{z}", z=z, ordered=True)
    return -rate * z


def calling_back(z, t, rate):
    io_callback(print, None, z, ordered=True)
    return -rate * z


def checking(z, t, rate):
    checkify.check(jnp.all(z > 0), "negative")
    return -rate * z


@pytest.mark.parametrize(
    ("f", "remedy"), [(printing, "ordered=False"), (calling_back, "ordered=False"), (checking, "sol.status")]
)
def test_an_effect_that_no_solve_can_have_is_refused_with_its_remedy(f, remedy):
    with pytest.raises(NotImplementedError, match=remedy):
        ended(f, RATE)


def test_an_ordered_effect_of_the_derivative_alone_is_refused():
    with pytest.raises(NotImplementedError, match="OrderedDebugEffect"):
        jax.grad(lambda rate: ended(lambda z, t, rate: -rate * eqx.debug.backward_nan(z), rate))(RATE)


def test_a_field_may_print_without_order():
    seen = []

    def watched(z, t, rate):
        jax.debug.callback(lambda t: seen.append(float(t)), t)
        return -rate * z

    jax.vmap(jax.grad(lambda rate: ended(watched, rate)))(jnp.array([0.5, 1.0]))
    jax.effects_barrier()
    assert seen


def types_of(jaxpr):
    """Return the dtypes of all that is computed, in the bodies of the primitives of a solve too."""
    found = {str(x.aval.dtype) for eqn in jaxpr.eqns for x in eqn.outvars}
    for eqn in jaxpr.eqns:
        body = BODIES.get(eqn.primitive)
        if body is not None:
            shapes = [jax.ShapeDtypeStruct(x.aval.shape, x.aval.dtype) for x in eqn.invars]
            found |= types_of(jax.make_jaxpr(functools.partial(body, **eqn.params))(*shapes).jaxpr)
        for part in jax.tree.leaves(list(eqn.params.values())):
            inner = getattr(part, "jaxpr", part)
            found |= types_of(inner) if hasattr(inner, "eqns") else set()
    return found


@pytest.mark.parametrize("save", SAVES, ids=lambda save: type(save).__name__)
@pytest.mark.parametrize("adjoint", [None, *ADJOINTS], ids=lambda adjoint: type(adjoint).__name__)
def test_a_float32_solve_computes_nothing_in_64_bits(adjoint, save):
    if adjoint is not None and not isinstance(save, nj.SaveEnd | nj.SaveAt):
        pytest.skip("their rows are read as those of SaveAt")
    if isinstance(save, nj.SaveAt):
        save = nj.SaveAt(save.ts.astype(jnp.float32))
    options = {} if adjoint is None else {"adjoint": adjoint}
    steps = nj.Fixed(2) if isinstance(adjoint, nj.Reversible) else nj.Adaptive()
    z0, rate = jnp.ones(2, jnp.float32), jnp.ones((), jnp.float32)

    def loss(rate):
        sol = nj.odesolve(decay, z0, 0.0, 0.1, rate, save=save, steps=steps, **options)
        return jnp.sum(sol.z1) + (jnp.sum(sol.zs) if isinstance(save, nj.SaveAt) else 0.0)

    computed = types_of(jax.make_jaxpr(loss if adjoint is None else jax.grad(loss))(rate).jaxpr)
    assert {"float32"} == {kind for kind in computed if kind.startswith(("float", "complex"))}


@pytest.mark.parametrize("precision", ["default", "high", "highest", "bfloat16", "tensorfloat32", "float32"])
def test_a_precision_of_matrix_products_is_the_callers(precision):
    matrix = jnp.array([[0.0, 1.0], [-1.0, 0.0]])

    def end(matrix):
        return jnp.sum(
            nj.odesolve(lambda z, t, a: a @ z, jnp.array([1.0, 0.5]), 0.0, 1.0, matrix, steps=nj.Fixed(8)).z1
        )

    with jax.default_matmul_precision(precision):
        value, slope = jax.value_and_grad(end)(matrix)
    np.testing.assert_allclose(value, 1.5 * np.cos(1.0) - 0.5 * np.sin(1.0), rtol=1e-5)
    assert np.isfinite(slope).all()


def test_a_default_device_is_the_callers():
    device = jax.devices("cpu")[0]
    with jax.default_device(device):
        sol = nj.odesolve(nj.testing.decay, 1.0, 0.0, 1.0, 1.0)
        slope = jax.grad(lambda rate: nj.odesolve(nj.testing.decay, 1.0, 0.0, 1.0, rate).z1)(1.0)
    assert sol.z1.devices() == slope.devices() == {device}


def test_a_cache_on_disk_holds_all_that_a_solve_and_its_gradient_compile(tmp_path):
    here = pathlib.Path(__file__).parent
    program, paths = [sys.executable, str(here / "caching.py"), str(tmp_path)], {"PYTHONPATH": str(here.parent)}
    first, second = (
        json.loads(subprocess.run(program, env=os.environ | paths, stdout=subprocess.PIPE, check=True).stdout)
        for _ in range(2)
    )
    assert first["results"] == second["results"]
    assert "cache_misses" not in second
    assert first["cache_misses"] == second["cache_hits"] > 0
