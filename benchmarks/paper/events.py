"""Point processes: known intensities recovered, and a latent ODE of values and of when they are observed.

Section 5 and figure 7 of the paper: the log-density of events is `sum log intensity(z(t_i))` minus the integral of the
intensity, from one solve.

python -m benchmarks.paper events
"""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import node_jax as nj
from benchmarks.paper import storage

END = 10.0  # of every series, from 0
GRID = np.linspace(0.0, END, 201)
SEEDS = (0, 1, 2)
STEPS = nj.Adaptive(1e-4, 1e-4)
RATE = 1e-2  # first learning rate

# Recovery: one intensity for all series, known in closed form.

TRAIN, HELD_OUT = 200, 1000  # series
UPDATES, BATCH = 4000, 50


def constant(p, t):
    """Return a constant intensity."""
    return p[0] + 0.0 * t


def constant_integral(p, t):
    """Return its integral from 0."""
    return p[0] * t


def sinusoid(p, t):
    """Return a sinusoidal intensity."""
    return p[0] + p[1] * jnp.sin(p[2] * t + p[3])


def sinusoid_integral(p, t):
    """Return its integral from 0."""
    return p[0] * t + p[1] / p[2] * (jnp.cos(p[3]) - jnp.cos(p[2] * t + p[3]))


class Known(NamedTuple):
    """An intensity `rate(parameters, t)` with its integral from 0 to `t`, in closed form."""

    rate: Callable
    integral: Callable
    parameters: tuple[float, ...]


KNOWN = {
    "constant": Known(constant, constant_integral, (3.0,)),
    "sinusoid": Known(sinusoid, sinusoid_integral, (3.0, 2.0, 1.5, 0.5)),
}
BOUND = 5.0  # of both


