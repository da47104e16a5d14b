"""The derivations of the paper as numbers: a check and a figure for each.

python -m benchmarks.paper derivations
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import node_jax as nj
from benchmarks.paper import storage

KEY = jax.random.key(0)
SIZE = 3
STEPS = (8, 16, 32, 64, 128, 256, 512)
LENGTHS = (10, 100, 1000, 10_000)
ADJOINTS = {
    "Checkpointed": nj.Checkpointed(),
    "Direct": nj.Direct(),
    "Backsolve": nj.Backsolve(),
    "Interpolated": nj.Interpolated(),
    "Reversible": nj.Reversible(restart=None),
}


def field() -> nj.nn.MLPField:
    """Return a small network as field."""
    return nj.nn.MLPField(SIZE, 16, 1, key=KEY, time_dependent=True)


def blocks(field, z, count: int):
    """Apply residual blocks `z + h f(z, t)`, one for each step of Euler's method."""
    h = 1.0 / count
    for i in range(count):
        z = z + h * field(z, jnp.asarray(i * h))
    return z


def squared(z):
    """Return the loss of all checks."""
    return jnp.sum(z**2)


def exactly(field, z0):
    """Return the solution at 1, with errors near those of the arithmetic."""
    steps = nj.Adaptive(1e-13, 1e-13)
    return nj.odesolve(field, z0, 0.0, 1.0, method=nj.dopri8, steps=steps, max_steps=10_000).z1


def slope(xs, ys) -> float:
    """Return the slope of a line through logarithms."""
    return float(np.polyfit(np.log(xs), np.log(ys), 1)[0])


def euler_is_a_residual_network() -> dict:
    """Compare residual blocks with Euler's method, and both with the solution."""
    f, z0 = field(), jnp.ones(SIZE)
    exact, gaps, errors = exactly(f, z0), [], []
    for count in STEPS:
        deep = jax.jit(functools.partial(blocks, f, count=count))(z0)
        solved = nj.odesolve(f, z0, 0.0, 1.0, method=nj.euler, steps=nj.Fixed(count)).z1
        gaps.append(float(jnp.max(jnp.abs(deep - solved))))
        errors.append(float(jnp.max(jnp.abs(deep - exact))))
    one = nj.NeuralODE(f, steps=nj.Fixed(1), method=nj.euler)
    same = bool(jnp.all(one(z0) == nj.nn.Residual(f)(z0)))
    return {
        "layers": STEPS,
        "gaps": gaps,
        "errors": errors,
        "slope": slope(STEPS, errors),
        "one_step_is_the_block": same,
    }


def gradient(f, solve):
    """Return the gradient of the loss in the weights, as one vector."""
    arrays, rest = eqx.partition(f, eqx.is_array)
    found = jax.grad(lambda arrays: squared(solve(eqx.combine(arrays, rest))))(arrays)
    return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(found)])


def backpropagation_tends_to_the_adjoint() -> dict:
    """Compare the gradient of residual blocks with that of the solution, for ever more layers."""
    f, z0 = field(), jnp.ones(SIZE)
    exact = gradient(f, lambda f: exactly(f, z0))
    errors = []
    for count in STEPS:
        found = gradient(f, lambda f, count=count: nj.odesolve(
            f, z0, 0.0, 1.0, method=nj.euler, steps=nj.Fixed(count), adjoint=nj.Direct()).z1)  # fmt: skip
        errors.append(float(jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact)))
    return {"layers": STEPS, "errors": errors, "slope": slope(STEPS, errors)}


def one_system_gives_the_gradient(count: int = 12) -> dict:
    """Solve the block-bidiagonal system of all Euler steps, transposed, and compare with reverse mode.

    With the states `z_1 ... z_n` stacked, a change of the weights changes them by `X` with `A X = C`: the blocks of `A`
    are 1 on the diagonal and minus the Jacobian of a step below it. The gradient of a loss with derivative `u` is
    `u X`. It equals `v C` with `A^T v = u`: one system instead of one for each weight.
    """
    f, z0, h = field(), jnp.ones(SIZE), 1.0 / count
    arrays, rest = eqx.partition(f, eqx.is_array)
    flat, rebuild = jax.flatten_util.ravel_pytree(arrays)

    def step(z, weights, t):
        return z + h * eqx.combine(rebuild(weights), rest)(z, t)

    states = [z0]
    for i in range(count):
        states.append(step(states[-1], flat, jnp.asarray(i * h)))
    size = SIZE * count
    a, c = np.eye(size), np.zeros((size, flat.size))
    for i in range(count):
        in_state, in_weights = jax.jacrev(step, (0, 1))(states[i], flat, jnp.asarray(i * h))
        rows = slice(i * SIZE, (i + 1) * SIZE)
        c[rows] = in_weights
        if i:
            a[rows, (i - 1) * SIZE : i * SIZE] = -np.asarray(in_state)
    u = np.zeros(size)
    u[-SIZE:] = jax.grad(squared)(states[-1])
    v = np.linalg.solve(a.T, u)

    def total(weights):
        z = z0
        for i in range(count):
            z = step(z, weights, jnp.asarray(i * h))
        return squared(z)

    reverse = np.asarray(jax.grad(total)(flat))
    forwards = u @ np.linalg.solve(a, c)
    norm = np.linalg.norm(reverse)
    return {
        "states": size, "weights": int(flat.size), "pattern": (np.abs(a) > 0).astype(int).tolist(),
        "transposed_against_reverse": float(np.linalg.norm(v @ c - reverse) / norm),
        "forward_against_reverse": float(np.linalg.norm(forwards - reverse) / norm),
    }  # fmt: skip


