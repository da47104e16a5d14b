"""Models of hare and lynx, and how they are fitted to the record of the Hudson's Bay Company.

The split was fixed beforehand, and no choice was made by the errors in the held-out years.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from node_jax import tree
from node_jax.control import Adaptive
from node_jax.datasets import hare_lynx
from node_jax.nn import MLPField, NeuralODE
from node_jax.save import SaveAt, SaveSteps
from node_jax.solution import Solution
from node_jax.train import Fit, fit, squared_error

TRAINED = 15  # years, 1900 to 1914; 1915 to 1920 are held out
FIRST_STAGE = 8  # years that the first quarter of the updates sees: all at once, some seeds stay at the mean
MEMBERS = 8  # seeds of the network, and starts of the Lotka-Volterra fit
STEPS = Adaptive(rtol=1e-4, atol=1e-5)
FINE = Adaptive(rtol=1e-10, atol=1e-12)
FIRST_RATES = (0.5, 0.02, 0.8, 0.02)  # a year; the second and fourth for each thousand pelts


class Record(NamedTuple):
    """The data: years since 1900 `(21,)`, and logarithms of thousands of hares and lynxes `(21, 2)`."""

    ts: jax.Array
    logs: jax.Array


class LogField(eqx.Module):
    """A network as field of the logarithms of two populations, in units of their mean and spread."""

    net: MLPField
    mean: tuple[float, ...] = eqx.field(static=True)
    spread: tuple[float, ...] = eqx.field(static=True)

    def __call__(self, z: jax.Array, t: Any, theta: Any = None) -> jax.Array:
        """Return the growth rates at log populations `z`, a year."""
        units = list(zip(self.mean, self.spread, strict=True))
        scaled = jnp.stack([(x - mean) / spread for x, (mean, spread) in zip(z, units, strict=True)])
        slopes = self.net(scaled, t)
        return jnp.stack([k * spread for k, (_, spread) in zip(slopes, units, strict=True)])


def lotka_volterra(z: jax.Array, t: Any, log_rates: jax.Array) -> jax.Array:
    """Return the growth rates of hare and lynx, by their equations for the logarithms."""
    growth, predation, death, gain = jnp.exp(log_rates)
    hare, lynx = jnp.exp(z)
    return jnp.stack([growth - predation * lynx, gain * hare - death])


class Population(eqx.Module):
    """Dynamics and the state in 1900, both learned."""

    ode: NeuralODE
    z0: jax.Array

    def solve(self, ts: Any, **options: Any) -> Solution:
        """Solve from 1900 to the last of `ts`."""
        return self.ode.solve(self.z0, **{"t1": ts[-1], "save": SaveAt(ts), **options})


def load() -> Record:
    """Read the record."""
    record = hare_lynx()
    return Record(jnp.asarray(record.years - 1900.0), jnp.log(jnp.stack([record.hare, record.lynx], axis=1)))


def networks(record: Record, key: jax.Array) -> Population:
    """Make one network for each member."""
    seen = np.asarray(record.logs[:TRAINED])
    mean, spread = (tuple(x.tolist()) for x in (seen.mean(axis=0), seen.std(axis=0)))

    def make(key):
        field = LogField(MLPField(2, 16, 2, key=key), mean, spread)
        return Population(NeuralODE(field, steps=STEPS, max_steps=256), record.logs[0])

    return eqx.filter_jit(eqx.filter_vmap(make))(jax.random.split(key, MEMBERS))


def classical(record: Record, key: jax.Array) -> Population:
    """Make one Lotka-Volterra system for each member, rates spread by 30 % around the usual ones."""

    def make(key):
        log_rates = jnp.log(jnp.array(FIRST_RATES)) + 0.3 * jax.random.normal(key, (4,))
        return Population(NeuralODE(lotka_volterra, theta=log_rates, steps=STEPS, max_steps=256), record.logs[0])

    return eqx.filter_jit(eqx.filter_vmap(make))(jax.random.split(key, MEMBERS))


def loss(model: Population, data: tuple, key: jax.Array) -> Any:
    """Mean squared error of the logarithms in the years of positive weight."""
    ts, logs, weights = data
    return squared_error(model.solve(ts, throw=False), logs, weights)


def train(
    name: str, models: Population, record: Record, updates: int, key: jax.Array, folder: Path, resume: bool
) -> list[Fit]:
    """Train every member, first on the first years and then on all; return the `Fit` of both stages."""
    ts, logs = record.ts[:TRAINED], record.logs[:TRAINED]
    first = max(1, updates // 4)
    stages = []
    for stage, (years, count) in enumerate([(FIRST_STAGE, first), (TRAINED, max(1, updates - first))]):
        weights = (jnp.arange(TRAINED) < years).astype(logs.dtype)
        run = fit(
            models,
            loss,
            (ts, logs, weights),
            _optimizer(updates),
            updates=count,
            key=jax.random.fold_in(key, stage),
            members=MEMBERS,
            checkpoint=folder / f"{name}-{stage + 1}-of-{updates}.checkpoint",
            resume=resume,
            progress=f"{name}, 1900 to {1899 + years}",
        )
        models = run.model
        stages.append(run)
    return stages


@functools.cache
def _optimizer(updates: int) -> optax.GradientTransformation:
    """Adam with a step that falls to nothing; one object for each length, so that nothing recompiles."""
    return optax.adam(optax.cosine_decay_schedule(1e-2, max(1, updates - updates // 4)))


class Forecast(NamedTuple):
    """What the members say: log populations `(members, n, 2)` at times `(n,)`, NaN where a solve failed."""

    ts: np.ndarray
    members: np.ndarray

    @property
    def median(self) -> np.ndarray:
        """Median over the members that succeeded."""
        return np.nanmedian(self.members, axis=0)


@eqx.filter_jit
def _solve_all(models: Population, ts: jax.Array) -> jax.Array:
    return eqx.filter_vmap(lambda model: model.solve(ts).zs)(models)


def forecast(models: Population, ts: Any) -> Forecast:
    """Solve every member from 1900 on."""
    return Forecast(np.asarray(ts), np.asarray(_solve_all(models, jnp.asarray(ts))))


def member(models: Population, i: int) -> Population:
    """Take one member."""
    return jax.tree.map(lambda x: x[i] if eqx.is_array(x) else x, models)


def rmse(predicted: Any, logs: Any) -> dict[str, float]:
    """Root mean squares of the error in the years seen and held out."""
    error = np.asarray(predicted) - np.asarray(logs)
    return {
        "train": float(np.sqrt(np.mean(error[:TRAINED] ** 2))),
        "held_out": float(np.sqrt(np.mean(error[TRAINED:] ** 2))),
    }


def last_cycle(record: Record) -> tuple[int, np.ndarray]:
    """Repeat the last cycle seen, its length being that between the last two peaks of the hare seen."""
    logs = np.asarray(record.logs)
    hare = logs[:TRAINED, 0]
    peaks = [i for i in range(1, TRAINED - 1) if hare[i - 1] < hare[i] > hare[i + 1]]
    period = peaks[-1] - peaks[-2]
    repeated = logs.copy()
    repeated[:period] = np.nan  # nothing to repeat yet
    for i in range(period, len(logs)):
        repeated[i] = logs[i - period] if i < TRAINED else logs[TRAINED - period + (i - TRAINED) % period]
    return period, repeated


@eqx.filter_jit
def _losses(models: Population, flat: jax.Array, data: tuple, steps: Adaptive) -> tuple[jax.Array, jax.Array]:
    """Loss and gradient of each member, at weights `flat` `(members, n)`."""

    def one(model, flat):
        params, rest = eqx.partition(model, eqx.is_inexact_array)
        _, back = ravel_pytree(params)

        def value(flat):
            sol = eqx.combine(back(flat), rest).solve(data[0], steps=steps, throw=False)
            return squared_error(sol, *data[1:])[0]

        return jax.value_and_grad(value)(flat)

    return eqx.filter_vmap(one)(models, flat)


def check_gradient(models: Population, record: Record, key: jax.Array) -> dict[str, Any]:
    """Compare the gradient of training with central differences of solves a million times as accurate.

    Each member is compared along its gradient plus a random direction as long.
    """
    data = (record.ts[:TRAINED], record.logs[:TRAINED], jnp.ones(TRAINED))
    coarse, fine = (jax.tree.map(jnp.asarray, steps) for steps in (STEPS, FINE))  # arrays: one compilation
    flat = jax.vmap(lambda params: ravel_pytree(params)[0])(eqx.filter(models, eqx.is_inexact_array))
    _, gradients = _losses(models, flat, data, coarse)
    noise = jax.random.normal(key, flat.shape)
    directions = sum(x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (gradients, noise))
    h = 1e-5
    plus, minus = (_losses(models, flat + s * h * directions, data, fine)[0] for s in (1, -1))
    gradient = np.sum(np.asarray(gradients * directions), axis=1)
    differences = np.asarray((plus - minus) / (2 * h))
    error = np.abs(gradient - differences) / np.abs(differences)
    return {
        "slope_by_gradient": gradient.tolist(),
        "slope_by_differences": differences.tolist(),
        "relative_error": error.tolist(),
        "worst_relative_error": float(np.max(error)),
    }


class Visits(NamedTuple):
    """States at the ends of accepted steps `(n, 2)`, and where the field was evaluated `(m, 2)`."""

    steps: np.ndarray
    evaluations: np.ndarray


def visits(model: Population, t1: float) -> Visits:
    """Solve one member, and return the stages of its accepted steps."""
    sol = model.ode.solve(model.z0, t1=t1, save=SaveSteps(256))
    count = int(sol.count)
    ends = jnp.concatenate([jnp.zeros(1, sol.ts.dtype), sol.ts[:count]])
    states = jnp.concatenate([model.z0[None], sol.zs[:count]])
    method, field = model.ode.method, model.ode.field

    def stages(t, z, h):
        slopes = method.step(field, t, z, h, None, method.start(field, t, z, None)).dense
        return jnp.stack([tree.combine(z, h, row, slopes) for row in method.a])

    points = jax.jit(jax.vmap(stages))(ends[:-1], states[:-1], jnp.diff(ends))
    return Visits(np.asarray(states), np.asarray(points.reshape(-1, 2)))
