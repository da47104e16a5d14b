"""Field evaluations of node_jax and diffrax: same method, tolerance and controller coefficients.

    python -m benchmarks.nfe [--out FILE]

diffrax does not count evaluations: its column is attempted steps times evaluations an attempt (the last stage of one
step is the first of the next), plus one for the first slope; ours is `stats.nfe`, which counts the same things. Both
start with a step of 0.01, which is what diffrax 0.7.2 takes if none is given. `Adaptive(p=0, i=1, d=0)` is diffrax's
default controller.
"""

import argparse
import json
import pathlib
import sys

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

import node_jax as nj
from benchmarks import timing
from benchmarks.stored import RESULTS, ROOT

sys.path.insert(0, str(ROOT / "tests"))
import problems

METHODS = {
    "tsit5": (nj.tsit5, diffrax.Tsit5()),
    "dopri5": (nj.dopri5, diffrax.Dopri5()),
    "bosh3": (nj.bosh3, diffrax.Bosh3()),
}
FIRST_STEP = 0.01
TOLERANCES = (1e-4, 1e-6, 1e-8)
MAX_STEPS = 100_000


def ours(problem, z0, method):
    """Return tolerance -> (state at the end, evaluations, accepted, rejected)."""

    def run(tolerance):
        steps = nj.Adaptive(tolerance, tolerance, first_step=FIRST_STEP, p=0.0, i=1.0, d=0.0, stay_stable=False)
        sol = nj.odesolve(
            problem.field, z0, 0.0, problem.t1, method=method, steps=steps, max_steps=MAX_STEPS, throw=False
        )
        return sol.z1, sol.stats.nfe, sol.stats.accepted, sol.stats.rejected

    return jax.jit(run)


def theirs(problem, z0, method):
    """The same with diffrax."""
    term = diffrax.ODETerm(lambda t, z, theta: problem.field(z, t, theta))
    stages = len(method.tableau.c)  # evaluations an attempt: all but the first slope, which is reused

    def run(tolerance):
        controller = diffrax.PIDController(rtol=tolerance, atol=tolerance)
        sol = diffrax.diffeqsolve(
            term, method, 0.0, problem.t1, FIRST_STEP, z0,
            stepsize_controller=controller, max_steps=MAX_STEPS, throw=False, adjoint=diffrax.ForwardMode(),
        )  # fmt: skip
        steps = sol.stats["num_steps"]
        return (
            sol.ys[-1],
            1 + stages * steps,
            sol.stats["num_accepted_steps"],
            sol.stats["num_rejected_steps"],
        )

    return jax.jit(run)


def record(problem, name):
    """Compare both packages on one problem with one method, at every tolerance."""
    z0, exact = jnp.array(problem.z0, float), problems.solution(problem)[-1]
    runs = {
        "node_jax": ours(problem, z0, METHODS[name][0]),
        "diffrax": theirs(problem, z0, METHODS[name][1]),
    }
    for tolerance in TOLERANCES:
        row = {"problem": problem.name, "method": name, "tolerance": tolerance}
        for package, run in runs.items():
            z1, nfe, accepted, rejected = run(tolerance)
            error = float(np.max(np.abs(z1 - exact) / np.maximum(1.0, np.abs(exact))))
            row[package] = {
                "nfe": int(nfe), "accepted": int(accepted), "rejected": int(rejected), "error": error
            }  # fmt: skip
        yield row


def main():
    """Print and store all rows; name those where node_jax evaluates more."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS / "nfe.json")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    rows = []
    print(f"{'problem':15} {'method':7} {'tolerance':>9} {'node_jax':>9} {'diffrax':>9} ratio  accepted, rejected")
    for problem in problems.PROBLEMS:
        for name in METHODS:
            for row in record(problem, name):
                rows.append(row)
                a, b = row["node_jax"], row["diffrax"]
                print(f"{problem.name:15} {name:7} {row['tolerance']:9.0e} {a['nfe']:9,} {b['nfe']:9,} "
                      f"{a['nfe'] / b['nfe']:5.3f}  {a['accepted']}, {a['rejected']}; {b['accepted']}, {b['rejected']}"
                      f"{'  MORE' if a['nfe'] > b['nfe'] else ''}", flush=True)  # fmt: skip
    more = [row for row in rows if row["node_jax"]["nfe"] > row["diffrax"]["nfe"]]
    print(f"{len(rows)} rows, node_jax evaluates more in {len(more)}")
    about = timing.machine("jax", "jaxlib", "diffrax") | {"node-jax": nj.__version__}
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps({"machine": about, "results": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
