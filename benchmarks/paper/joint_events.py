"""A latent ODE of values and of when they are observed: one state gives the values and the intensity of the events."""

import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import node_jax as nj
from benchmarks.paper.events import (
    END,
    GRID,
    SEEDS,
    STEPS,
    rms,
    rounded,
    run_of,
    trained,
    trimmed,
)

CUT = 6.0  # a series is encoded up to here, and predicted beyond
TRAIN_SERIES, TEST_SERIES, SHOWN = 1000, 500, 4
JOINT_UPDATES, HEAD_UPDATES, JOINT_BATCH = 3000, 1000, 64
BASE = 2.0  # of the intensity, events per unit of time
NOISES = {1.0: SEEDS, 0.3: SEEDS[:1]}  # standard deviation of the values about their mean, and the seeds of its runs
LOW, HIGH = np.array([0.5, 0.8, 0.0]), np.array([1.5, 1.6, 2 * np.pi])  # amplitude, frequency, phase
LATENT, HIDDEN = 4, 32
DRAWS, PARTICLES = 100, 20_000
MODELS = ("joint", "values alone", "references")


def rate_of(p, t):
    """Return the intensity of events of a series with parameters `p`."""
    return BASE * jnp.exp(p[0] * jnp.cos(p[1] * t + p[2]))


def value_of(p, t):
    """Return the mean of what is observed at an event."""
    return p[0] * jnp.sin(p[1] * t + p[2])


def parameters_of(key: jax.Array, count: int) -> jax.Array:
    """Return amplitude, frequency and phase of series."""
    return jax.random.uniform(key, (count, 3), minval=LOW, maxval=HIGH)


class Series(NamedTuple):
    """Values at events: times `(n, m)`, values `(n, m, 1)`, mask `(n, m)`, and the parameters `(n, 3)` behind them."""

    ts: jax.Array
    ys: jax.Array
    mask: jax.Array
    parameters: jax.Array


def series_of(key: jax.Array, count: int, noise: float) -> Series:
    """Return simulated series."""
    keys = jax.random.split(key, 3)
    ps, bound = parameters_of(keys[0], count), BASE * float(np.exp(HIGH[0]))
    draw = lambda key, p: nj.datasets.poisson(  # noqa: E731
        functools.partial(rate_of, p), END, key, bound=bound, capacity=160)  # fmt: skip
    ts, mask = trimmed(jax.vmap(draw)(jax.random.split(keys[1], count), ps))
    ys = jax.vmap(value_of)(ps, ts) + noise * jax.random.normal(keys[2], ts.shape)
    return Series(ts, jnp.where(mask, ys, 0.0)[..., None], mask, ps)


