"""Twelve subjects, a thousand starts each, in one program: `fit_parameters` against the same search with diffrax.

python -m benchmarks.theophylline [--starts N ...] [--most N]

writes benchmarks/results/theophylline.json. A drug is absorbed from the gut and leaves the blood again, at rates that
are fitted to eleven concentrations of each subject: nonlinear regression with three parameters, from starts that are
log-uniform over a factor of e**2 to both sides. The search is the same loop for all, Gauss-Newton with damping, mapped
over starts and subjects; a trial is a solve with the same method, tolerances and limit of steps. With diffrax it
takes derivatives in the two ways that a user of it would: by `jax.jacfwd` with `ForwardMode`, and by a solve of the
state and its derivatives together, with the error norm of the state alone.
"""

import argparse
import json
import time

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

import node_jax as nj
from benchmarks import timing
from benchmarks.stored import RESULTS
from node_jax import norms
from node_jax.estimate.model import Evaluation
from node_jax.estimate.newton import Aim, minimize
from node_jax.estimate.search import REACH

STORED = RESULTS / "theophylline.json"
OURS = "node_jax"
RTOL, ATOL, MAX_STEPS = 1e-6, 1e-8, 4096
FIRST = {"excess": 1.5, "elimination": 0.08, "volume": 0.5}  # 1/h, 1/h, l/kg
SPREAD, UPDATES, TOLERANCE = 2.0, 200, 1e-4


def absorption(z, t, theta):
    """Amount in the gut in mg/kg and concentration in the blood in mg/l; absorption is the faster of the two."""
    gut, blood = z
    rate = theta["elimination"] + theta["excess"]
    return jnp.stack([-rate * gut, rate * gut / theta["volume"] - theta["elimination"] * blood])


def blood(z, theta):
    return z[1]


def with_node_jax(starts: int, key):
    """Fit by the public call; return for each subject the best logarithms, losses and how many agree."""

    def one(dose, ts, observed):
        fit = nj.fit_parameters(
            absorption, jnp.stack([dose, 0.0 * dose]), FIRST, ts, observed, t0=0.0, observe=blood, transform="log",
            starts=starts, spread=SPREAD, key=key, updates=UPDATES, tolerance=TOLERANCE, max_steps=MAX_STEPS,
            steps=nj.Adaptive(RTOL, ATOL),
        )  # fmt: skip
        return fit.x, fit.found.costs[0], jnp.sum(fit.starts.agree), jnp.sum(fit.starts.converged)

    return jax.vmap(one)


def with_diffrax(slopes, starts: int, key):
    """Fit by the same loop around a solve of diffrax."""
    x0 = jnp.log(jnp.array([FIRST[name] for name in sorted(FIRST)]))
    draws = jax.random.uniform(key, (starts - 1, 3), x0.dtype, -1.0, 1.0)
    xs = jnp.concatenate([x0[None], x0[None] + SPREAD * draws])
    aim = Aim(jnp.ones(3, bool), jnp.full(3, REACH), UPDATES, TOLERANCE)

    def one(dose, ts, observed):
        def evaluate(x, done):
            seen, rows, ok = slopes(x, dose, jnp.where(done, 0.0, ts))  # no length, as node_jax has it
            errors = seen - observed
            cost = jnp.where(ok & jnp.all(jnp.isfinite(rows)), 0.5 * errors @ errors, jnp.inf)
            return Evaluation(cost, errors @ rows, rows.T @ rows, jnp.zeros((), bool))

        found = jax.vmap(lambda x: minimize(evaluate, lambda cost: 2 * cost / (len(ts) - 3), x, aim))(xs)
        best = jnp.argmin(found.at.cost)
        losses = 0.5 * len(ts) * jnp.log(found.at.cost)
        return found.x[best], found.at.cost[best], jnp.sum(losses - losses[best] < 0.01), jnp.sum(found.converged)

    return jax.vmap(one)


