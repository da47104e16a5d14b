"""The JAX packages: each turns a `Task` into a function `(z0, theta) -> z1`, or into its gradient."""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import ode

import node_jax as nj

MISSING = {}  # package that cannot be imported -> why


def optional(name: str):
    """Return a module; None, with a note of it, if it cannot be imported."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        MISSING[name] = str(error)


diffrax, td = optional("diffrax"), optional("tinydiffeq")


class Task(NamedTuple):
    """What all packages are asked for, in the same words."""

    field: Callable
    t1: float
    rtol: Any
    atol: Any = None  # like rtol
    ts: Any = None  # output times; None: the end only
    lanes: str = ""  # "": one solve; "own": a batch, each with its theta; "shared": a batch with one theta
    max_steps: int = 4096
    stored: int = 4096  # max_steps of those that keep every trial for the gradient

    @property
    def tolerances(self) -> dict:
        """Both tolerances by name."""
        return {"rtol": self.rtol, "atol": self.rtol if self.atol is None else self.atol}


def over_lanes(run, theta_axis):
    """Return the batch of solves."""
    return jax.vmap(run, (0, theta_axis))


def laid_out(task: Task, run):
    """Return the solve, or the batch of solves."""
    return over_lanes(run, {"own": 0, "shared": None}[task.lanes]) if task.lanes else run


def gradient(run, argnums=(0, 1)):
    """Return the gradient of the sum of squares of the result."""
    return jax.grad(lambda z0, theta: (run(z0, theta) ** 2).sum(), argnums)


def solution(task: Task, method=nj.tsit5, adjoint=nj.Checkpointed(), steps=None, **options):
    """Return (z0, theta) -> Solution of node_jax."""
    steps = steps or nj.Adaptive(**task.tolerances)
    save = nj.SaveEnd() if task.ts is None else nj.SaveAt(task.ts)
    bound = task.stored if isinstance(adjoint, nj.Direct) else task.max_steps
    options = {"method": method, "steps": steps, "adjoint": adjoint, "save": save, "max_steps": bound, **options}
    return laid_out(task, lambda z0, theta: nj.odesolve(task.field, z0, 0.0, task.t1, theta, **options))


def node_jax(task: Task, **options):
    """Return the solve by node_jax."""
    solve = solution(task, **options)
    return lambda z0, theta: solve(z0, theta).z1 if task.ts is None else solve(z0, theta).zs


def diffrax_solution(task: Task, method=None, adjoint=None):
    """Return (z0, theta) -> solution of diffrax; unless told otherwise at its defaults."""
    term = diffrax.ODETerm(lambda t, z, theta: task.field(z, t, theta))
    controller = diffrax.PIDController(**task.tolerances)
    save = diffrax.SaveAt(t1=True) if task.ts is None else diffrax.SaveAt(ts=task.ts)

    def run(z0, theta):
        return diffrax.diffeqsolve(
            term, method or diffrax.Tsit5(), 0.0, task.t1, None, z0, theta, stepsize_controller=controller, saveat=save,
            max_steps=task.max_steps, adjoint=adjoint or diffrax.RecursiveCheckpointAdjoint(), throw=False,
        )  # fmt: skip

    return run


def with_diffrax(task: Task, **options):
    """Return the solve by diffrax."""
    solve = diffrax_solution(task, **options)
    return laid_out(task, lambda z0, theta: solve(z0, theta).ys[-1] if task.ts is None else solve(z0, theta).ys)


def one_by_one(task: Task):
    """Return a batch of solves by diffrax, one after another."""
    solve = with_diffrax(task._replace(lanes=""))
    return lambda z0, theta: jax.lax.map(lambda pair: solve(*pair), (z0, theta))


def with_tinydiffeq(task: Task, stored=False, loop="bounded"):
    """Return the solve by tinydiffeq; its default loop is `max_steps` long, and keeps every trial for the gradient."""
    controller = td.PIController(**task.tolerances)
    slots = task.stored if stored else task.max_steps
    save = td.SaveAt(t_1=True) if task.ts is None else td.SaveAt(ts=task.ts)

    def run(z0, theta):
        sol = td.solve_ode(
            lambda x, t, args, p: task.field(x, t, p), td.Tsit5(), 0.0, task.t1, z0, p=theta, dt_0=0.01,
            controller=controller, save_at=save, max_steps=slots, adaptive_loop=loop,
        )  # fmt: skip
        return sol.xs[-1] if task.ts is None and sol.xs.ndim > z0.ndim else sol.xs

    return laid_out(task, run)


def diffrax_backsolve(task: Task):
    """Return the solve by diffrax whose gradient is solved back in time."""
    return with_diffrax(task, adjoint=diffrax.BacksolveAdjoint())


def with_jax(task: Task, **options):
    """Return the solve by jax.experimental.ode, whose only method is dopri5."""

    def run(z0, theta):
        times = jnp.array([0.0, task.t1], z0.dtype) if task.ts is None else task.ts
        zs = ode.odeint(task.field, z0, times, theta, **task.tolerances, **options)
        return zs[-1] if task.ts is None else zs

    return laid_out(task, run)


def of(make, **options):
    """Return task -> solve with these options."""
    return lambda task: make(task, **options)


def slope_of(make, **options):
    """Return task -> gradient with these options."""
    return lambda task: gradient(make(task, **options))


def present(makers: dict) -> dict:
    """Leave out what belongs to packages that cannot be imported."""
    return {name: make for name, make in makers.items() if name.split()[0] not in MISSING}


FORWARD = present({
    "node_jax": node_jax,
    "node_jax dopri5": of(node_jax, method=nj.dopri5),
    "diffrax": with_diffrax,
    "tinydiffeq": with_tinydiffeq,
    "tinydiffeq forward": of(with_tinydiffeq, loop="forward"),  # no reverse mode
    "jax odeint": with_jax,
})  # fmt: skip
GRADIENT = present({
    "node_jax": slope_of(node_jax),
    "node_jax Backsolve": slope_of(node_jax, adjoint=nj.Backsolve()),
    "node_jax Backsolve dopri5": slope_of(node_jax, adjoint=nj.Backsolve(), method=nj.dopri5),
    "node_jax Interpolated": slope_of(node_jax, adjoint=nj.Interpolated()),
    "node_jax Reversible": slope_of(node_jax, adjoint=nj.Reversible()),
    "node_jax Direct": slope_of(node_jax, adjoint=nj.Direct()),
    "diffrax": slope_of(with_diffrax),
    "diffrax Backsolve": slope_of(diffrax_backsolve),
    "tinydiffeq": slope_of(with_tinydiffeq, stored=True),
    "jax odeint": slope_of(with_jax),
})  # fmt: skip
# what a peer is held against, the first that takes part: the same method and kind of gradient
AGAINST = {
    "jax odeint": ("node_jax Backsolve dopri5", "node_jax dopri5"),
    "torchdiffeq": ("node_jax dopri5",),
    "torchdiffeq adjoint": ("node_jax Backsolve dopri5",),
    "scipy": ("node_jax dopri5",),
    "diffrax Backsolve": ("node_jax Backsolve",),
}


def contest(makers: dict, task: Task, only=None, without=()) -> dict:
    """Return the function of each package that can do the task."""
    chosen = {name: make for name, make in makers.items() if (only is None or name in only) and name not in without}
    made = {name: make(task) for name, make in chosen.items()}
    return {name: run for name, run in made.items() if run is not None}
