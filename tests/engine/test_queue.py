"""Ensembles larger than the lane width: results, failures and gradients are those of lockstep."""

import math
import os
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exporting import check_export
from jax import export
from replays import gap

import node_jax as nj

N, WIDTH = 23, 6
MU = jnp.linspace(0.1, 1.5, N)
STATES = jnp.stack([jnp.linspace(1.0, 2.0, N), jnp.zeros(N)], axis=1)
TIMES = jnp.linspace(0.0, 1.0, 4)
LOOSE = nj.Adaptive(1e-3, 1e-3)  # with bosh3: what compiles fast
SAVES = [nj.SaveEnd(), nj.SaveAt(TIMES), nj.SaveSteps(64), nj.Dense(64)]
ADJOINTS = [nj.Checkpointed(), nj.Backsolve(), nj.Interpolated(), nj.Reversible(), nj.Direct()]


def van_der_pol(z, t, mu):
    return jnp.stack([z[1], mu * (1 - z[0] ** 2) * z[1] - z[0]])


def ends(width, **options):
    def one(z0, mu):
        return nj.odesolve(van_der_pol, z0, 0.0, 2.0, mu, max_steps=64, lane_width=width, **options)

    return jax.jit(jax.vmap(one))


def same(a, b):
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: np.array_equal(x, y, equal_nan=True), a, b)))


@pytest.mark.parametrize("save", SAVES, ids=lambda save: type(save).__name__)
def test_results_are_those_of_lockstep_bit_for_bit(save):
    def but_idle(sol):
        return sol.z1, sol.zs, sol.status, sol.t_reached, sol.stats._replace(idle=()), sol.interpolant

    # the emitters that users have: others (see conftest.py) may round a lane by its place in the batch
    users = {"xla_cpu_use_fusion_emitters": True} if "fusion_emitters" in os.environ["XLA_FLAGS"] else None
    solves = (ends(width, save=save).lower(STATES, MU).compile(users) for width in (math.inf, WIDTH))
    want, got = (but_idle(solve(STATES, MU)) for solve in solves)
    assert same(want, got)


def total(width, adjoint, save):
    def loss(z0, mu, k):
        def one(z0, mu):
            theta = {"mu": mu, "k": k}
            options = {"adjoint": adjoint, "save": save, "max_steps": 64, "lane_width": width, "steps": LOOSE}
            return nj.odesolve(pulled, z0, 0.0, 1.0, theta, method=nj.bosh3, **options)

        sol = jax.vmap(one)(z0, mu)
        saved = jnp.where(jnp.isfinite(sol.zs), sol.zs, 0.0) if sol.zs is not None else 0.0
        return jnp.sum(sol.z1**2) + jnp.sum(saved**2)

    return jax.jit(jax.grad(loss, (0, 1, 2)))


def pulled(z, t, theta):
    return jnp.stack([z[1], theta["mu"] * (1 - z[0] ** 2) * z[1] - theta["k"] * z[0]])


@pytest.mark.parametrize("adjoint", ADJOINTS, ids=lambda adjoint: type(adjoint).__name__)
def test_gradient_is_that_of_lockstep(adjoint):
    inputs = (STATES, MU, jnp.array(1.1))
    assert gap(total(WIDTH, adjoint, SAVES[1])(*inputs), total(math.inf, adjoint, SAVES[1])(*inputs)) < 1e-12


@pytest.mark.parametrize("adjoint", [nj.Checkpointed(), nj.Reversible()])
def test_rows_of_steps_meet_their_own_cotangents(adjoint, float32):
    """In single precision another program rounds otherwise, and would choose other steps."""
    rates = jnp.asarray(np.random.default_rng(0).uniform(-2, 2, 40))

    def spin(z, t, rate):
        return (-0.3 + 1j * rate).astype(z.dtype) * z

    def loss(rate):
        options = {"steps": nj.Adaptive(2e-5, 2e-7), "save": nj.SaveSteps(64), "lane_width": 1, "adjoint": adjoint}
        sol = nj.odesolve(spin, jnp.ones((), jnp.complex64), 0.0, 2.0, rate, **options)
        return jnp.sum(jnp.where(jnp.arange(64) < sol.count, sol.zs.real, 0.0)), sol.ts

    def summed(rates):
        losses, ts = jax.vmap(loss)(rates)
        return jnp.sum(losses), ts

    of_sum, ts = jax.jit(jax.grad(summed, has_aux=True))(rates)
    of_each, _ = jax.jit(jax.vmap(jax.grad(loss, has_aux=True)))(rates)
    ts = np.asarray(ts)
    want = np.nansum(-ts * np.exp(-0.3 * ts) * np.sin(np.asarray(rates)[:, None] * ts), axis=1)
    np.testing.assert_allclose(of_sum, want, atol=2e-3)
    np.testing.assert_allclose(of_each, want, atol=2e-3)


