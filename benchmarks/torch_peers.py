"""torchdiffeq in eager PyTorch; arrays of NumPy in and out, computed on the GPU where JAX computes on one.

It takes the same `Task`, and one step size for a whole batch. Its times contain the copy of a result to the host.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

# threads of PyTorch that wait would otherwise spin while the next package is timed
os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "0"}

import jax
import numpy as np
import torch
import torchdiffeq

from benchmarks.peers import Task, of
from benchmarks.twins import TORCH, TWINS


class Host(NamedTuple):
    """A peer that JAX does not compile: `prepare(z0, theta)`, in NumPy, returns a function of no arguments."""

    prepare: Callable


def device() -> str:
    """Return where PyTorch computes: where JAX does.

    Raises:
        RuntimeError: if it cannot.
    """
    platform = jax.default_backend()
    if platform != "cpu" and not torch.cuda.is_available():
        raise RuntimeError(f"this build of PyTorch has no {platform}")
    return "cpu" if platform == "cpu" else "cuda"


def as_torch(args, wanted: bool):
    """Return tensors, whose gradient may be wanted."""
    return jax.tree.map(lambda x: torch.tensor(x, requires_grad=wanted, device=device()), args)


def times_of(task: Task, like) -> torch.Tensor:
    """Return the output times, the start included."""
    ts = [0.0, task.t1] if task.ts is None else np.asarray(task.ts)
    return torch.tensor(ts, dtype=like.dtype, device=like.device)


def last_or_all(task: Task, zs, batch: bool):
    """Return what was asked for of rows of all times."""
    if task.ts is None:
        return zs[-1]
    return zs.transpose(0, 1) if batch else zs


def with_torchdiffeq(task: Task, z0, theta, method="dopri5", adjoint=False):
    """Solve by torchdiffeq."""
    twin = TWINS[task.field]
    options = {"method": method, **task.tolerances}

    def f(t, z):
        return twin(z, t, theta, TORCH)

    if adjoint:
        leaves = tuple(jax.tree.leaves(theta))
        zs = torchdiffeq.odeint_adjoint(f, z0, times_of(task, z0), adjoint_params=leaves, **options)
    else:
        zs = torchdiffeq.odeint(f, z0, times_of(task, z0), **options)
    return last_or_all(task, zs, bool(task.lanes))


def forward(task: Task, solve, **options):
    """Return the solve as a `Host`."""

    def prepare(*args):
        z0, theta = as_torch(args, wanted=False)
        return lambda: no_gradient(solve, task, z0, theta, options)

    return Host(prepare)


def no_gradient(solve, task, z0, theta, options):
    """Solve without a record for gradients."""
    with torch.no_grad():
        return solve(task, z0, theta, **options).cpu().numpy()


def slope(task: Task, solve, **options):
    """Return the gradient of the sum of squares as a `Host`."""

    def prepare(*args):
        z0, theta = as_torch(args, wanted=True)
        leaves = jax.tree.leaves((z0, theta))

        def run():
            value = (solve(task, z0, theta, **options) ** 2).sum()
            return [x.cpu().numpy() for x in torch.autograd.grad(value, leaves)]

        return run

    return Host(prepare)


FORWARD = {"torchdiffeq": of(forward, solve=with_torchdiffeq)}
GRADIENT = {
    "torchdiffeq": of(slope, solve=with_torchdiffeq),
    "torchdiffeq adjoint": of(slope, solve=with_torchdiffeq, adjoint=True),
}
