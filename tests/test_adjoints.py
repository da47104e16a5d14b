"""Every strategy against plain differentiation, differences and each other; every mode; the certificate."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from replays import gap

import node_jax as nj

TIGHT = nj.Adaptive(rtol=1e-10, atol=1e-10)
REVERSE = [nj.Checkpointed(), nj.Direct(), nj.Backsolve(), nj.Interpolated(), nj.Reversible()]


def driven(z, t, theta):
    """Lotka and Volterra, with a season."""
    a, b, c, d = theta
    x, y = z
    return jnp.stack([a * x - b * x * y + jnp.sin(3.0 * t), -c * y + d * x * y])


def forced(z, t, theta):
    return jnp.stack([z[1], jnp.cos(theta * t) - jnp.sin(z[0])])


def turning(z, t, theta):
    return 1j * theta * jnp.conj(z)


def van_der_pol(z, t, mu):
    return jnp.stack([z[1], mu * (1 - z[0] ** 2) * z[1] - z[0]])


def network(z, t, theta):
    return jnp.tanh(theta @ z)


THETA = jnp.array([1.5, 1.0, 3.0, 1.0])
START = jnp.array([1.0, 0.8])
AT = (jnp.array(0.1), jnp.array(2.0), jnp.array([0.5, 1.0, 1.7]), START, THETA)
FLAT, UNRAVEL = ravel_pytree(AT)


SHORT, UNRAVEL_SHORT = ravel_pytree((*AT[:2], AT[3], jnp.array(1.5)))


def short(flat, adjoint):
    """A loss on the end only."""
    t0, t1, z0, theta = UNRAVEL_SHORT(flat)
    options = {"steps": nj.Adaptive(1e-8, 1e-8), "max_steps": 1024, "method": nj.bosh3}
    z1 = nj.odesolve(forced, z0, t0, t1, theta, adjoint=adjoint, **options).z1
    return jnp.sum(jnp.sin(z1))


def loss(flat, adjoint, steps=TIGHT, method=nj.tsit5):
    t0, t1, ts, z0, theta = UNRAVEL(flat)
    options = {"adjoint": adjoint, "steps": steps, "method": method, "max_steps": 400}
    sol = nj.odesolve(driven, z0, t0, t1, theta, save=nj.SaveAt(ts), **options)
    return jnp.sum(sol.zs**2) + jnp.sum(jnp.sin(sol.z1))


def differences(f, at, h=5e-4):
    """Central differences of 4th order."""
    rows = []
    for e in np.eye(at.size):
        near, far = (f(at + k * h * e) - f(at - k * h * e) for k in (1, 2))
        rows.append((8 * near - far) / (12 * h))
    return jnp.stack(rows)


@pytest.fixture(scope="module")
def slope():
    return differences(jax.jit(lambda x: loss(x, nj.Checkpointed())), FLAT)


@pytest.fixture(scope="module")
def hessian():
    return differences(jax.jit(jax.grad(lambda x: short(x, nj.Checkpointed()))), SHORT)


@pytest.mark.parametrize("adjoint", REVERSE, ids=repr)
def test_gradient_in_times_state_and_parameters_agrees_with_differences(adjoint, slope):
    assert gap(jax.jit(jax.grad(loss), static_argnums=1)(FLAT, adjoint), slope) < 5e-8


@pytest.mark.parametrize("adjoint", [nj.Checkpointed(), nj.Forward(), nj.Direct()], ids=repr)
def test_forward_mode_in_times_state_and_parameters_agrees_with_differences(adjoint, slope):
    assert gap(jax.jit(jax.jacfwd(loss), static_argnums=1)(FLAT, adjoint), slope) < 5e-8


@pytest.mark.parametrize("adjoint", [nj.Checkpointed(), nj.Forward(), nj.Direct()], ids=repr)
def test_times_of_fixed_steps_move_with_the_ends(adjoint):
    def weighted(ends):
        options = {"steps": nj.Fixed(4), "method": nj.heun, "save": nj.SaveSteps(4), "adjoint": adjoint}
        sol = nj.odesolve(forced, START, *ends, 1.5, **options)
        return jnp.sum(sol.ts * sol.zs[:, 0])

    at = jnp.array([0.2, 1.3])
    modes = [jax.jacfwd] if isinstance(adjoint, nj.Forward) else [jax.jacfwd, jax.jacrev]
    assert all(gap(mode(weighted)(at), differences(weighted, at)) < 1e-9 for mode in modes)


SECOND = {
    "reverse over reverse": lambda f: jax.jacrev(jax.grad(f)),
    "forward over reverse": lambda f: jax.jacfwd(jax.grad(f)),
    "reverse over forward": lambda f: jax.jacrev(jax.jacfwd(f)),
    "forward over forward": lambda f: jax.jacfwd(jax.jacfwd(f)),
}
SUPPORTED = {
    "Checkpointed": {"reverse", "forward", "forward over reverse", "forward over forward"},
    "Direct": {"reverse", "forward", *SECOND},
    "Forward": {"forward", "forward over forward"},
    "Backsolve": {"reverse"},
    "Interpolated": {"reverse"},
    "Reversible": {"reverse"},
}


@pytest.mark.parametrize("mode", SECOND)
@pytest.mark.parametrize("name", SUPPORTED)
def test_second_derivatives_are_right_or_refused_by_name(name, mode, hessian):
    second = jax.jit(SECOND[mode](lambda x: short(x, getattr(nj, name)())))
    if mode in SUPPORTED[name]:
        found = second(SHORT)
        assert gap(found, hessian) < 1e-5
        assert gap(found, found.T) < 1e-12
    else:
        with pytest.raises(NotImplementedError, match=r"does not support .*: use adjoint=(Direct|Checkpointed)"):
            second(SHORT)


@pytest.mark.parametrize("name", ["Forward", "Backsolve", "Interpolated", "Reversible"])
def test_a_mode_that_is_missing_is_refused_by_name(name):
    mode = jax.grad if name == "Forward" else jax.jacfwd
    with pytest.raises(NotImplementedError, match=r"use adjoint=Checkpointed\(\)"):
        mode(lambda x: loss(x, getattr(nj, name)()))(FLAT)


@pytest.mark.parametrize(
    ("adjoint", "steps"),
    [(nj.Checkpointed(checkpoints=8), nj.Adaptive(1e-5, 1e-5)), (nj.Checkpointed(), nj.Fixed(30))],
    ids=["Adaptive", "Fixed"],
)
def test_exact_strategies_equal_plain_differentiation(adjoint, steps):
    found = jax.grad(loss)(FLAT, adjoint, steps, nj.bosh3)
    assert gap(found, jax.grad(loss)(FLAT, nj.Direct(), steps, nj.bosh3)) < 1e-12


@pytest.mark.parametrize("adjoint", REVERSE, ids=repr)
def test_lanes_with_shared_and_own_parameters_equal_one_by_one(adjoint):
    starts = jnp.stack([START, 1.3 * START, 0.7 * START])

    def one(z0, theta, shared):
        options = {"adjoint": adjoint, "method": nj.bosh3, "max_steps": 400}
        return jnp.sum(nj.odesolve(driven, z0, 0.0, 1.5, theta * shared, **options).z1 ** 3)

    own = jnp.stack([THETA, 1.1 * THETA, 0.9 * THETA])
    batch = jax.grad(lambda *args: jnp.sum(jax.vmap(one, (0, 0, None))(*args)), (0, 1, 2))(starts, own, 1.0)
    each = [jax.grad(one, (0, 1, 2))(z0, theta, 1.0) for z0, theta in zip(starts, own, strict=True)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *each)
    assert gap(batch, (*stacked[:2], jnp.sum(stacked[2]))) < 1e-9
    mapped = jax.vmap(jax.grad(one, (0, 1, 2)), (0, 0, None))(starts, own, 1.0)
    assert gap(mapped, stacked) < 1e-9


@pytest.mark.parametrize("adjoint", [*REVERSE, nj.Forward()], ids=repr)
def test_failed_lanes_that_are_masked_add_nothing_and_others_are_nan(adjoint):
    starts = jnp.array([0.5, jnp.nan, 1.0])

    def total(theta, masked):
        sol = jax.vmap(lambda z0: nj.odesolve(nj.testing.decay, z0, 0.0, 1.0, theta, adjoint=adjoint, max_steps=64))(
            starts
        )
        return jnp.sum(jnp.where(sol.ok | (not masked), sol.z1, 0.0))

    derivative = jax.jacfwd if isinstance(adjoint, nj.Forward) else jax.grad
    assert abs(derivative(total)(0.5, True) + 1.5 * np.exp(-0.5)) < 1e-5
    assert np.isnan(derivative(total)(0.5, False))


@pytest.mark.parametrize("adjoint", REVERSE, ids=repr)
def test_gradient_of_complex_states_agrees_with_the_exact_solution(adjoint):
    # z' = i theta conj(z): with z = x + i y, x' = theta y, y' = theta x
    def found(theta, t1):
        z1 = nj.odesolve(turning, 1.0 + 0.5j, 0.0, t1, theta, adjoint=adjoint, steps=TIGHT, max_steps=400).z1
        return z1.real + 2 * z1.imag

    def exact(theta, t1):
        s, c = jnp.sinh(theta * t1), jnp.cosh(theta * t1)
        return (c + 0.5 * s) + 2 * (0.5 * c + s)

    assert gap(jax.grad(found, (0, 1))(0.7, 1.3), jax.grad(exact, (0, 1))(0.7, 1.3)) < 1e-8


def test_backsolve_error_falls_with_the_tolerance():
    want = jax.grad(loss)(FLAT, nj.Checkpointed())
    gaps = [gap(jax.grad(loss)(FLAT, nj.Backsolve(), nj.Adaptive(tol, tol)), want) for tol in (1e-5, 1e-7, 1e-9)]
    assert gaps[0] < 1e-3
    assert all(tight < loose / 10 for loose, tight in itertools.pairwise(gaps))


def test_backsolve_restarts_from_what_was_saved():
    # the way back of a contraction explodes over 20 units of time, and does not over one
    ts = jnp.linspace(0.0, 20.0, 21)

    def ends(theta, save):
        sol = nj.odesolve(van_der_pol, START, 0.0, 20.0, theta, adjoint=nj.Backsolve(), steps=TIGHT, save=save)
        return sol.z1[0] if sol.zs is None else sol.zs[-1, 0]

    want = jax.grad(lambda mu: nj.odesolve(van_der_pol, START, 0.0, 20.0, mu, steps=TIGHT).z1[0])(2.0)
    assert abs(jax.grad(ends)(2.0, nj.SaveAt(ts)) - want) < 1e-4 * abs(want)
    assert not abs(jax.grad(ends)(2.0, nj.SaveEnd()) - want) < 1e-2 * abs(want)


def test_memory_of_backsolve_does_not_grow_with_the_bound_on_steps():
    def gradient(limit):
        def end(theta):
            return jnp.sum(
                nj.odesolve(driven, START, 0.0, 1.0, theta, adjoint=nj.Backsolve(), method=nj.bosh3, max_steps=limit).z1
            )

        return jax.jit(jax.grad(end)).lower(THETA).compile().memory_analysis().temp_size_in_bytes

    assert gradient(100_000) <= 1.05 * gradient(100)


@pytest.mark.parametrize("adjoint", REVERSE, ids=repr)
def test_shared_parameters_are_never_repeated_for_each_lane(adjoint):
    lanes, size = 64, 48
    starts = jnp.ones((lanes, size), jnp.float32)

    def total(theta):
        solve = jax.vmap(
            lambda z0: nj.odesolve(network, z0, 0.0, 1.0, theta, adjoint=adjoint, method=nj.bosh3, max_steps=16).z1
        )
        return jnp.sum(solve(starts))

    text = jax.jit(jax.grad(total)).lower(jnp.eye(size, dtype=jnp.float32)).as_text()
    assert f"{lanes}x{size}x{size}" not in text
    assert f"{size}x{size}x{lanes}" not in text


@pytest.mark.parametrize("adjoint", REVERSE, ids=repr)
def test_every_strategy_lowers_for_every_platform_without_callbacks(adjoint, float32):
    def total(z0, theta):
        solve = jax.vmap(lambda z0: nj.odesolve(driven, z0, 0.0, 1.0, theta, adjoint=adjoint, method=nj.bosh3).z1)
        return jnp.sum(solve(z0))

    args = (jnp.ones((3, 2), jnp.float32), jnp.ones(4, jnp.float32))
    text = jax.export.export(jax.jit(jax.grad(total, (0, 1))), platforms=("cpu", "cuda", "tpu"))(*args).mlir_module()
    assert not re.findall(r"\bf64\b|xf64\b", text)
    assert not re.findall(r"custom_call @?\w+|stablehlo\.(?:infeed|outfeed|send|recv)\b", text)


def test_backsolve_takes_only_steps_of_numbers():
    with pytest.raises(TypeError, match=r"Backsolve\(steps=\.\.\.\) must be an Adaptive of Python numbers"):
        nj.Backsolve(steps=nj.Adaptive(rtol="1e-3"))


# The limit of stability.


@pytest.mark.parametrize("method", [nj.tsit5, nj.dopri5, nj.dopri8], ids=repr)
def test_steps_at_the_limit_of_stability_are_counted_and_avoided(method):
    def end(mu, **options):
        steps = nj.Adaptive(1e-6, 1e-6, **options)
        return nj.odesolve(van_der_pol, jnp.array([2.0, 0.0]), 0.0, 10.0, mu, method=method, steps=steps).z1[0]

    truth = 0.02733902092
    assert abs(jax.grad(end)(19.5) - truth) < 1e-4 * truth
    stiff = nj.odesolve(van_der_pol, jnp.array([2.0, 0.0]), 0.0, 10.0, 19.5, method=method).stats
    mild = nj.odesolve(van_der_pol, jnp.array([2.0, 0.0]), 0.0, 10.0, 1.0, method=method).stats
    assert stiff.limited > 0.1 * stiff.accepted
    assert mild.limited == 0
    if method is not nj.dopri8:
        assert abs(jax.grad(lambda mu: end(mu, stay_stable=False))(19.5) - truth) > truth


def test_a_method_that_cannot_tell_counts_minus_one():
    assert nj.odesolve(nj.testing.decay, 1.0, 0.0, 1.0, 1.0, method=nj.bosh3).stats.limited == -1


def test_the_real_interval_of_stability_is_that_of_the_literature():
    # Hairer and Wanner, Solving ODEs II, IV.2: 3.3 for dopri5, 6.4 for the 8th-order method; 2.78 for rk4
    limits = {nj.dopri5: 3.31, nj.dopri8: 6.39, nj.rk4: 2.78, nj.euler: 2.0}
    assert all(abs(method.stability_limit - limit) < 0.02 for method, limit in limits.items())


# The certificate.


def test_certificate_accepts_a_good_gradient():
    report = nj.check_gradient(nj.testing.decay, 1.0, 0.0, 1.0, 2.0)
    assert report.ok
    assert report.relative_error < 1e-4
    assert "can be trusted" in str(report)


def test_certificate_exposes_a_backsolve_gradient_that_is_wrong():
    steps = nj.Adaptive(1e-4, 1e-4)
    report = nj.check_gradient(van_der_pol, START, 0.0, 5.0, 2.0, adjoint=nj.Backsolve(), steps=steps)
    assert not report.ok
    assert report.relative_error > 0.1
    assert report.reconstruction_error > 1e-3
    assert report.needed_rtol < 1e-4
    assert "cannot be trusted" in str(report)


def test_certificate_exposes_the_limit_of_stability():
    steps = nj.Adaptive(1e-6, 1e-6, stay_stable=False)
    report = nj.check_gradient(van_der_pol, jnp.array([2.0, 0.0]), 0.0, 10.0, 19.5, steps=steps)
    assert not report.ok
    assert report.relative_error > 100
    assert report.uncertainty < 1e-4
    assert report.limited > 0.5
    assert "stiff" in str(report)


def test_memory_is_estimated_by_compiling():
    options = {"lanes": 16, "max_steps": 1024, "method": nj.bosh3}
    found = nj.estimate_memory(driven, START, 0.0, 1.0, THETA, adjoints=tuple(REVERSE), **options)
    assert found["Checkpointed()"].law == 1024 * 16 * (2 + 1) * 8
    assert found["Backsolve()"].law == 0
    for estimate in found.values():
        assert estimate.law <= estimate.compiled <= estimate.law + 200_000
