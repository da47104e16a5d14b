"""Every adjoint, save and failure on the accelerator, in float64 and float32, against float64 on the host's CPU.

The solves of a check take the same tolerance in both dtypes and at both places. Step sizes are made of a logarithm and
an exponential in single precision, whose last digit is the machine's: with sizes changed by 2e-7 the float64 numbers of
these checks differ by up to 2e-9 (`Reversible`; the others by 5e-10). In float32 they differ by up to 6e-5 on a CPU.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import node_jax as nj
from benchmarks import problems
from benchmarks.report import gap_cell

STEPS = nj.Adaptive(1e-5, 1e-7)
END = 3.0
MOST = 512  # steps
BOUNDS = {"float64": 1e-7, "float32": 1e-3}  # relative to the largest entry
ADJOINTS = (nj.Checkpointed(), nj.Direct(), nj.Backsolve(), nj.Interpolated(), nj.Reversible(), nj.Forward())
# Of each lane: how it is made to end, and in which status.
LANES = (nj.Status.SUCCESS, nj.Status.MAX_STEPS, nj.Status.NON_FINITE, nj.Status.STEP_UNDERFLOW, nj.Status.BAD_INPUT)


class Check(NamedTuple):
    """A function of starts and parameters, given lanes and dtype, that returns what is compared."""

    name: str
    run: Callable
    data: Callable  # lanes, dtype -> arguments
    statuses: tuple = ()  # what `run` has to return as its `status`


def nothing(dtype):
    """Save nothing but the end."""
    return nj.SaveEnd()


def ends_of(sol) -> dict:
    """Return how solves ended, and where."""
    return {"status": sol.status, "z1": sol.z1}


def times(dtype):
    """Return output times: both ends, and some between."""
    return jnp.linspace(0.0, END, 7, dtype=dtype)


def product(z, t, theta):
    """A function of state, time and parameters, to save."""
    return theta[0] * z[0] * z[1] + t


def rows_in_use(sol):
    """The first and the last step saved: the number of steps may depend on the dtype."""
    return sol.zs[0], sol.zs[sol.count - 1], sol.ts[sol.count - 1]


def between(sol):
    """Dense output at the output times."""
    return sol.evaluate(times(sol.z1.dtype))


AT_END = (nothing, lambda sol: sol.z1, STEPS)
SAVES = {  # what is saved, what is read of it, and how steps are chosen
    "SaveAt": (lambda dtype: nj.SaveAt(times(dtype)), lambda sol: sol.zs, STEPS),
    "SaveAt(fn)": (lambda dtype: nj.SaveAt(times(dtype), product), lambda sol: sol.zs, STEPS),
    "SaveSteps": (lambda dtype: nj.SaveSteps(MOST), rows_in_use, STEPS),
    "SaveSteps, Fixed(40)": (lambda dtype: nj.SaveSteps(40), lambda sol: sol.zs, nj.Fixed(40)),
    "Dense": (lambda dtype: nj.Dense(MOST), between, STEPS),
}


def solve(save, read, steps, **options):
    """Return (z0, theta) -> what is read of the solves of all lanes."""

    def one(z0, theta):
        options_of = {"save": save(z0.dtype), "steps": steps, "max_steps": MOST, "throw": False, **options}
        return read(nj.odesolve(problems.lotka_volterra, z0, 0.0, END, theta, **options_of))

    return jax.vmap(one)


def with_gradient(run):
    """Return what `run` returns, and the gradient of the sum of its squares."""

    def loss(z0, theta):
        values = run(z0, theta)
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(values)), values

    return jax.value_and_grad(loss, (0, 1), has_aux=True)


def with_tangent(run):
    """Return what `run` returns, and its derivative along all parameters and starts at once."""
    return lambda z0, theta: jax.jvp(run, (z0, theta), (z0, theta))


def ending(z, t, way):
    """Decay; a stiff field; one that turns NaN at 0.5."""
    stiff = -1e6 * (z - jnp.cos(t))
    lost = jnp.where(t < 0.5, -z, jnp.nan)
    return jnp.where((way == 1) | (way == 3), stiff, jnp.where(way == 2, lost, -z))


def ended(z0, way):
    """Return how lanes end that fail, each in its way."""

    def one(z0, way):
        steps = nj.Adaptive(1e-5, 1e-7, min_step=jnp.where(way == 3, 1e-2, 0.0).astype(z0.dtype))
        t1 = jnp.where(way == 4, jnp.nan, 1.0).astype(z0.dtype)
        return nj.odesolve(ending, z0, 0.0, t1, way, steps=steps, max_steps=64, throw=False)

    return ends_of(jax.vmap(one)(z0, way))


def species(lanes, dtype):
    """Lotka-Volterra lanes, each with its rates; the same numbers in both dtypes."""
    return jax.tree.map(lambda x: x.astype(dtype), problems.species(lanes, jnp.float32))


def ways(lanes, dtype):
    """One lane for each way to end."""
    return jnp.ones(len(LANES), dtype), jnp.arange(len(LANES)).astype(dtype)


def checks(lanes: int):
    """Yield all checks of so many lanes."""
    for adjoint in ADJOINTS:
        run = solve(*AT_END, adjoint=adjoint)
        derived = with_tangent(run) if isinstance(adjoint, nj.Forward) else with_gradient(run)
        yield Check(f"adjoint {type(adjoint).__name__}, SaveEnd", derived, species)
    for name, how in SAVES.items():
        yield Check(f"adjoint Checkpointed, {name}", with_gradient(solve(*how)), species)
    yield Check("queue", with_gradient(solve(*AT_END, lane_width=lanes // 4)), species)
    yield Check("status, lane by lane", ended, ways, LANES)
    for save in (nj.SaveSteps(4), nj.Dense(4)):
        full = (nj.Status.CAPACITY,) * lanes
        run = solve(lambda dtype, save=save: save, ends_of, STEPS)
        yield Check(f"status of a full {type(save).__name__}", run, species, full)


def computed(check: Check, lanes: int, dtype, device) -> dict:
    """Return what a check returns on a device, on the host, by the path of each leaf."""
    with jax.default_device(device):
        args = jax.device_put(check.data(lanes, dtype), device)
        found = jax.device_get(jax.jit(check.run)(*args))
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(found)}


def apart(got: dict, want: dict) -> float | None:
    """Return the largest difference, relative to the largest entry of each leaf; None where only one is finite."""
    worst = 0.0
    for path, x in want.items():
        y = got[path]
        both = np.isfinite(x)
        if y.shape != x.shape or (np.isfinite(y) != both).any():
            return None
        gap = np.abs(y[both].astype(np.float64) - x[both])
        worst = max(worst, float(gap.max(initial=0.0) / max(np.abs(x[both]).max(initial=0.0), 1e-30)))
    return worst


def of_check(check: Check, lanes: int, device, host):
    """Yield the record of each dtype."""
    want = None
    for dtype in ("float64", "float32"):
        begin = time.perf_counter()
        record = {"check": check.name, "dtype": dtype, "bound": BOUNDS[dtype]}
        try:
            want = computed(check, lanes, jnp.float64, host) if want is None else want
            got = computed(check, lanes, jnp.dtype(dtype), device)
            record |= {"difference": apart(got, want), **statuses(check, got)}
        except Exception as error:  # the other checks go on
            record["error"] = f"{type(error).__name__}: {error}"[:300]
        yield record | {"ok": passed(record), "took_s": time.perf_counter() - begin}


def statuses(check: Check, got: dict) -> dict:
    """Return how the lanes ended, and how they should have, if a check is about that."""
    if not check.statuses:
        return {}
    ends = [nj.Status(int(x)).name for x in got["['status']"]]
    return {"statuses": ends, "expected": [status.name for status in check.statuses]}


def passed(record: dict) -> bool:
    """Whether a check found what it should."""
    same = record.get("statuses") == record.get("expected")
    near = record.get("difference") is not None and record["difference"] <= record["bound"]
    return "error" not in record and near and same


def report(record: dict) -> str:
    """Return what is printed of a record."""
    said = record.get("error") or f"difference {gap_cell(record['difference'])}, at most {record['bound']:.0e} expected"
    ends = f", {', '.join(sorted(set(record['statuses'])))}" if "statuses" in record else ""
    return f"{'ok   ' if record['ok'] else 'WRONG'} {record['dtype']} {record['check']}: {said}{ends}"
