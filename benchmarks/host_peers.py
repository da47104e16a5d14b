"""The packages outside JAX: torchdiffeq and torchode in eager PyTorch, SciPy in NumPy; arrays of NumPy in and out.

Each takes the same `Task`. torchdiffeq has one step size for a whole batch, torchode one for each state; SciPy solves
one state at a time, and in float64 only.
"""

import os

os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "0"}  # as in torch_peers

import numpy as np
import torch
import torchdiffeq
import torchode
from scipy.integrate import solve_ivp

from benchmarks import torch_peers
from benchmarks.peers import Task, of
from benchmarks.torch_peers import Host, as_torch, forward, slope, times_of
from benchmarks.twins import NUMPY, TORCH, TWINS


def torchode_solution(task: Task, z0, theta, method=torchode.Tsit5):
    """Solve by torchode; one solve is a batch of one, of a flat state."""
    twin = TWINS[task.field]
    flat = z0 if task.lanes else z0.reshape(1, -1)
    shape = flat.shape if task.lanes else z0.shape

    def f(t, z):
        return twin(z.reshape(shape), t, theta, TORCH).reshape(flat.shape)

    term = torchode.ODETerm(f)
    solver = torchode.AutoDiffAdjoint(method(term), torchode.IntegralController(term=term, **task.tolerances))
    begin, end = (torch.full((len(flat),), t, dtype=z0.dtype) for t in (0.0, task.t1))
    wanted = None if task.ts is None else times_of(task, z0).expand(len(flat), -1)
    return solver.solve(torchode.InitialValueProblem(y0=flat, t_start=begin, t_end=end, t_eval=wanted))


def with_torchode(task: Task, z0, theta):
    """Solve by torchode."""
    zs = torchode_solution(task, z0, theta).ys
    if task.ts is None:
        return zs[:, -1].reshape(z0.shape)
    return zs if task.lanes else zs[0]


def scipy_solution(task: Task, z0, theta, method="RK45"):
    """Solve by SciPy, as a flat state."""
    twin, shape = TWINS[task.field], z0.shape
    if z0.dtype != np.float64:
        raise TypeError("SciPy computes in float64 only")
    f = lambda t, z: twin(z, t, theta, NUMPY)  # noqa: E731
    if z0.ndim > 1:
        f = lambda t, z: twin(z.reshape(shape), t, theta, NUMPY).ravel()  # noqa: E731
    ts = None if task.ts is None else np.asarray(task.ts)
    return solve_ivp(f, (0.0, task.t1), z0.ravel(), method=method, t_eval=ts, **task.tolerances)


def with_scipy(task: Task):
    """Return one solve by SciPy as a `Host`; None for a batch."""

    def prepare(z0, theta):
        def run():
            ys = scipy_solution(task, z0, theta).y
            return ys[:, -1].reshape(z0.shape) if task.ts is None else ys.T

        return run

    return None if task.lanes else Host(prepare)


def counted_torchdiffeq(task: Task, method):
    """Return a `Host` that returns the end and the number of evaluations."""

    def prepare(z0, given):
        z0, theta = as_torch((z0, given[0]), wanted=False)
        calls = []

        def f(t, z):
            calls.append(t)
            return TWINS[task.field](z, t, theta, TORCH)

        def run():
            calls.clear()
            options = {"method": method} | task._replace(rtol=float(given[1])).tolerances
            with torch.no_grad():
                return torchdiffeq.odeint(f, z0, times_of(task, z0), **options)[-1].numpy(), len(calls)

        return run

    return Host(prepare)


def counted_torchode(task: Task, method):
    """The same with torchode."""

    def prepare(z0, given):
        z0, theta = as_torch((z0, given[0]), wanted=False)
        loose = task._replace(rtol=float(given[1]))

        def run():
            with torch.no_grad():
                sol = torchode_solution(loose, z0, theta, method)
            return sol.ys[0, -1].numpy(), int(sol.stats["n_f_evals"][0])

        return run

    return Host(prepare)


def counted_scipy(task: Task, method):
    """The same with SciPy."""

    def prepare(z0, given):
        loose = task._replace(rtol=float(given[1]))

        def run():
            sol = scipy_solution(loose, z0, given[0], method)
            return sol.y[:, -1], sol.nfev

        return run

    return Host(prepare)


FORWARD = {
    **torch_peers.FORWARD,
    "torchode": of(forward, solve=with_torchode),
    "scipy": with_scipy,
}
GRADIENT = {
    **torch_peers.GRADIENT,
    "torchode": of(slope, solve=with_torchode),
}
COUNTED = {
    "heun": {
        "torchdiffeq": of(counted_torchdiffeq, method="adaptive_heun"),
        "torchode": of(counted_torchode, method=torchode.Heun),
    },
    "bosh3": {
        "torchdiffeq": of(counted_torchdiffeq, method="bosh3"),
        "scipy": of(counted_scipy, method="RK23"),
    },
    "tsit5": {"torchode": of(counted_torchode, method=torchode.Tsit5)},
    "dopri5": {
        "torchdiffeq": of(counted_torchdiffeq, method="dopri5"),
        "torchode": of(counted_torchode, method=torchode.Dopri5),
        "scipy": of(counted_scipy, method="RK45"),
    },
    "dopri8": {
        "torchdiffeq": of(counted_torchdiffeq, method="dopri8"),
        "scipy": of(counted_scipy, method="DOP853"),
    },
}