def test_failures_stay_with_their_solves():
    ends_at = jnp.full(N, 2.0).at[2].set(jnp.nan).at[5].set(0.0).at[11].set(-1.0)
    states = STATES.at[7].set(jnp.nan)

    def solve(width):
        def one(z0, mu, t1):
            return nj.odesolve(van_der_pol, z0, 0.0, t1, mu, max_steps=9, lane_width=width, throw=False)

        return jax.vmap(one)(states, MU, ends_at)

    want, got = solve(math.inf), solve(WIDTH)
    assert {int(x) for x in want.status} == {
        0,
        int(nj.Status.MAX_STEPS),
        int(nj.Status.NON_FINITE),
        int(nj.Status.BAD_INPUT),
    }
    assert same(
        (want.z1, want.status, want.t_reached, want.stats.nfe), (got.z1, got.status, got.t_reached, got.stats.nfe)
    )


def network(z, t, weights):
    return jnp.tanh(weights[1] @ jnp.tanh(weights[0] @ z))


def test_each_network_has_a_queue_of_its_own_along_the_data():
    keys = jax.random.split(jax.random.key(0), 3)
    weights = [jax.random.normal(keys[0], (2, 5, 2)), jax.random.normal(keys[1], (2, 2, 5))]
    states = jax.random.normal(keys[2], (13, 2))

    def loss(width):
        def one(weights, z0):
            options = {"method": nj.bosh3, "steps": LOOSE, "max_steps": 64, "lane_width": width}
            return jnp.sum(nj.odesolve(network, z0, 0.0, 2.0, weights, **options).z1 ** 2)

        of_data = jax.vmap(jax.vmap(one, (0, None)), (None, 0))
        return jax.jit(jax.value_and_grad(lambda *args: jnp.sum(of_data(*args)), (0, 1)))

    assert gap(loss(8)(weights, states), loss(math.inf)(weights, states)) < 1e-12
    # the queue runs along the data: no loop holds the weights once for each of its lanes
    text = loss(8).lower(weights, states).as_text()
    assert not re.search(r"tensor<(5x2|2x5)x2x(4|13)xf64>", text)


def test_a_queue_loses_less_than_half_of_what_lockstep_loses():
    stats = ends(WIDTH)(STATES, MU).stats
    lockstep = ends(math.inf)(STATES, MU).stats
    trials = stats.accepted + stats.rejected
    assert np.array_equal(lockstep.idle, jnp.max(trials) - trials)
    assert jnp.sum(stats.idle) < jnp.sum(lockstep.idle) / 2
    assert jnp.min(stats.idle) >= 0


def test_few_that_are_left_go_on_in_a_narrower_loop():
    rates = jnp.where(jnp.arange(150) % 50 == 7, 80.0, 1.0)

    def solve(width):
        one = lambda rate: nj.odesolve(nj.testing.decay, 1.0, 0.0, 4.0, rate, method=nj.bosh3, lane_width=width)  # noqa: E731
        return jax.vmap(one)(rates)

    want, got = solve(math.inf), solve(64)
    assert same((want.z1, want.stats.nfe), (got.z1, got.stats.nfe))
    trials = got.stats.accepted + got.stats.rejected
    # were the three long ones to keep all 64 lanes going, these would be idle that long
    assert jnp.sum(got.stats.idle) < 0.5 * 61 * jnp.max(trials)


def test_longest_first_loses_less():
    def idle(sign):
        def one(z0, mu):
            return nj.odesolve(van_der_pol, z0, 0.0, 2.0, mu, lane_width=WIDTH, expected_cost=sign * mu)

        sol = jax.vmap(one)(STATES, MU)
        assert same(sol.z1, want.z1)
        return int(jnp.sum(sol.stats.idle))

    want = ends(math.inf)(STATES, MU)
    assert idle(1.0) < idle(-1.0)


def test_derivatives_of_other_modes_are_those_of_lockstep():
    def ends(width):
        def loss(k):
            def one(z0):
                options = {"method": nj.bosh3, "steps": LOOSE, "max_steps": 32, "lane_width": width}
                return nj.odesolve(spring, z0, 0.0, 1.0, k, **options).z1

            return jnp.sum(jax.vmap(one)(STATES[:7]) ** 2)

        return [jax.jit(mode(loss))(1.2) for mode in (jax.jacfwd, jax.hessian)]

    assert gap(ends(3), ends(math.inf)) < 1e-12


