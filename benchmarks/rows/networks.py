"""Neural fields, a batch of 256 as lanes and as one state: forward, gradient by every adjoint, and their floors."""

import jax
import jax.numpy as jnp

import node_jax as nj
from benchmarks import problems
from benchmarks.measure import Floor, Row
from benchmarks.peers import Task, contest, laid_out, solution
from benchmarks.rows import Packages, bounds

NAMES = {  # by sizes, and whether the batch is one state
    (problems.SMALL, False): "256 network lanes, shared weights",
    (problems.LARGE, False): "256 network lanes, 32-128-128-32",
    (problems.SMALL, True): "256 network states as one, 2-64-64-2",
    (problems.LARGE, True): "256 network states as one, 32-128-128-32",
}
HALF = dict.fromkeys(("diffrax", "diffrax Backsolve", "tinydiffeq", "jax odeint"), 0.5)
EAGER = dict.fromkeys(("torchdiffeq", "torchdiffeq adjoint", "torchode"), 0.15)


def rows(dtype, packages: Packages):
    """Yield the rows of neural fields."""
    near, far = bounds(dtype)
    for (sizes, as_one), name in NAMES.items():
        field, lanes = (problems.networks, "") if as_one else (problems.network, "shared")
        task = Task(field, 1.0, 1e-5, lanes=lanes, stored=64)
        data = problems.network_data(dtype, sizes)
        judged = HALF | EAGER | ({"diffrax": 0.4} if (sizes, as_one) == (problems.SMALL, False) else {})
        yield Row(name, contest(packages.forward, task), data, {}, near, floor=floor(task))
        yield Row(f"gradient, {name}", contest(packages.gradient, task), data, judged, far, floor=floor(task, True))


def floor(task: Task, slope: bool = False) -> Floor:
    """Return the floor of a task: as many evaluations as its longest lane has."""

    def evaluations(z0, theta):
        stats = jax.jit(solution(task))(z0, theta).stats
        return jnp.max(stats.nfe), jnp.max(stats.accepted) * nj.tsit5.replay_evaluations

    field = laid_out(task, lambda z, theta: task.field(z, jnp.zeros((), z.dtype), theta))
    return Floor(field, evaluations, slope)