def thinned(known: Known, count: int, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return times and masks of series that thinning simulated."""
    rate = functools.partial(known.rate, known.parameters)
    draw = functools.partial(nj.datasets.poisson, rate, END, bound=BOUND, capacity=128)
    return trimmed(jax.vmap(draw)(jax.random.split(key, count)))


def trimmed(events: nj.nn.Events) -> tuple[jax.Array, jax.Array]:
    """Return times and masks without columns that no series fills."""
    assert bool(jnp.all(events.complete))
    longest = int(jnp.max(jnp.sum(events.mask, axis=1)))
    return events.ts[:, :longest], events.mask[:, :longest]


def log_probs(known: Known, ts: jax.Array, mask: jax.Array) -> jax.Array:
    """Return the log-density of each series in closed form."""
    logs = jnp.log(known.rate(known.parameters, ts))
    return jnp.sum(jnp.where(mask, logs, 0.0), axis=1) - known.integral(known.parameters, END)


def clock(z, t, theta):
    """Return the slope of time."""
    return jnp.ones_like(z)


def clocked(known: Known) -> nj.nn.PoissonProcess:
    """Return the process whose state is time and whose intensity is the known one."""
    return nj.nn.PoissonProcess(nj.NeuralODE(clock, 0.0, END), functools.partial(known.rate, known.parameters))


def sampling_error(known: Known, count: int) -> np.ndarray:
    """Return the standard error of the intensity on the grid, of an estimate of its parameters from `count` series.

    It is the bound of Cramér and Rao: `g^T I^-1 g` with `g` the derivative of the intensity in the parameters, and the
    information `I = count * integral of g g^T / intensity`.
    """
    rates = lambda p: jax.vmap(functools.partial(known.rate, p))(jnp.asarray(GRID))  # noqa: E731
    p = jnp.asarray(known.parameters)
    rate, g = np.asarray(rates(p), float), np.asarray(jax.jacfwd(rates)(p), float)
    information = count * np.trapezoid(g[:, :, None] * g[:, None, :] / rate[:, None, None], GRID, axis=0)
    return np.sqrt(np.einsum("ti,ij,tj->t", g, np.linalg.inv(information), g))


class Readout(eqx.Module):
    """A positive intensity: the softplus of an affine function of the state."""

    affine: eqx.nn.Linear

    def __call__(self, z: jax.Array) -> jax.Array:
        """Return the intensity."""
        return jax.nn.softplus(self.affine(z))


class Centred(eqx.Module):
    """A field of the time since the middle of a series, about which the units of an untrained network bend."""

    field: Callable

    def __call__(self, z, t, theta=None):
        """Return the slope."""
        return self.field(z, t - 0.5 * END, theta)


def process_of(seed: int, mean: Any) -> nj.nn.PoissonProcess:
    """Return an untrained process with a state of two components, which begins with a mean intensity."""
    first, second = jax.random.split(jax.random.key(seed + 20))
    field = Centred(nj.nn.MLPField(2, 32, 1, key=first, time_dependent=True))
    ode = nj.NeuralODE(field, 0.0, END, steps=STEPS, max_steps=256)
    affine = eqx.nn.Linear(2, "scalar", key=second)
    begin = jnp.full(1, jnp.log(jnp.expm1(mean)))  # softplus makes the mean of it
    return nj.nn.PoissonProcess(ode, Readout(eqx.tree_at(lambda affine: affine.bias, affine, begin)))


def run_of(name: str, *parts: float) -> str:
    """Return the name of a run."""
    return "-".join([name.replace(" ", "_"), *(str(part) for part in parts)])


def trained(model: Any, loss: Callable, data: tuple, batch: int, updates: int, seed: int, run: str) -> Any:
    """Train a model; a run that was stopped goes on."""
    optimizer = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(optax.cosine_decay_schedule(RATE, updates)))
    return nj.fit(
        model, loss, data, optimizer, updates=updates, batch_size=batch, key=jax.random.key(seed + 10),
        checkpoint=storage.checkpoint_of("events", run), every=500, resume=True, progress=run,
    ).model  # fmt: skip


def recover(name: str, seed: int, updates: int = UPDATES) -> dict:
    """Train a process on series of a known intensity, and compare."""
    begin, known = time.process_time(), KNOWN[name]
    first, second = jax.random.split(jax.random.key(seed))
    (ts, mask), test = thinned(known, TRAIN, first), thinned(known, HELD_OUT, second)
    data, z0 = (ts, mask, jnp.zeros((TRAIN, 2))), jnp.zeros(2)
    process = process_of(seed, jnp.sum(mask) / (TRAIN * END))
    process = trained(process, nj.train.point_process, data, BATCH, updates, seed, run_of(name, seed))
    found = np.asarray(process.intensity_at(jnp.asarray(GRID), z0), float)
    true = np.asarray(jax.vmap(functools.partial(known.rate, known.parameters))(jnp.asarray(GRID)), float)
    ours = jax.jit(jax.vmap(lambda t, m: process.log_prob(t, m, z0=z0)))(*test)
    exact = log_probs(known, *test)
    solved = jax.jit(jax.vmap(lambda t, m: clocked(known).log_prob(t, m, z0=jnp.zeros(()))))(*test)
    counts, error = np.asarray(jnp.sum(test[1], axis=1)), sampling_error(known, TRAIN)
    mean = float(known.integral(jnp.asarray(known.parameters), END)) / END
    return {
        "intensity": name, "seed": seed, "updates": updates, "parameters": known.parameters,
        "train": TRAIN, "held_out": HELD_OUT,
        "solve_error": float(jnp.max(jnp.abs(solved - exact))),
        "count": mean * END, "count_thinned": mean_and_error(counts), "count_train": float(jnp.mean(jnp.sum(mask, 1))),
        "count_found": float(process.expected_count(0.0, END, z0)),
        "rms": rms(found - true) / mean, "rms_expected": rms(error) / mean,
        "largest": float(np.max(np.abs(found - true))) / mean, "error_expected": float(np.max(error)) / mean,
        "nll": mean_and_error(-ours), "nll_true": mean_and_error(-exact), "nll_gap": mean_and_error(exact - ours),
        "divergence": float(np.trapezoid(true * np.log(true / found) - true + found, GRID)),
        "divergence_expected": len(known.parameters) / (2 * TRAIN),
        "found": rounded(found), "true": rounded(true), "band": rounded(error),
        "events": [rounded(t[m]) for t, m in zip(ts[:6], mask[:6], strict=True)],
        "seconds": time.process_time() - begin,
    }  # fmt: skip


def mean_and_error(x: Any) -> list[float]:
    """Return a mean and its standard error."""
    x = np.asarray(x, float)
    return [float(np.mean(x)), float(np.std(x) / len(x) ** 0.5)]


def rms(x: Any) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(x))))


def rounded(x: Any) -> list:
    """Return numbers for a figure."""
    return np.round(np.asarray(x, float), 4).tolist()


def jobs() -> dict[str, Callable]:
    """Return the runs by name."""
    return {run_of(name, seed): functools.partial(recover, name, seed) for name in KNOWN for seed in SEEDS}