def test_a_leaf_without_elements_may_wait_its_turn():
    def one(z0, none):
        return nj.odesolve(emptied, (z0, none), 0.0, 1.0, method=nj.bosh3, steps=LOOSE, max_steps=32, lane_width=2).z1

    grad = jax.grad(lambda z0, none: jax.vmap(one)(z0, none)[0].sum(), (0, 1))
    decayed, empty = grad(jnp.ones(3), jnp.zeros((3, 0)))
    np.testing.assert_allclose(decayed, np.exp(-1.0), rtol=1e-2)
    assert empty.shape == (3, 0)


def emptied(z, t, p):
    return jax.tree.map(jnp.negative, z)


def spring(z, t, k):
    return jnp.stack([z[1], -k * z[0] ** 3])


def test_memory_of_an_ensemble_follows_its_inputs_and_outputs():
    def temporary(count):
        solve = jax.vmap(lambda z0: nj.odesolve(nj.testing.decay, z0, 0.0, 1.0, 1.0, lane_width=16).z1)
        return jax.jit(solve).lower(jnp.ones((count, 2))).compile().memory_analysis().temp_size_in_bytes

    few, many = temporary(1_000), temporary(10_000)
    assert many < 11 * few
    assert many / 10_000 < 220  # bytes for each solve of two numbers


def test_memory_of_a_gradient_does_not_follow_the_steps_of_the_ensemble():
    def temporary(count):
        def loss(z0, rate):
            return jnp.sum(jax.vmap(lambda z: nj.odesolve(nj.testing.decay, z, 0.0, 1.0, rate, lane_width=16).z1)(z0))

        compiled = jax.jit(jax.grad(loss, 1)).lower(jnp.ones((count, 2)), 1.0).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(1_000) - temporary(100) < 900 * 400


def test_no_queue_where_all_fit():
    def lowered(width):
        solve = jax.vmap(lambda z0: nj.odesolve(nj.testing.decay, z0, 0.0, 1.0, 1.0, lane_width=width).z1)
        return jax.jit(solve).lower(jnp.ones((8, 2))).as_text()

    assert lowered(8) == lowered(math.inf)
    assert lowered(7) != lowered(8)


def test_an_ensemble_lowers_for_every_backend(float32):
    def loss(z0, rate):
        return jnp.sum(jax.vmap(lambda z: nj.odesolve(nj.testing.decay, z, 0.0, 1.0, rate, lane_width=4).z1)(z0))

    check_export(jax.grad(loss, 1), jnp.ones((9, 2)), jnp.array(1.0))


def lanes_of(fn, platform):
    """Return the largest lane axes of loops in a program lowered for a platform: 64 on a CPU, or those of a chunk."""
    args = jnp.ones((300, 2)), jnp.ones(300)
    text = export.export(jax.jit(fn), platforms=(platform,))(*args).mlir_module()
    found = Counter(re.findall(r"(?<!\d)(64|75|300)(?=x[fi]\d)", text))
    return int(found.most_common(1)[0][0])


def squares(z0, rate):
    return jnp.sum(nj.odesolve(nj.testing.decay, z0, 0.0, 1.0, rate, max_steps=60).z1 ** 2)


@pytest.mark.parametrize(("platform", "lanes"), [("cpu", 64), ("cuda", 300), ("tpu", 300)])
def test_the_platform_of_the_program_decides_how_many_lanes_step_together(platform, lanes):
    assert lanes_of(jax.vmap(squares), platform) == lanes
    assert lanes_of(jax.vmap(jax.grad(squares, (0, 1))), platform) == lanes
    assert lanes_of(jax.grad(lambda z0, rate: jax.vmap(squares)(z0, rate).sum()), platform) == lanes


def test_histories_that_would_not_fit_a_device_are_taken_in_chunks(monkeypatch):
    monkeypatch.setattr("node_jax.lanes.linear.memory", lambda: 100 * 60 * 24)  # of step sizes and states of 100 lanes
    assert lanes_of(jax.vmap(squares), "cuda") == 300
    assert lanes_of(jax.vmap(jax.grad(squares)), "cuda") == 75
    assert lanes_of(jax.grad(lambda z0, rate: jax.vmap(squares)(z0, rate).sum()), "cuda") == 75
