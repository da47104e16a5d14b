"""Densities: continuous against planar flows (section 4, figures 4 and 5 of the paper).

python -m benchmarks.paper matching
python -m benchmarks.paper likelihood
"""

import functools
import math
import time
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

import node_jax as nj
from benchmarks.paper import storage
from node_jax import tree

# Matching: minimize KL(q || p) for densities p that are known up to a factor (Rezende and Mohamed, 2015, table 1).

WIDTHS = (2, 8, 32)  # M of the continuous flow, K of the planar one
ITERATIONS = {"cnf": 10_000, "hyper": 10_000, "gated": 10_000, "planar": 500_000}
RATES = {  # at the start; they fall to zero
    "cnf": (1e-2, 2e-2),
    "hyper": (5e-3,),
    "gated": (5e-3,),
    "planar": (1e-4, 1e-3),
}
BATCH = 512
CHUNK = 10_000  # iterations of the planar flow in one call
EDGE = 4.0  # beyond, a wall keeps mass inside: two of the energies do not


def wave(z):
    return jnp.sin(0.5 * math.pi * z[0])


def wall(z):
    """Return an energy that rises beyond the edge."""
    return 0.5 * jnp.sum((jnp.maximum(jnp.abs(z) - EDGE, 0.0) / 0.4) ** 2)


def ring(z):
    """Return the first energy: two modes on a ring."""
    bumps = jnp.logaddexp(-0.5 * ((z[0] - 2) / 0.6) ** 2, -0.5 * ((z[0] + 2) / 0.6) ** 2)
    return 0.5 * ((jnp.linalg.norm(z) - 2) / 0.4) ** 2 - bumps + wall(z)


def sine(z):
    """Return the second energy: a sine."""
    return 0.5 * ((z[1] - wave(z)) / 0.4) ** 2 + wall(z)


def fork(z):
    """Return the third energy: a sine that splits."""
    split = 3.0 * jnp.exp(-0.5 * ((z[0] - 1) / 0.6) ** 2)
    both = jnp.logaddexp(-0.5 * ((z[1] - wave(z)) / 0.35) ** 2, -0.5 * ((z[1] - wave(z) + split) / 0.35) ** 2)
    return -both + wall(z)


ENERGIES = {"ring": ring, "sine": sine, "fork": fork}


def log_factor(energy: Callable, points: int = 1200, extent: float = 7.0) -> float:
    """Return the logarithm of the integral of `exp(-energy)`, by the trapezoidal rule."""
    axis = jnp.linspace(-extent, extent, points)
    row = lambda y: jax.nn.logsumexp(-jax.vmap(lambda x: energy(jnp.stack([x, y])))(axis))  # noqa: E731
    return float(jax.nn.logsumexp(lax.map(row, axis)) + 2 * math.log(2 * extent / (points - 1)))


