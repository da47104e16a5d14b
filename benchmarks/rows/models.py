"""Gradients of whole models in their weights: flows, a latent ODE and the block of an ODE-Net, the same nets for all.

JAX packages share the modules of `nj.nn` for all but the solve. PyTorch has the same layers with the same weights
(`torch_models`), the trace of a flow by `torch.autograd` as in the examples of torchdiffeq, and one step size for all.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.experimental import ode

import node_jax as nj
from benchmarks import peers
from benchmarks.measure import Floor, Row
from benchmarks.peers import diffrax
from benchmarks.report import ITS_FLOOR
from benchmarks.rows import Packages, bounds

KEY = jax.random.key(0)
POINTS, SERIES, SEEN, IMAGES = 512, 128, 30, 64
STEPS = 256  # most steps of all
FLOW, SERIES_TARGET, NET = (
    {"diffrax": 0.6, "torchdiffeq": 0.5},
    {"torchdiffeq": 0.7},
    {"diffrax": 0.7, ITS_FLOOR: 1.15},
)


class Model(NamedTuple):
    """A model split into weights, which are given, and the rest."""

    weights: Any
    rest: Any

    def __call__(self, weights):
        """Return the model with these weights."""
        return eqx.combine(weights, self.rest)


def split(model, dtype) -> Model:
    """Split a model, its weights cast."""
    weights, rest = eqx.partition(model, eqx.is_inexact_array)
    return Model(jax.tree.map(lambda x: x.astype(dtype), weights), rest)


def by_diffrax(field: Callable, z0, t0, t1, rtol: float, ts=None):
    """Solve by diffrax at its defaults."""
    saveat = diffrax.SaveAt(t1=True) if ts is None else diffrax.SaveAt(ts=ts)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, z, args: field(z, t)), diffrax.Tsit5(), t0, t1, None, z0,
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=rtol), saveat=saveat, max_steps=STEPS, throw=False,
    )  # fmt: skip
    return solution.ys if ts is not None else jax.tree.map(lambda x: x[-1], solution.ys)


# Flows.


def with_trace(field: Callable) -> Callable:
    """Return the field of a point and minus the change of its log-density."""

    def both(state, t):
        return field(state[0], t, None), nj.nn.Exact().rate(nj.nn.integrals.Bound(field, None), state[0], t, ())

    return both


def log_normal(z):
    """Return the log-density of the standard normal distribution."""
    return -0.5 * jnp.sum(z**2, -1) - 0.5 * z.shape[-1] * math.log(2 * math.pi)


def flow_rows(name: str, field, t1: float, dtype, packages: Packages, torch_maker: str):
    """Yield the gradient of the likelihood of a flow: all points with common steps, or each with its own."""
    model = split(field, dtype)
    points = nj.datasets.circles(POINTS, key=KEY).astype(dtype)

    def flow(weights, **options):
        node = nj.NeuralODE(model(weights), 0.0, t1, steps=nj.Adaptive(1e-5, 1e-5), max_steps=STEPS, **options)
        return nj.nn.CNF(node, 2)

    def common(points, weights, **options):
        return -jnp.mean(flow(weights, **options).solve_batch(points).log_prob)

    def own(points, weights):
        return -jnp.mean(jax.vmap(flow(weights).log_prob)(points))

    def diffrax_own(points, weights):
        def one(x):
            z, integral = by_diffrax(with_trace(model(weights)), (x, jnp.zeros((), dtype)), t1, 0.0, 1e-5)
            return log_normal(z) + integral

        return -jnp.mean(jax.vmap(one)(points))

    def diffrax_common(points, weights):
        both = jax.vmap(with_trace(model(weights)), (0, None))
        zs, integrals = by_diffrax(both, (points, jnp.zeros(POINTS, dtype)), t1, 0.0, 1e-5)
        return -jnp.mean(log_normal(zs) + integrals)

    def odeint(points, weights):
        def backwards(state, s, weights):
            both = jax.vmap(with_trace(model(weights)), (0, None))
            return jax.tree.map(jnp.negative, both(state, -s))

        start = (points, jnp.zeros(POINTS, dtype))
        times = jnp.array([-t1, 0.0], dtype)
        zs, integrals = ode.odeint(backwards, start, times, weights, rtol=1e-5, atol=1e-5)
        return -jnp.mean(log_normal(zs[-1]) + integrals[-1])

    runs = {
        "node_jax": common,
        "node_jax own steps": own,
        "node_jax Backsolve dopri5": lambda x, w: common(x, w, adjoint=nj.Backsolve(), method=nj.dopri5),
        "diffrax": diffrax_own,
        "diffrax common steps": diffrax_common,
        "jax odeint": odeint,
    }

    def both(state, weights):
        return jax.vmap(with_trace(model(weights)), (0, None))(state, jnp.asarray(0.5 * t1, dtype))

    floor = Floor(
        both, lambda points, weights: counted(flow(weights).solve_batch(points).solution.stats), True,
        lambda points, weights: ((points, jnp.zeros(POINTS, dtype)), weights),
    )  # fmt: skip
    yield row(name, runs, (points, model.weights), dtype, packages, (torch_maker, t1), FLOW, floor)


def counted(stats) -> tuple[jax.Array, jax.Array]:
    """Return the evaluations of a solve, and those of the way back, of the longest lane."""
    return jnp.max(stats.nfe), jnp.max(stats.accepted) * nj.tsit5.replay_evaluations


# Series.


def latent_rows(dtype, packages: Packages):
    """Yield the gradient of the evidence lower bound: with the same times for all series, their own, and a mask."""
    whole = nj.nn.LatentODE.create(2, 4, 20, key=KEY)
    model = split(eqx.tree_at(lambda model: model.log_noise, whole, None), dtype)  # the noise is 0.1 for all
    data = nj.datasets.spirals(SERIES, points=SEEN, key=KEY)
    noise = jax.random.normal(KEY, (SERIES, 4), dtype)
    every = jnp.ones(data.ys.shape, bool)
    some = jax.random.bernoulli(KEY, 0.7, data.ys.shape)
    some = some.at[..., 0].set(some[..., 0] | ~some[..., 1])  # each point has a value, or torch would have to skip it
    for name, ts, mask in (
        ("latent ODE, 128 spirals at the same 30 times", jnp.broadcast_to(data.ts[0], data.ts.shape), every),
        ("latent ODE, 128 spirals each at its own 30 times", data.ts, every),
        ("latent ODE, 128 spirals each at its own 30 times, values missing", data.ts, some),
    ):
        args = ((ts.astype(dtype), (data.ys / 5).astype(dtype), mask, noise), model.weights)
        runs = {"node_jax": latent(model, latent_ours), "diffrax": latent(model, latent_diffrax)}
        yield row(name, runs, args, dtype, packages, ("latent", 0.0), SERIES_TARGET, latent_floor(model, dtype))


def latent(model: Model, solve: Callable):
    """Return the loss with a way to solve the latent path."""

    def loss(data, weights):
        whole = model(weights)

        def one(ts, ys, mask, noise):
            mean, log_std = whole.encode(ts, ys, mask)
            zs = solve(whole.ode.field, mean + jnp.exp(log_std) * noise, ts)
            errors = jnp.where(mask, ys - jax.vmap(whole.decoder)(zs), 0.0) / 0.1
            kl = 0.5 * jnp.sum(mean**2 + jnp.exp(2 * log_std) - 1.0 - 2 * log_std)
            return 0.5 * jnp.sum(errors**2) + kl

        return jnp.mean(jax.vmap(one)(*data))

    return loss


def latent_floor(model: Model, dtype) -> Floor:
    """Return the floor: the evaluations of the longest lane, and the gradient of encoder and decoder alone."""
    field = split(model(model.weights).ode.field, dtype)

    def start(data, weights):
        ts, ys, mask, noise = data
        mean, log_std = jax.vmap(model(weights).encode)(ts, ys, mask)
        return mean + jnp.exp(log_std) * noise, field.weights

    def slopes(zs, weights):
        return jax.vmap(lambda z: field(weights)(z, 0.0, None))(zs)

    def evaluations(data, weights):
        zs, _ = start(data, weights)
        return counted(jax.vmap(lambda z, ts: latent_solution(field(field.weights), z, ts).stats)(zs, data[0]))

    still = latent(model, lambda field, z0, ts: jnp.broadcast_to(z0, (len(ts), *z0.shape)))
    return Floor(slopes, evaluations, True, start, jax.grad(still, 1))


def latent_solution(field, z0, ts) -> nj.Solution:
    """Return the solution of the latent path by node_jax."""
    steps = nj.Adaptive(1e-4, 1e-4)
    return nj.odesolve(field, z0, 0.0, ts[-1], steps=steps, max_steps=STEPS, save=nj.SaveAt(ts))


def latent_ours(field, z0, ts):
    """Return the latent path by node_jax."""
    return latent_solution(field, z0, ts).zs


def latent_diffrax(field, z0, ts):
    """Return the latent path by diffrax."""
    return by_diffrax(field, z0, jnp.zeros((), ts.dtype), ts[-1], 1e-4, ts)


# Images.


def image_rows(dtype, packages: Packages):
    """Yield the gradient of the sum of squares behind the block of an ODE-Net."""
    model = split(nj.nn.ConvField(64, key=KEY), dtype)
    images = jax.random.normal(KEY, (IMAGES, 64, 6, 6), dtype)
    steps = nj.Adaptive(1e-3, 1e-3)

    def node(weights) -> nj.NeuralODE:
        return nj.NeuralODE(model(weights), steps=steps, max_steps=STEPS)

    def ours(images, weights):
        return jnp.sum(jax.vmap(node(weights))(images) ** 2)

    def theirs(images, weights):
        return jnp.sum(jax.vmap(lambda z: by_diffrax(model(weights), z, 0.0, 1.0, 1e-3))(images) ** 2)

    floor = Floor(
        lambda images, weights: jax.vmap(lambda z: model(weights)(z, 0.5, None))(images),
        lambda images, weights: counted(jax.vmap(node(weights).solve)(images).stats), True,
    )  # fmt: skip
    runs, args = {"node_jax": ours, "diffrax": theirs}, (images, model.weights)
    yield row("ODE-Net block, 64 images of 64 channels", runs, args, dtype, packages, ("block", 1.0), NET, floor)


def row(
    name: str, losses: dict, args: tuple, dtype, packages: Packages, in_torch: tuple[str, float], target: dict,
    floor: Floor,
) -> Row:  # fmt: skip
    """Return the row of gradients in the weights; `in_torch` is the model there, and its other end."""
    runs = {package: jax.grad(loss, 1) for package, loss in losses.items() if package.split()[0] not in peers.MISSING}
    torch_models = peers.optional("benchmarks.torch_models") if "torchdiffeq" in packages.gradient else None
    if torch_models is not None:
        runs |= torch_models.runs(*in_torch)
    return Row(f"gradient, {name}", runs, args, target, 10 * bounds(dtype)[1], floor=floor)


def rows(dtype, packages: Packages):
    """Yield the rows of models; in float32, which they are trained in."""
    if dtype != jnp.float32:
        return
    hyper = nj.nn.HyperField(2, 64, key=KEY)
    squash = nj.nn.ConcatSquashField(2, (64, 64), key=KEY)
    yield from flow_rows("flow of a hypernetwork, 512 points", hyper, 10.0, dtype, packages, "hyper")
    yield from flow_rows("flow of concat-squash layers, 512 points", squash, 0.5, dtype, packages, "squash")
    yield from latent_rows(dtype, packages)
    yield from image_rows(dtype, packages)