def plain(f, z0, count: int):
    """Take steps of the midpoint method in a loop that reverse mode differentiates as it stands."""
    h = 1.0 / count

    def body(z, i):
        t = i * h
        return z + h * f(z + 0.5 * h * f(z, t), t + 0.5 * h), None

    return lax.scan(body, z0, jnp.arange(count, dtype=z0.dtype))[0]


def memory_along_the_steps() -> dict:
    """Return the temporary memory of a compiled gradient, for a plain loop and for every adjoint."""
    f, z0 = field(), jnp.ones(SIZE)
    solves = {"plain loop": plain}
    for name, adjoint in ADJOINTS.items():
        solves[name] = lambda f, z0, count, adjoint=adjoint: nj.odesolve(
            f, z0, 0.0, 1.0, method=nj.midpoint, steps=nj.Fixed(count), adjoint=adjoint).z1  # fmt: skip
    sizes = {}
    for name, solve in solves.items():
        sizes[name] = []
        for count in LENGTHS:
            total = jax.grad(lambda z0, solve=solve, count=count: squared(solve(f, z0, count)))
            compiled = jax.jit(total).lower(z0).compile()
            sizes[name].append(int(compiled.memory_analysis().temp_size_in_bytes))
    return {"steps": LENGTHS, "bytes": sizes}


def error_along_the_tolerance() -> dict:
    """Return the error of the gradient in the weights by every adjoint, against the tolerance."""
    f, z0 = field(), jnp.ones(SIZE)
    exact = gradient(f, lambda f: exactly(f, z0))
    tolerances = [10.0**-k for k in range(3, 11)]
    errors = {}
    for name, adjoint in ADJOINTS.items():
        errors[name] = []
        for tolerance in tolerances:
            steps = nj.Adaptive(tolerance, tolerance)
            found = gradient(f, lambda f, steps=steps, adjoint=adjoint: nj.odesolve(
                f, z0, 0.0, 1.0, steps=steps, adjoint=adjoint).z1)  # fmt: skip
            errors[name].append(float(jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact)))
    return {"tolerances": tolerances, "errors": errors}


def depth_field(z, t, theta):
    """Return a slope in one dimension for the picture of layers and depth."""
    return jnp.sin(3.0 * t) - 0.4 * z + 0.6 * jnp.cos(2.0 * z)


def layers_and_depth() -> dict:
    """Return paths through residual blocks and along a solution, with the points at which the field is evaluated."""
    depth, starts = 5.0, [-4.0, -2.0, 0.0, 2.0, 4.0]
    layers, solved, evaluated = [], [], []
    for start in starts:
        z, path = start, [start]
        for i in range(int(depth)):
            z = z + float(depth_field(jnp.asarray(z), jnp.asarray(float(i)), None))
            path.append(z)
        layers.append(path)
        ts = jnp.linspace(0.0, depth, 101)
        options = {"method": nj.dopri5, "steps": nj.Adaptive(1e-3, 1e-3)}
        solved.append(nj.odesolve(depth_field, start, 0.0, depth, save=nj.SaveAt(ts), **options).zs.tolist())
        ends = nj.odesolve(depth_field, start, 0.0, depth, save=nj.SaveSteps(64), **options)
        evaluated.append(stages(ends, start))
    return {
        "depth": depth,
        "starts": starts,
        "layers": layers,
        "times": ts.tolist(),
        "paths": solved,
        "points": evaluated,
    }


def stages(ends, start: float) -> list:
    """Return the times and states at which the steps of a solve evaluated the field."""
    points, t, z = [], jnp.zeros(()), jnp.asarray(start)
    for i in range(int(ends.count)):
        h = ends.ts[i] - t
        slopes = nj.dopri5.stages(depth_field, t, z, h, None)
        for j, (c, row) in enumerate(zip(nj.dopri5.c, nj.dopri5.a, strict=True)):
            at = z + h * sum((x * k for x, k in zip(row, slopes[:j], strict=True)), jnp.zeros(()))
            points.append([float(t + c * h), float(at)])
        t, z = ends.ts[i], ends.zs[i]
    return points


CHECKS = {
    "residual network": euler_is_a_residual_network,
    "backpropagation": backpropagation_tends_to_the_adjoint,
    "linear system": one_system_gives_the_gradient,
    "memory": memory_along_the_steps,
    "tolerance": error_along_the_tolerance,
    "depth": layers_and_depth,
}


def run() -> dict:
    """Run what is not stored."""
    jax.config.update("jax_enable_x64", True)
    return {name: storage.kept("derivations", name.replace(" ", "_"), check) for name, check in CHECKS.items()}
