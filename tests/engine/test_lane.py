"""One lane alone is the reference of the engine: lockstep and queue end as it does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import node_jax as nj
from node_jax.engine import lane, rows
from node_jax.engine.each import Each
from node_jax.engine.lockstep import completed
from node_jax.odesolve import prepare, problem_of

BATCH = 70  # with a lane width of 8 these go through the queue
RATES = jnp.linspace(0.5, 6.0, BATCH)
TS = jnp.linspace(0.0, 2.0, 5)


def driven(z, t, rate):
    return jnp.stack([z[1], -rate * z[0] - 0.1 * z[1] ** 3 + jnp.sin(t)])


def switched(z, t, rate):
    return driven(z, t, rate) + jnp.where(t < 0.8, 0.0, 1.0)


CASES = {
    "end": {},
    "times": {"save": nj.SaveAt(TS)},
    "steps": {"save": nj.SaveSteps(128)},
    "dense": {"save": nj.Dense(128)},
    "completed": {"save": nj.SaveAt(TS), "method": nj.dopri8},
    "breakpoint": {"save": nj.SaveAt(TS), "steps": nj.Adaptive(breakpoints=0.8)},
    "fixed": {"save": nj.SaveAt(TS), "steps": nj.Fixed(12), "method": nj.rk4},
    "capacity": {"save": nj.SaveSteps(5)},
    "spent": {"max_steps": 7},
}
OPTIONS = {
    "method": nj.tsit5, "steps": nj.Adaptive(), "save": nj.SaveEnd(), "adjoint": nj.Checkpointed(), "max_steps": 128,
}  # fmt: skip


def run_alone(field, rate, options):
    """Run one lane by `lane.run` and return its outcome."""
    problem, leaves, _ = problem_of(*prepare(field, jnp.array([1.0, 0.0]), 0.0, 2.0, rate, **options))
    each = Each(problem, leaves, [()] * len(leaves), ())
    start = rows.blank(each, each.inputs.z0, jnp.array(False))

    def write(saved, before, trial, after):
        return rows.record(each, saved, trial, completed(each))[0]

    p, (saved,) = lane.run(problem, each.inputs, [lane.Sink(start, write)])
    return lane.outcome(problem, each.inputs, (p, rows.finish(each, saved, p.z), jnp.zeros((), jnp.int32)))


@pytest.mark.parametrize("case", CASES)
def test_one_lane_alone_ends_as_lockstep_and_queue_do(case):
    options, field = OPTIONS | CASES[case], switched if case == "breakpoint" else driven
    expected = jax.jit(jax.vmap(lambda rate: run_alone(field, rate, options)))(RATES)

    def solve(rate, width):
        return nj.odesolve(field, jnp.array([1.0, 0.0]), 0.0, 2.0, rate, **options, throw=False, lane_width=width)

    for width in (None, 8):
        sol = jax.jit(jax.vmap(lambda rate, width=width: solve(rate, width)))(RATES)
        np.testing.assert_array_equal(sol.status, expected.status)
        for name in ("nfe", "accepted", "rejected", "limited", "unseen"):
            np.testing.assert_array_equal(getattr(sol.stats, name), getattr(expected.stats, name))
        # step sizes come from logarithms in single precision, which two programs may round otherwise: with them move
        # the ends of steps, and hardly the solution at other times
        near = 1e-14 if case == "fixed" else 1e-10
        np.testing.assert_allclose(sol.z1, expected.z1, rtol=near, atol=1e-15)
        far = 1e-5 if isinstance(options["save"], nj.SaveSteps | nj.Dense) else near
        found = jax.tree.leaves(
            ((sol.ts, sol.zs) if isinstance(options["save"], nj.SaveSteps) else sol.zs, sol.interpolant)
        )
        for x, y in zip(found, jax.tree.leaves(expected.saved.rows), strict=True):
            np.testing.assert_allclose(x, y, rtol=far, atol=far)


def test_a_single_solve_ends_as_one_lane_alone():
    options = OPTIONS | CASES["times"]
    expected = jax.jit(lambda rate: run_alone(driven, rate, options))(2.0)
    sol = nj.odesolve(driven, jnp.array([1.0, 0.0]), 0.0, 2.0, 2.0, **options)
    assert int(sol.stats.nfe) == int(expected.stats.nfe)
    np.testing.assert_allclose(sol.z1, expected.z1, rtol=1e-12)  # not to the last bit: XLA fuses two loops otherwise
    np.testing.assert_allclose(sol.zs, expected.saved.rows, rtol=1e-12)
