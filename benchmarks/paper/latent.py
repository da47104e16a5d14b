"""Spirals at irregular times: a latent ODE against recurrent networks (section 5 and table 2 of the paper)."""

import functools
import time
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import node_jax as nj
from benchmarks.paper import storage

POINTS = (30, 50, 100)
SEEDS = {0.1: (0, 1, 2), 0.3: (0,)}  # of each noise
MODELS = ("latent", "rnn with gaps", "rnn")
RATES = (3e-3, 1e-2, 3e-2)  # learning rates of the baselines
RATE, WARM = 2e-2, 300  # of the latent ODE: its learning rate, and updates on which that rises
STARTS = 3  # of the latent ODE
UPDATES, BATCH = 20_000, 64  # of each start, and of each learning rate
SHORTEST, LONGEST = 0.2, 1.2  # part of a series that the encoder reads in training; all of it where above 1
WINDOW = 100  # times of the window
LIKELIHOOD = 0.6  # standard deviation of the values in the model
SCALE = 5.0  # of the coordinates


class Data(NamedTuple):
    """Spirals to train on, to choose a learning rate by, and to test on, in units of `SCALE`."""

    train: nj.datasets.Spirals
    held_out: nj.datasets.Spirals
    test: nj.datasets.Spirals


def data_of(points: int, noise: float, seed: int) -> Data:
    """Return the data of a run."""
    keys = jax.random.split(jax.random.key(seed), 3)
    train = nj.datasets.spirals(1000, points=points, noise=noise, beyond=False, key=keys[0])
    held_out, test = (nj.datasets.spirals(200, points=points, noise=noise, key=key) for key in keys[1:])
    return Data(*map(scaled, (train, held_out, test)))


def scaled(data: nj.datasets.Spirals) -> nj.datasets.Spirals:
    """Return spirals in units of `SCALE`."""
    return data._replace(ys=data.ys / SCALE, truth=data.truth / SCALE)