def drawn(model, key: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Return samples of a flow and their log-densities, of a continuous one with common steps."""
    options = {"common_steps": True} if isinstance(model, nj.nn.CNF) else {}
    return model.sample_and_log_prob(key, (count,), **options)


class Matching(eqx.Module):
    """The divergence of a flow from a density, up to the logarithm of its factor."""

    energy: Callable

    def __call__(self, model, data, key) -> jax.Array:
        """Return the mean of `log q + energy` over samples of the flow."""
        xs, log_q = drawn(model, key, BATCH)
        return jnp.mean(log_q + jax.vmap(self.energy)(xs))


FIELDS = {  # of `width` units, whose weights change with time in the first two
    "cnf": lambda width, key: nj.nn.Galerkin(nj.nn.PlanarField(2, width, key=key, gate=False)),
    "hyper": lambda width, key: nj.nn.HyperField(2, width, key=key),
    "gated": lambda width, key: nj.nn.PlanarField(2, width, key=key),
}


def continuous(kind: str, energy: Callable, width: int, rate: float, run: str, iterations: int):
    """Train a continuous flow of planar units by Adam; return it and its losses."""
    node = nj.NeuralODE(FIELDS[kind](width, jax.random.key(0)), steps=nj.Adaptive(1e-5, 1e-5), max_steps=256)
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, iterations))
    fitted = nj.fit(
        nj.nn.CNF(node, 2), Matching(energy), jnp.zeros(1), optimizer, updates=iterations,
        key=jax.random.key(1), checkpoint=storage.checkpoint_of("matching", run), every=1000, resume=True, progress=run,
    )  # fmt: skip
    return fitted.model, fitted.losses


def planar(energy: Callable, layers: int, rate: float, run: str, iterations: int):
    """Train a planar flow by RMSprop in chunks; return it and its losses, one for every hundredth iteration."""
    loss = Matching(energy)
    optimizer = optax.rmsprop(optax.cosine_decay_schedule(rate, iterations), momentum=0.9)
    arrays, static = eqx.partition(nj.nn.PlanarFlow(2, layers, key=jax.random.key(0)), eqx.is_array)

    def update(carry, key):
        arrays, state = carry
        value, slope = jax.value_and_grad(lambda arrays: loss(eqx.combine(arrays, static), None, key))(arrays)
        steps, moved = optimizer.update(slope, state, arrays)
        fine = jnp.isfinite(value) & tree.all_finite(slope)
        after = (optax.apply_updates(arrays, steps), moved)
        return jax.tree.map(lambda new, old: jnp.where(fine, new, old), after, carry), value

    @jax.jit
    def chunk(carry, key):
        carry, values = lax.scan(update, carry, jax.random.split(key, CHUNK))
        return carry, values[::100]

    carry, losses = (arrays, optimizer.init(arrays)), []
    for i in range(iterations // CHUNK):
        carry, values = chunk(carry, jax.random.fold_in(jax.random.key(1), i))
        losses.append(values)
        print(f"{run}: {(i + 1) * CHUNK:,} of {iterations:,}, loss {float(values[-1]):.4f}", flush=True)
    return eqx.combine(carry[0], static), jnp.concatenate(losses)


TRAINED = {"planar": planar, **{kind: functools.partial(continuous, kind) for kind in FIELDS}}


def matched(kind: str, energy: Callable, width: int, run: str, iterations: int):
    """Train with each rate; return the flow with the smaller losses at its end, and its losses."""
    found = [TRAINED[kind](energy, width, rate, f"{run}-{rate:g}", iterations) for rate in RATES[kind]]
    return min(found, key=lambda each: float(jnp.nanmedian(each[1][-len(each[1]) // 10 :])))


def divergence(model, energy: Callable, batches: int = 50, count: int = 20_000) -> tuple[float, float]:
    """Return KL(q || p) as a mean over samples of the flow, a million by default, and its standard error."""
    draw = eqx.filter_jit(lambda model, key: model.sample_and_log_prob(key, (count,)))
    found = (draw(model, jax.random.key(1000 + i)) for i in range(batches))
    gaps = np.concatenate([log_q + jax.vmap(energy)(xs) for xs, log_q in found]).astype(float) + log_factor(energy)
    return float(np.mean(gaps)), float(np.std(gaps) / len(gaps) ** 0.5)


def match(name: str, kind: str, width: int, run: str, iterations: int) -> dict:
    """Train one flow and find how far it is from the density."""
    begin, energy = time.process_time(), ENERGIES[name]
    model, losses = matched(kind, energy, width, run, iterations)
    seconds = time.process_time() - begin
    samples = eqx.filter_jit(lambda model, key: model.sample(key, (2000,)))(model, jax.random.key(1000))
    stride, factor = max(1, len(losses) // 200), log_factor(energy)
    kl, error = divergence(model, energy)
    return {
        "energy": name, "kind": kind, "width": width, "iterations": iterations, "kl": kl, "kl_error": error,
        "losses": [float(x) + factor for x in losses[::stride]],
        "samples": np.round(np.asarray(samples, float), 2).tolist(), "seconds": seconds,
    }  # fmt: skip


def matching() -> None:
    """Run what is not stored of the density matching."""
    for name in ENERGIES:
        for width in WIDTHS:
            for kind, iterations in ITERATIONS.items():
                run = f"{name}-{kind}-{width}"
                storage.kept("matching", run, functools.partial(match, name, kind, width, run, iterations))


# Maximum likelihood.

DENSITIES = {"circles": nj.datasets.Circles(), "moons": nj.datasets.Moons()}
UPDATES, POINTS, RATE = 5000, 512, 5e-3
CHEAP_UPDATES = 100_000  # of flow matching, which takes about the time of the others for as many
MARKS = 20  # places in a training at which the density is compared with the entropy
PARTS = (0.05, 0.2, 0.4, 0.6, 0.8, 1.0)  # of the way from the base, for snapshots
EXTENT, GRID = 3.0, 50  # of the plane on which a density is stored


class Likelihood(eqx.Module):
    """The loss of maximum likelihood, on new points for each update."""

    density: nj.datasets.Circles | nj.datasets.Moons

    def __call__(self, model, data, key):
        """Return what `nj.train.nll` does of new points."""
        first, second = jax.random.split(key)
        common = isinstance(model, nj.nn.CNF)
        return nj.train.nll(model, self.density.sample(first, (POINTS,)), second, common_steps=common)


class Matched(eqx.Module):
    """The loss of flow matching, on new points for each update."""

    density: nj.datasets.Circles | nj.datasets.Moons

    def __call__(self, model, data, key):
        """Return what `nj.train.flow_matching` does of new points."""
        first, second = jax.random.split(key)
        return nj.train.flow_matching(model, self.density.sample(first, (POINTS,)), second)


def cnf(field, **options) -> nj.nn.CNF:
    """Return a continuous flow."""
    return nj.nn.CNF(nj.NeuralODE(field, steps=nj.Adaptive(1e-4, 1e-4), max_steps=256), 2, **options)


def models() -> dict:
    """Return a flow and its loss by name."""
    keys = jax.random.split(jax.random.key(0), 5)
    squash = nj.nn.ConcatSquashField(2, (64, 64, 64), key=keys[0])
    return {
        "concat-squash": (cnf(squash), Likelihood),
        "planar field, 64 units": (cnf(nj.nn.PlanarField(2, 64, key=keys[1])), Likelihood),
        "concat-squash, Hutchinson": (cnf(squash, trace=nj.nn.Hutchinson()), Likelihood),
        "concat-squash, flow matching": (cnf(squash), Matched),
        "planar flow, 64 layers": (nj.nn.PlanarFlow(2, 64, key=keys[2], invert=True), Likelihood),
    }


def likely(name: str, kind: str, run: str) -> dict:
    """Train one flow on points of a density, and compare its log-density with the entropy."""
    density, (model, loss) = DENSITIES[name], models()[kind]
    begin, marks, updates = time.process_time(), [], CHEAP_UPDATES if loss is Matched else UPDATES
    test = density.sample(jax.random.key(7), (10_000,))
    exact = cnf(model.ode.field) if isinstance(model, nj.nn.CNF) else model

    def nats(model):
        used = with_field(exact, model) if isinstance(model, nj.nn.CNF) else model
        return -jnp.mean(jax.vmap(used.log_prob)(test))

    nats, spent = eqx.filter_jit(nats), [0.0]

    def look(update):
        if update.number % max(1, updates // MARKS) == 0:
            began = time.process_time()
            value = float(nats(update.model))
            spent[0] += time.process_time() - began
            marks.append([update.number, time.process_time() - begin - spent[0], value])

    half = updates // 2  # with the whole rate: one that falls from the start leaves the rings of the circles unresolved
    rate = optax.join_schedules([optax.constant_schedule(RATE), optax.cosine_decay_schedule(RATE, half)], [half])
    fitted = nj.fit(
        model, loss(density), jnp.zeros(1), optax.adam(rate), updates=updates, key=jax.random.key(3), callback=look,
        progress=run,
    )  # fmt: skip
    result = {
        "density": name, "kind": kind, "updates": updates, "entropy": density.entropy(),
        "nats": float(nats(fitted.model)), "marks": marks, "seconds": time.process_time() - begin,
    }  # fmt: skip
    shown = with_field(exact, fitted.model) if isinstance(model, nj.nn.CNF) else fitted.model
    return result | (on_the_way(shown) if kind == "concat-squash" else {"planes": [on_plane(shown)]})


def with_field(flow: nj.nn.CNF, other: nj.nn.CNF) -> nj.nn.CNF:
    """Return a flow with the field of another."""
    return eqx.tree_at(lambda flow: flow.ode.field, flow, other.ode.field)


def on_plane(flow) -> list[float]:
    """Return the log-density on a grid, row by row."""
    axis = jnp.linspace(-EXTENT, EXTENT, GRID)
    points = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    values = eqx.filter_jit(lambda flow, points: jax.vmap(flow.log_prob)(points))(flow, points)
    return np.round(np.asarray(values, float), 2).tolist()


def on_the_way(flow: nj.nn.CNF) -> dict:
    """Return samples, and the log-density on a grid, at parts of the way from the base."""
    ends = jnp.asarray(PARTS)
    path = eqx.filter_jit(lambda flow, z: jax.vmap(lambda z: flow.ode.trajectory(z, ends))(z))
    samples = path(flow, jax.random.normal(jax.random.key(9), (1000, 2)))
    parts = [on_plane(eqx.tree_at(lambda flow: flow.ode.t1, flow, end)) for end in PARTS]
    return {"path": np.round(np.asarray(samples, float), 2).tolist(), "planes": parts}


def likelihood() -> None:
    """Run what is not stored of the maximum likelihood."""
    for name in DENSITIES:
        for kind in models():
            run = f"{name}-{kind.replace(', ', '-').replace(' ', '_')}"
            storage.kept("likelihood", run, functools.partial(likely, name, kind, run))
