"""Compute `references.json`: every problem at four times by DOP853 at 1e-13, compared with Radau and with formulas.

python tests/make_references.py
"""

import json

import jax
import numpy as np
from problems import PROBLEMS, REFERENCE_FILE, times
from scipy.integrate import solve_ivp

jax.config.update("jax_enable_x64", True)


def solve(problem, method, tolerance):
    field = jax.jit(problem.field)
    result = solve_ivp(
        lambda t, z: np.asarray(field(z, t, None)),
        (0.0, problem.t1),
        np.array(problem.z0, float),
        method,
        t_eval=None,
        rtol=tolerance,
        atol=tolerance * 1e-2,
        max_step=problem.t1 / 4,
        dense_output=False,
    )
    assert result.success, result.message
    return result.y[:, -1]


def states(problem, method, tolerance):
    """Stop at each time, so that no interpolation enters."""
    return np.array([solve(problem._replace(t1=t), method, tolerance) for t in times(problem)])


def distance(a, b):
    return np.max(np.abs(a - b) / np.maximum(1.0, np.abs(a)))


def main():
    stored = {}
    for problem in PROBLEMS:
        z = states(problem, "DOP853", 3e-14)
        other = states(problem, "DOP853", 1e-12)
        line = f"{problem.name:15} DOP853 at 1e-12: {distance(z, other):.0e}"
        if len(z[0]) <= 10 and problem.name != "Arenstorf":
            line += f"  Radau at 1e-11: {distance(z, states(problem, 'Radau', 1e-11)):.0e}"
        if problem.exact:
            line += f"  formula: {distance(z, problem.exact(times(problem))):.0e}"
        else:
            stored[problem.name] = z.tolist()
        print(line, flush=True)
    rows = ",\n".join(f'"{name}": {json.dumps(z)}' for name, z in stored.items())
    REFERENCE_FILE.write_text("{\n" + rows + "\n}\n")


if __name__ == "__main__":
    main()