class NextPoint(eqx.Module):
    """A GRU that predicts the next point of a series, the baseline of the paper."""

    cell: eqx.nn.GRUCell
    head: eqx.nn.Linear
    log_noise: jax.Array
    gaps: bool = eqx.field(static=True)

    def __init__(self, gaps: bool, *, key: jax.Array, hidden: int = 25):
        first, second = jax.random.split(key)
        self.cell = eqx.nn.GRUCell(2 + int(gaps), hidden, key=first)
        self.head = eqx.nn.Linear(hidden, 2, key=second)
        self.log_noise, self.gaps = jnp.asarray(-2.0), gaps

    def step(self, state: jax.Array, y: jax.Array, gap: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the next state, and the point expected after `gap`."""
        state = self.cell(jnp.append(y, gap) if self.gaps else y, state)
        return state, y + self.head(state)

    def read(self, ts: jax.Array, ys: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the state before the last point, and what was expected of all points but the first."""
        body = lambda state, point: self.step(state, *point)  # noqa: E731
        return jax.lax.scan(body, jnp.zeros(self.cell.hidden_size), (ys[:-1], jnp.diff(ts)))

    def go_on(self, ts: jax.Array, ys: jax.Array, times: jax.Array) -> jax.Array:
        """Return what is expected at times behind the series, one prediction after the other."""
        state, _ = self.read(ts, ys)

        def body(carry, gap):
            state, y = self.step(*carry, gap)
            return (state, y), y

        gaps = jnp.diff(times, prepend=ts[-1])
        return jax.lax.scan(body, (state, ys[-1]), gaps)[1]

    def stride_on(self, ts: jax.Array, ys: jax.Array, times: jax.Array) -> jax.Array:
        """Return the same by predictions as far apart as the points of a series on average, and lines between them."""
        gap = times[0] / len(ts)  # the window ends where these times begin
        count = 2 * len(ts)
        stops = ts[-1] + gap * jnp.arange(count + 1)
        path = jnp.concatenate([ys[-1:], self.go_on(ts, ys, stops[1:])])
        return jax.vmap(lambda y: jnp.interp(times, stops, y), 1, 1)(path)


def next_point_loss(model: NextPoint, batch: tuple, key: jax.Array):
    """Return the negative log-density of each point, given those before."""
    ts, ys = batch
    _, expected = jax.vmap(model.read)(ts, ys)
    errors = (ys[:, 1:] - expected) * jnp.exp(-model.log_noise)
    return jnp.mean(0.5 * errors**2 + model.log_noise)


def optimizer_of(updates: int) -> optax.GradientTransformation:
    """Return Adam with a learning rate that falls to zero, times a number in the state of the last part."""
    adam = optax.adam(optax.cosine_decay_schedule(1.0, updates))
    return optax.chain(optax.clip_by_global_norm(10.0), adam, optax.inject_hyperparams(optax.scale)(step_size=1.0))


def trained(model, loss, data: tuple, optimizer, updates: int, key: jax.Array, run: str, **options):
    """Train a model; a run that was stopped goes on."""
    return nj.fit(
        model, loss, data, optimizer, updates=updates, batch_size=BATCH, key=key,
        checkpoint=storage.checkpoint_of("latent", run), every=1000, resume=True, progress=run, **options,
    ).model  # fmt: skip


def latent_model(key: jax.Array) -> nj.nn.LatentODE:
    """Return the latent ODE of the paper."""
    keys = jax.random.split(key, 3)
    field = nj.nn.MLPField(4, 20, 1, key=keys[0])
    ode = nj.NeuralODE(field, steps=nj.Adaptive(1e-3, 1e-3), max_steps=256)
    encoder = nj.nn.GRUEncoder(2, 25, 4, key=keys[1])
    decoder = eqx.nn.MLP(4, 2, 20, 1, jax.nn.tanh, key=keys[2])
    return nj.nn.LatentODE(encoder, ode, decoder, noise=LIKELIHOOD / SCALE, learn_noise=False)


def stacked(models: list):
    """Return models as an ensemble."""
    return jax.tree.map(lambda *x: jnp.stack([jnp.asarray(y) for y in x]) if eqx.is_array(x[0]) else x[0], *models)


def members_of(ensemble, count: int) -> list:
    """Return the models of an ensemble."""
    return [jax.tree.map(lambda x, i=i: x[i] if eqx.is_array(x) else x, ensemble) for i in range(count)]


def best_of(models: list, predicted, held_out: nj.datasets.Spirals) -> tuple:
    """Return the model with the smallest error beyond the window of spirals that are not trained on, and its place."""
    scores = [rms((predicted(model, held_out) - held_out.truth)[:, WINDOW:]) for model in models]
    best = scores.index(min(scores))
    return models[best], best


@eqx.filter_jit
def latent_path(model: nj.nn.LatentODE, data: nj.datasets.Spirals) -> jax.Array:
    """Return what a latent ODE expects on the grid of each series, window and beyond."""
    return jax.vmap(lambda ts, ys: model.predict(ts, ys, None, data.grid))(data.ts, data.ys)


def latent_loss(model: nj.nn.LatentODE, batch: tuple, key: jax.Array):
    """Return minus the evidence lower bound of whole series whose encoder reads a random first part of the points."""
    ts, ys = batch
    first, second = jax.random.split(key)
    parts = jax.random.uniform(first, (len(ts), 1), minval=SHORTEST, maxval=LONGEST)
    count = ts.shape[1]
    encoded = jnp.arange(count)[None] < jnp.maximum(4, count * parts)
    return nj.train.elbo(model, (ts, ys, None, encoded), second)


def latent_of(data: Data, seed: int, run: str, updates: int):
    """Train a latent ODE from several starts.

    Return what the best expects on the grid of each test series, it, and its learning rate.
    """
    optimizer = optax.chain(
        optax.clip_by_global_norm(10.0),
        optax.adam(optax.warmup_cosine_decay_schedule(0.0, RATE, min(WARM, updates // 2), updates)),
    )
    series, models = (data.train.ts, data.train.ys), []
    for start in range(STARTS):
        first, second = jax.random.split(jax.random.fold_in(jax.random.key(seed), start))
        name = f"{run}-start-{start}"
        models.append(trained(latent_model(first), latent_loss, series, optimizer, updates, second, name))
    model, _ = best_of(models, latent_path, data.held_out)
    return latent_path(model, data.test), model, RATE


@eqx.filter_jit
def next_points(model: NextPoint, data: nj.datasets.Spirals, way=NextPoint.stride_on) -> jax.Array:
    """Return what a recurrent network expects beyond the window of each series, behind NaN for the window."""
    found = jax.vmap(lambda ts, ys: way(model, ts, ys, data.grid[WINDOW:]))(data.ts, data.ys)
    return jnp.concatenate([jnp.full_like(found, jnp.nan), found], axis=1)


def rnn_of(gaps: bool, data: Data, seed: int, run: str, updates: int):
    """Train recurrent networks with several learning rates; return what the best expects, it, and its rate."""
    models = stacked([NextPoint(gaps, key=jax.random.key(seed + 20)) for _ in RATES])
    series, optimizer, key = (data.train.ts, data.train.ys), optimizer_of(updates), jax.random.key(seed + 10)
    *first, last = jax.vmap(optimizer.init)(eqx.filter(models, eqx.is_array))
    state = (*first, last._replace(hyperparams={"step_size": jnp.array(RATES)}))
    options = {"members": len(RATES), "opt_state": state}
    models = trained(models, next_point_loss, series, optimizer, updates, key, run, **options)
    model, best = best_of(members_of(models, len(RATES)), next_points, data.held_out)
    return next_points(model, data.test), model, RATES[best]


WAYS = {
    "latent": latent_of,
    "rnn with gaps": functools.partial(rnn_of, True),
    "rnn": functools.partial(rnn_of, False),
}


def run_one(points: int, noise: float, seed: int, model: str, updates: int = UPDATES) -> dict:
    """Train and test one model."""
    begin, data = time.process_time(), data_of(points, noise, seed)
    name = name_of(points, noise, seed, model)
    found, best, rate = WAYS[model](data, seed, name, updates)
    errors, spread = SCALE * (found - data.test.truth), SCALE * jnp.std(data.train.ys, axis=(0, 1))
    noisy = errors + noise * jax.random.normal(jax.random.key(seed + 30), errors.shape)
    return {
        "points": points, "noise": noise, "seed": seed, "model": model, "rate": rate, "updates": updates,
        "beyond": rms(errors[:, WINDOW:]), "inside": rms(errors[:, :WINDOW]),
        "standardized": rms(errors[:, WINDOW:] / spread[None, None]), "noisy": rms(noisy[:, WINDOW:]),
        "each_time": None if model == "latent" else each_time(best, data.test),
        "seconds": time.process_time() - begin,
    }  # fmt: skip


def each_time(model: NextPoint, data: nj.datasets.Spirals) -> float:
    """Return the error beyond the window of a recurrent network that makes a prediction for each time on the grid."""
    return rms(SCALE * (next_points(model, data, NextPoint.go_on) - data.truth)[:, WINDOW:])


def rms(x: jax.Array) -> float:
    """Return the root mean square."""
    return float(jnp.sqrt(jnp.mean(x**2)))


def name_of(points: int, noise: float, seed: int, model: str) -> str:
    """Return the name of a run."""
    return f"{model.replace(' ', '_')}-{points}-{noise}-{seed}"


def run(updates: int = UPDATES) -> None:
    """Run what is not stored."""
    for model in MODELS:
        for noise, seeds in SEEDS.items():
            for seed in seeds:
                for points in POINTS:
                    storage.kept(
                        "latent", name_of(points, noise, seed, model),
                        functools.partial(run_one, points, noise, seed, model, updates),
                    )  # fmt: skip
