"""The rows for an accelerator: ensembles up to a million solves, gradients and networks, with the peers at hand."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks import peers, problems
from benchmarks.measure import Row
from benchmarks.peers import Task, contest, gradient, node_jax, of, optional, slope_of, with_jax
from benchmarks.rows import bounds

TORCH = optional("benchmarks.torch_peers")
MOST = 4096  # steps of all; without this bound those of jax.experimental.ode may not end in float32
ODEINT = {"jax odeint": of(with_jax, mxstep=MOST)}
LOCKSTEP = of(node_jax, lane_width=math.inf)
FORWARD = ("node_jax", "diffrax", "tinydiffeq forward", "torchdiffeq")
GRADIENT = ("node_jax", "diffrax", "tinydiffeq", "torchdiffeq")
BACKWARD = {"jax odeint": slope_of(with_jax, mxstep=MOST)}
FEW = 16  # the most lanes of small rows
WIDE = (64, 512, 512, 64)
NAMES = {"benchmarks.torch_peers": "torchdiffeq"}
OSCILLATORS, NETWORKS = "gradients of Van der Pol", "gradients of networks"
WITHOUT = {
    ("jax odeint", OSCILLATORS): "no solve finds its way back in time along them",
    ("tinydiffeq", NETWORKS): "compiles for more than a minute, on a CPU",
}


def left_out() -> dict:
    """Return the packages that cannot take part, and why."""
    missing = {NAMES.get(name, name): why for name, why in peers.MISSING.items()}
    return missing | {f"{name}, {where}": why for (name, where), why in WITHOUT.items()}


def makers(lanes: bool, slope: bool) -> dict:
    """Return who takes part: package -> (task -> function)."""
    # solves step together by default on all devices but a CPU; gradients may go in chunks
    ours = {"lockstep": LOCKSTEP} if lanes and (slope or jax.default_backend() == "cpu") else {}
    torch = {} if TORCH is None else TORCH.GRADIENT if slope else TORCH.FORWARD
    if slope:
        ours = {name: lambda task, make=make: gradient(make(task)) for name, make in ours.items()}
    known = (peers.GRADIENT if slope else peers.FORWARD) | torch
    chosen = {name: known[name] for name in (GRADIENT if slope else FORWARD) if name in known}
    return ours | chosen | (BACKWARD if slope else ODEINT)


def forward(name: str, task: Task, data: tuple):
    """Yield a row of solves."""
    yield Row(name, ordered(contest(makers(bool(task.lanes), False), task)), data, {}, bounds(data[0].dtype)[0])


def slopes(name: str, task: Task, data: tuple, where: str):
    """Yield a row of gradients; `task.stored` steps suffice, for those that are told."""
    without = [package for package, rows in WITHOUT if rows == where]
    runs = contest(makers(bool(task.lanes), True), task, without=without)
    few = gradient(LOCKSTEP(task._replace(max_steps=task.stored)))
    yield Row(f"gradient, {name}", ordered(runs | {"lockstep, few steps": few}), data, {}, bounds(data[0].dtype)[1])


def ordered(runs: dict) -> dict:
    """Return the functions with ours first: a card that runs out of memory with a peer has it done by then."""
    return {"node_jax": runs["node_jax"]} | runs


def ensembles(at_most: Callable):
    """Yield ensembles of equations, their gradients, and a single solve."""
    f32, f64 = jnp.float32, jnp.float64
    for count in (8_192, 131_072, 1_048_576):
        task = Task(problems.lorenz, 1.0, 1e-5, lanes="own")
        yield from forward(f"{count:,} Lorenz, rho 0 to 21, t=1", task, problems.attractors(at_most(count), f32))
    for dtype, rtol in ((f32, 1e-4), (f64, 1e-6)):
        task = Task(problems.van_der_pol, 20.0, rtol, lanes="own")
        data = problems.oscillators(at_most(4096), 0.1, 100.0, dtype)
        yield from forward("4,096 Van der Pol, mu 0.1 to 100", task, data)
    species = problems.single(f64, (1.0, 1.0), problems.RATES)
    yield from forward("single Lotka-Volterra, 800 steps", Task(problems.lotka_volterra, 40.0, 1e-8), species)
    for count, dtype, rtol, stored in ((2_048, f64, 1e-7, 1024), (131_072, f32, 1e-4, 256)):
        task = Task(problems.van_der_pol, 10.0, rtol, lanes="own", stored=stored)
        data = problems.oscillators(at_most(count), 0.1, 8.0, dtype)
        yield from slopes(f"{count:,} Van der Pol, mu 0.1 to 8", task, data, OSCILLATORS)


def networks(at_most: Callable):
    """Yield neural fields, forward and gradient."""
    task = Task(problems.network, 1.0, 1e-5, lanes="shared", stored=64)
    for sizes, count in ((problems.SMALL, 256), (problems.SMALL, 16_384), (WIDE, 4_096)):
        data = problems.network_data(jnp.float32, sizes, at_most(count))
        name = f"{count:,} network lanes, {'-'.join(map(str, sizes))}"
        yield from forward(name, task, data)
        yield from slopes(name, task, data, NETWORKS)


def rows(small: bool):
    """Yield all rows; small ones have few lanes, and the names of large ones."""

    def at_most(count):
        return min(count, FEW) if small else count

    yield from ensembles(at_most)
    yield from networks(at_most)