def solved(field, z0, args, ts, norm):
    return diffrax.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, ts[-1], None, z0, args, saveat=diffrax.SaveAt(ts=ts),
        stepsize_controller=diffrax.PIDController(RTOL, ATOL, norm=norm), adjoint=diffrax.ForwardMode(),
        max_steps=MAX_STEPS, throw=False,
    )  # fmt: skip


def named(x):
    return dict(zip(sorted(FIRST), jnp.exp(x), strict=True))


def field_of_logs(t, z, x):
    return absorption(z, t, named(x))


def by_jacfwd(x, dose, ts):
    """Derivatives of a solve in forward mode."""

    def seen(x):
        sol = solved(field_of_logs, jnp.stack([dose, 0.0 * dose]), x, ts, norms.rms)
        return sol.ys[:, 1], (sol.ys[:, 1], sol.result == diffrax.RESULTS.successful)

    rows, (values, ok) = jax.jacfwd(seen, has_aux=True)(x)
    return values, rows, ok


def along(t, both, x):
    """The field of the state and its derivatives by the logarithms."""
    slope, push = jax.linearize(lambda z, x: field_of_logs(t, z, x), both[0], x)
    return slope, jax.vmap(push)(both[1], jnp.eye(x.size))


def of_state(both):
    return norms.rms(both[0])


def by_sensitivities(x, dose, ts):
    """Derivatives that are solved for together with the state."""
    sol = solved(along, (jnp.stack([dose, 0.0 * dose]), jnp.zeros((x.size, 2))), x, ts, of_state)
    return sol.ys[0][:, 1], sol.ys[1][:, :, 1], sol.result == diffrax.RESULTS.successful


def measured(starts: int, peers: bool) -> dict:
    """Run each once, and hold what the others find against ours.

    What is compiled beforehand needs no first call, which takes minutes. Seconds of the processor are counted beside
    those of the clock, as others may use it too.
    """
    record, key = nj.datasets.theophylline(), jax.random.key(0)
    data = tuple(jnp.asarray(x) for x in (record.dose, record.ts, record.concentration))
    ways = {OURS: with_node_jax(starts, key)}
    if peers:
        ways["diffrax, jacfwd"] = with_diffrax(by_jacfwd, starts, key)
        ways["diffrax, sensitivities"] = with_diffrax(by_sensitivities, starts, key)
    records, answers = {}, {}
    for way, function in ways.items():
        compiled, seconds, size = timing.compile_time(function, *data)
        begin, spent = time.perf_counter(), time.process_time()
        answers[way] = x, cost, agree, converged = [np.asarray(x) for x in compiled(*data)]
        records[way] = {
            "compile_s": seconds,
            "temporary_bytes": size,
            "s": time.perf_counter() - begin,
            "cpu_s": time.process_time() - spent,
            "difference": float(np.max(np.abs(np.expm1(x - answers[OURS][0])))),
            "cost": cost.tolist(),
            "at_the_best": agree.tolist(),
            "converged": converged.tolist(),
        }
        for unit in ("s", "cpu_s"):
            records[way][f"ratio_{unit}"] = records[OURS][unit] / records[way][unit]
        print(f"{starts} starts, {way}: {records[way]['s']:.3g} s, {records[way]['cpu_s']:.3g} s of CPU", flush=True)
    return {"starts": starts, "subjects": len(record.dose), "rtol": RTOL, "atol": ATOL, "ways": records}


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description="Many starts for twelve subjects.")
    parser.add_argument("--starts", type=int, nargs="+", default=[20, 50, 100, 1000])
    parser.add_argument("--most", type=int, default=50, help="starts with which diffrax is still run")
    chosen = parser.parse_args()
    results = [measured(starts, starts <= chosen.most) for starts in chosen.starts]
    part = {"machine": timing.machine("jax", "jaxlib", "diffrax"), "results": results}
    STORED.write_text(json.dumps(part, indent=1) + "\n")