class Joint(eqx.Module):
    """A latent ODE whose state is also that of a Poisson process."""

    latent: nj.nn.LatentODE
    intensity: Callable

    @property
    def process(self) -> nj.nn.PoissonProcess:
        """The process of the events."""
        return nj.nn.PoissonProcess(self.latent.ode, self.intensity)

    def encode(self, ts: jax.Array, ys: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return mean and logarithm of the standard deviation of the latent state, from what is before `CUT`."""
        return self.latent.encode(ts, ys, mask & (ts < CUT))

    def terms(self, ts: jax.Array, ys: jax.Array, mask: jax.Array, key: jax.Array) -> dict[str, jax.Array]:
        """Return the terms of the evidence lower bound of one series, from one solve."""
        mean, log_std = self.encode(ts, ys, mask)
        z0 = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)
        found = self.process.solve(ts, mask, z0=z0)
        means = jax.vmap(self.latent.decoder)(found.solution.filled().zs)
        logs = jax.scipy.stats.norm.logpdf(ys, means, self.latent.noise)
        kl = 0.5 * jnp.sum(mean**2 + jnp.exp(2 * log_std) - 1.0 - 2 * log_std)
        return {"values": jnp.sum(jnp.where(mask[:, None], logs, 0.0)), "events": found.log_prob, "kl": kl}


def joint_of(noise: float, seed: int) -> Joint:
    """Return an untrained model."""
    keys = jax.random.split(jax.random.key(seed + 20), 4)
    ode = nj.NeuralODE(nj.nn.MLPField(LATENT, HIDDEN, 1, key=keys[0]), 0.0, END, steps=STEPS, max_steps=256)
    encoder = nj.nn.GRUEncoder(1, HIDDEN, LATENT, key=keys[1])
    decoder = eqx.nn.MLP(LATENT, 1, 16, 1, jax.nn.tanh, key=keys[2])
    intensity = eqx.nn.MLP(LATENT, "scalar", 16, 1, jax.nn.tanh, jax.nn.softplus, key=keys[3])
    return Joint(nj.nn.LatentODE(encoder, ode, decoder, noise=noise, learn_noise=False), intensity)


def frozen(model: Joint) -> Joint:
    """Return a model of which the intensity alone is trained."""
    parts = lambda m: (m.latent.encoder, m.latent.ode.field, m.latent.decoder)  # noqa: E731
    return eqx.tree_at(parts, model, replace_fn=nj.nn.Frozen)


def minus_bound(model: Joint, batch: tuple, key: jax.Array, *, values: float = 1.0, events: float = 1.0):
    """Return minus the evidence lower bound a series, with weights of its two likelihoods."""
    ts, ys, mask = batch
    found = jax.vmap(model.terms)(ts, ys, mask, jax.random.split(key, len(ts)))
    means = {name: jnp.mean(x) for name, x in found.items()}
    total = means["kl"] - values * means["values"]
    return total - events * means["events"] if events else total, nj.train.Counts(), means


def joint_fit(train: Series, noise: float, seed: int, updates: tuple[int, int]) -> Joint:
    """Train both terms together."""
    model, run = joint_of(noise, seed), f"joint-{noise}-{seed}"
    return trained(model, minus_bound, train[:3], JOINT_BATCH, updates[0], seed, run)


def values_fit(train: Series, noise: float, seed: int, updates: tuple[int, int]) -> Joint:
    """Train without the events, then the intensity on the paths found."""
    first, second = (functools.partial(minus_bound, **x) for x in ({"events": 0.0}, {"values": 0.0}))
    model, run = joint_of(noise, seed), f"{noise}-{seed}"
    model = trained(model, first, train[:3], JOINT_BATCH, updates[0], seed, f"values-{run}")
    return trained(frozen(model), second, train[:3], JOINT_BATCH, updates[1], seed, f"head-{run}")


class Draws(NamedTuple):
    """What one series may be: draws with the logarithms of their weights, `(draws,)`.

    `at` are intensities at its events, `(draws, m)`; `later` the events expected behind `CUT`, `(draws,)`; `rates` and
    `values` are on the grid, `(draws, grid)`.
    """

    log_weights: jax.Array
    at: jax.Array
    later: jax.Array
    rates: jax.Array
    values: jax.Array


def of_model(model: Joint, ts, ys, mask, p, key) -> Draws:
    """Return draws from what a model infers."""
    mean, log_std = model.encode(ts, ys, mask)
    z0 = mean[None] + jnp.exp(log_std)[None] * jax.random.normal(key, (DRAWS, LATENT))

    def one(z0):
        path = model.latent.ode.trajectory(z0, GRID)
        later = model.process.expected_count(CUT, END, z0)
        rates, values = jax.vmap(model.intensity)(path), jax.vmap(model.latent.decoder)(path)[:, 0]
        return Draws(jnp.zeros(()), model.process.intensity_at(ts, z0), later, rates, values)

    return jax.vmap(one)(z0)


def of_parameters(ps: jax.Array, log_weights: jax.Array, ts: jax.Array) -> Draws:
    """Return draws with known parameters `(draws, 3)`."""
    rates, values, at = (jax.vmap(f, (0, None))(ps, x) for f, x in ((rate_of, GRID), (value_of, GRID), (rate_of, ts)))
    return Draws(log_weights, at, over(rates, GRID >= CUT), rates, values)


def over(rates: jax.Array, part: np.ndarray) -> jax.Array:
    """Return the integral of rates over a part of the grid, by the trapezoidal rule."""
    return jnp.trapezoid(rates[..., part], dx=float(GRID[1]))


def of_bayes(prior: tuple[jax.Array, Draws], noise: float, events: bool, ts, ys, mask, p, key) -> Draws:
    """Return draws of the prior, weighted by what is before `CUT`: with the true model, what can be inferred."""
    (ps, draws), seen = prior, mask & (ts < CUT)
    at = jax.vmap(rate_of, (0, None))(ps, ts)
    logs = jax.scipy.stats.norm.logpdf(ys.T, jax.vmap(value_of, (0, None))(ps, ts), noise)
    if events:
        logs = logs + jnp.log(at)
    past = jnp.sum(jnp.where(seen[None], logs, 0.0), axis=1)
    return draws._replace(at=at, log_weights=past - (over(draws.rates, GRID <= CUT) if events else 0.0))


def of_truth(ts, ys, mask, p, key) -> Draws:
    """Return the truth."""
    return of_parameters(p[None], jnp.zeros(1), ts)


def of_constant(rate: float, ts, ys, mask, p, key) -> Draws:
    """Return a constant intensity, and values of 0."""
    rates = jnp.full((1, len(GRID)), rate)
    return Draws(jnp.zeros(1), jnp.full((1, len(ts)), rate), over(rates, GRID >= CUT), rates, 0.0 * rates)


class Expected(NamedTuple):
    """What is expected of series: log-density of the events behind `CUT`; intensity and values on the grid; `draws`."""

    log_prob: jax.Array
    rates: jax.Array
    values: jax.Array
    draws: jax.Array


def expected(predict: Callable, test: Series) -> Expected:
    """Return what is expected of every series: its draws weighted, their number as if weights were equal."""

    def one(row):
        (ts, _, mask, _), key = row
        draws = predict(*row[0], key)
        later, logs = mask & (ts >= CUT), jax.nn.log_softmax(draws.log_weights)
        densities = jnp.sum(jnp.where(later[None], jnp.log(draws.at), 0.0), axis=1) - draws.later
        weights = jnp.exp(logs)
        log_prob = jax.nn.logsumexp(logs + densities)
        return Expected(log_prob, weights @ draws.rates, weights @ draws.values, 1.0 / jnp.sum(weights**2))

    keys = jax.random.split(jax.random.key(98), len(test.ts))
    return jax.jit(lambda test, keys: lax.map(one, (tuple(test), keys)))(test, keys)


def judged(predict: Callable, test: Series) -> dict:
    """Return numbers on test series, inside and beyond the window that is encoded, and a few series to show."""
    found, true = expected(predict, test), expected(of_truth, test)
    count = float(jnp.sum(test.mask & (test.ts >= CUT)))
    result = {
        "nats": float(jnp.sum(found.log_prob)) / count, "by_series": rounded(found.log_prob), "events": count,
        "draws": float(jnp.median(found.draws)), "draws_least": float(jnp.min(found.draws)),
        "rates": rounded(found.rates[:SHOWN]), "values": rounded(found.values[:SHOWN]),
    }  # fmt: skip
    for name, part in (("inside", GRID <= CUT), ("beyond", GRID >= CUT)):
        ours, exact = (np.asarray(x.rates[:, part], float) for x in (found, true))
        flat = np.ptp(ours) == 0.0
        result |= {
            f"correlation_{name}": None if flat else float(np.corrcoef(ours.ravel(), exact.ravel())[0, 1]),
            f"rate_{name}": rms(ours - exact), f"value_{name}": rms((found.values - true.values)[:, part]),
        }  # fmt: skip
    return result


def references(train: Series, test: Series, noise: float) -> dict:
    """Return the numbers of the truth, of what can be inferred with the true model, and of a constant intensity."""
    rate = float(jnp.sum(train.mask)) / (len(train.ts) * END)
    ps = parameters_of(jax.random.key(99), PARTICLES)
    prior = ps, of_parameters(ps, jnp.zeros(PARTICLES), jnp.zeros(1))
    ways = {
        "truth": of_truth, "bayes": functools.partial(of_bayes, prior, noise, True),
        "bayes, values alone": functools.partial(of_bayes, prior, noise, False),
        "constant": functools.partial(of_constant, rate),
    }  # fmt: skip
    some = zip(test.ts[:SHOWN], test.ys[:SHOWN], test.mask[:SHOWN], strict=True)
    shown = [{"ts": rounded(ts[mask]), "ys": rounded(ys[mask, 0])} for ts, ys, mask in some]
    return {"ways": {name: judged(way, test) for name, way in ways.items()}, "shown": shown, "constant": rate}


FITS = {"joint": joint_fit, "values alone": values_fit}


def run_joint(model: str, noise: float, seed: int, updates: tuple[int, int] = (JOINT_UPDATES, HEAD_UPDATES)) -> dict:
    """Train and test one model, or measure what there is to compare with."""
    begin = time.process_time()
    first, second = jax.random.split(jax.random.key(seed + 1000))
    train, test = series_of(first, TRAIN_SERIES, noise), series_of(second, TEST_SERIES, noise)
    if model == "references":
        result = references(train, test, noise)
    else:
        result = judged(functools.partial(of_model, FITS[model](train, noise, seed, updates)), test)
    about = {"model": model, "noise": noise, "seed": seed, "updates": updates}
    return {**about, "train": TRAIN_SERIES, "test": TEST_SERIES, **result, "seconds": time.process_time() - begin}


def jobs() -> dict[str, Callable]:
    """Return the runs by name."""
    return {
        run_of(name, noise, seed): functools.partial(run_joint, name, noise, seed)
        for noise, seeds in NOISES.items()
        for seed in seeds
        for name in MODELS
    }
