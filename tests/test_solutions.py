"""Solutions against formulas and SciPy at 1e-13: errors within 10 times the tolerance, or as SciPy where that is more.

The error is the largest of `|z - exact| / max(1, |exact|)` over components, at the end (tsit5: at four times, by dense
output); `rtol = atol = tolerance`. A method controls the error of a step, and the problem carries it along: where
neighbouring solutions part (orbits drift in phase, limit cycles, chaos), the error at the end is a multiple of the
tolerance for every such method. There it must be at most twice that of SciPy's RK45 (order 5) or DOP853 (order 8) at
the same tolerance: `SCIPY` holds their multiples, the largest over the tolerances 1e-4 to 1e-10.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import PERIOD, PROBLEMS, solution, times

import node_jax as nj

BY_NAME = {problem.name: problem for problem in PROBLEMS}
WITHIN = 10.0


@functools.cache
def solver(name, method):
    """Return tolerance -> (states, ok), compiled once for all tolerances."""
    problem = BY_NAME[name]
    save = nj.SaveAt(jnp.asarray(times(problem))) if method is nj.tsit5 else nj.SaveEnd()

    def run(tolerance):
        steps = nj.Adaptive(tolerance, tolerance)
        z0 = jnp.array(problem.z0, float)
        sol = nj.odesolve(
            problem.field,
            z0,
            0.0,
            problem.t1,
            method=method,
            steps=steps,
            save=save,
            max_steps=50_000,
            throw=False,
        )
        return sol.z1[None] if sol.zs is None else sol.zs, sol.ok

    return jax.jit(run)


def error(name, method, tolerance):
    z, ok = solver(name, method)(tolerance)
    assert ok
    exact = solution(BY_NAME[name])[-len(z) :]
    return float(np.max(np.abs(z - exact) / np.maximum(1.0, np.abs(exact))))


SCIPY = {
    5: {"B1": 100, "B4": 46, "B5": 27, "C5": 240, "D1": 4200, "D2": 1800, "D3": 1100, "D4": 630, "D5": 1100, "E2": 22,
        "E3": 110, "Lotka-Volterra": 55, "Lorenz": 19, "Pleiades": 2300, "Arenstorf": 16_000},
    8: {"D1": 79, "D5": 190, "Arenstorf": 13_000},
    3: {},
}  # fmt: skip
TABLE = [(p.name, nj.tsit5, (1e-4, 1e-6, 1e-8, 1e-10)) for p in PROBLEMS]
EIGHTH = (
    "A1",
    "A4",
    "A5",
    "B2",
    "B5",
    "C1",
    "D1",
    "D5",
    "E1",
    "E2",
    "E3",
    "Lotka-Volterra",
    "Lorenz",
    "Arenstorf",
)
TABLE += [(name, nj.dopri8, (1e-4, 1e-6, 1e-8, 1e-10)) for name in EIGHTH]
TABLE += [(name, nj.dopri5, (1e-4, 1e-6, 1e-8)) for name in ("A2", "B5", "D1", "E4", "Lotka-Volterra")]
TABLE += [(name, nj.bosh3, (1e-4, 1e-6)) for name in ("A2", "B2", "E4")]


@pytest.mark.parametrize(("name", "method", "tolerances"), TABLE, ids=[f"{row[0]}-{row[1]}" for row in TABLE])
def test_the_error_is_within_ten_times_the_tolerance_or_twice_that_of_scipy(name, method, tolerances):
    found = [error(name, method, tolerance) / tolerance for tolerance in tolerances]
    assert max(found) <= max(WITHIN, 2 * SCIPY[method.order].get(name, 0.0)), found


@pytest.mark.parametrize("name", [problem.name for problem in PROBLEMS if problem.exact])
def test_the_formulas_start_where_the_problems_do(name):
    problem = BY_NAME[name]
    np.testing.assert_allclose(problem.exact(np.zeros(1))[0], problem.z0, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_the_stored_solutions_are_finite_and_shaped_like_the_problem(problem):
    z = solution(problem)
    assert z.shape == (4, len(problem.z0))
    assert np.isfinite(z).all()


def test_the_arenstorf_orbit_closes():
    problem = BY_NAME["Arenstorf"]
    assert problem.t1 == PERIOD
    np.testing.assert_allclose(solution(problem)[-1], problem.z0, atol=5e-9)
