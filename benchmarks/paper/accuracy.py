"""Accuracy against cost of a trained ODE-Net (figure 3 of the paper): trained at a small tolerance, solved at others.

python -m benchmarks.paper accuracy --data FOLDER
"""

import functools
import statistics
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import node_jax as nj
from benchmarks.paper import images, storage

TRAINED, EXACT = 1e-5, 1e-6  # tolerances of the training, and of the solution that others are compared with
TOLERANCES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
METHODS = {"bosh3": nj.bosh3, "dopri5": nj.dopri5, "tsit5": nj.tsit5, "dopri8": nj.dopri8}
ADJOINTS = {
    "Checkpointed": nj.Checkpointed(),
    "Direct": nj.Direct(),
    "Reversible": nj.Reversible(),
    "Interpolated": nj.Interpolated(),
    "Backsolve": nj.Backsolve(),
}
CHANNELS, EPOCHS = 16, 5
BATCH, COUNTED = 500, 8  # images of one timed solve; images whose evaluations are counted one by one
ROUNDS = 7


def solved_by(model: nj.nn.Classifier, method: nj.ExplicitRK, tolerance: float) -> nj.nn.Classifier:
    """Return the model with another method and tolerance."""
    ode = nj.NeuralODE(model.ode.field, method=method, steps=steps_of(tolerance), max_steps=1024)
    return nj.nn.Classifier(model.stem, ode, model.head)


def steps_of(tolerance: float) -> nj.Adaptive:
    """Return steps with this tolerance as a value, so that another one compiles nothing anew."""
    return nj.Adaptive(jnp.asarray(tolerance), jnp.asarray(tolerance))


@eqx.filter_jit
def forward(model: nj.nn.Classifier, x: jax.Array):
    """Return states, logits and evaluations of a batch."""
    logits, solution = jax.vmap(model.solve)(x)
    return solution.z1, logits, solution.stats.nfe


def accuracies(model: nj.nn.Classifier, data: nj.datasets.Images) -> list[dict]:
    """Return error, evaluations and time of a solve by each method at each tolerance."""
    x, labels = jnp.asarray(data.x[:BATCH]), data.labels[:BATCH]
    exact = forward(solved_by(model, nj.dopri8, EXACT), x)[0]
    rows = []
    for name, method in METHODS.items():
        for tolerance in TOLERANCES:
            some = solved_by(model, method, tolerance)
            z1, logits, nfe = jax.block_until_ready(forward(some, x))
            seconds = []
            for _ in range(ROUNDS):
                begin = time.perf_counter()
                jax.block_until_ready(forward(some, x))
                seconds.append(time.perf_counter() - begin)
            rows.append({
                "method": name, "tolerance": tolerance, "nfe": float(jnp.mean(nfe)),
                "error": float(jnp.linalg.norm(z1 - exact) / jnp.linalg.norm(exact)),
                "wrong": float(np.mean(np.argmax(logits, axis=1) != labels)), "seconds": statistics.median(seconds),
            })  # fmt: skip
    return rows


class Counted(eqx.Module):
    """A field that tells the host of each evaluation and of each vector-Jacobian product."""

    field: Any
    tell: Any = eqx.field(static=True)

    def __call__(self, z: jax.Array, t: Any, theta: Any = None) -> jax.Array:
        """Return the slope."""
        tell = self.tell

        @jax.custom_vjp
        def told(slope):
            return slope

        def evaluated(slope):
            return slope, None

        def pulled(_, cotangent):
            jax.debug.callback(lambda: tell("pulled"))
            return (cotangent,)

        told.defvjp(evaluated, pulled)
        jax.debug.callback(lambda: tell("evaluated"))
        return told(self.field(z, t, theta))


def counts(model: nj.nn.Classifier, method: nj.ExplicitRK, adjoint: Any, data: nj.datasets.Images) -> list[dict]:
    """Return evaluations forward, and evaluations and pullbacks on the way back, for one image on average."""
    found = {"evaluated": 0, "pulled": 0}

    def tell(kind):
        found[kind] += 1

    def loss(field, steps, x, label):
        ode = nj.NeuralODE(Counted(field, tell), method=method, steps=steps, adjoint=adjoint, max_steps=256)
        logits = nj.nn.Classifier(model.stem, ode, model.head)(x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, label)

    def counted(function, tolerance):
        found.update(evaluated=0, pulled=0)
        for x, label in zip(data.x[:COUNTED], data.labels, strict=False):
            jax.block_until_ready(function(model.ode.field, steps_of(tolerance), jnp.asarray(x), jnp.asarray(label)))
            jax.effects_barrier()
        return {name: count / COUNTED for name, count in found.items()}

    value, gradient, rows = eqx.filter_jit(loss), eqx.filter_jit(eqx.filter_grad(loss)), []
    for tolerance in (1e-2, 1e-3, 1e-4):
        alone, both = counted(value, tolerance), counted(gradient, tolerance)
        rows.append({
            "tolerance": tolerance, "forward": alone["evaluated"], "back": both["evaluated"] - alone["evaluated"],
            "pulled": both["pulled"],
        })  # fmt: skip
    return rows


def ways_back(model: nj.nn.Classifier, data: nj.datasets.Images) -> list[dict]:
    """Return the counts of each adjoint and of two methods, at three tolerances."""
    return [
        {"method": name, "adjoint": adjoint, **row}
        for name in ("bosh3", "tsit5") for adjoint in ADJOINTS
        for row in counts(model, METHODS[name], ADJOINTS[adjoint], data)
    ]  # fmt: skip


def linear(rows: list[dict]) -> dict:
    """Return the straight line of the time in the evaluations, and the part of the variance that it explains."""
    nfe, seconds = (np.array([row[name] for row in rows]) for name in ("nfe", "seconds"))
    slope, intercept = np.polyfit(nfe, seconds, 1)
    left = seconds - (slope * nfe + intercept)
    return {"slope": float(slope), "intercept": float(intercept), "r2": float(1 - np.var(left) / np.var(seconds))}


def measured(data: images.Images, epochs: int = EPOCHS) -> dict:
    """Train one ODE-Net at a small tolerance and measure it at others."""
    model, history = images.trained(images.Training("RK-Net", CHANNELS, 0, epochs, tolerance=TRAINED), data, "accuracy")
    rows = accuracies(model, data.test)
    fits = {name: linear([row for row in rows if row["method"] == name]) for name in METHODS}
    return {"history": history, "rows": rows, "fits": fits, "back": ways_back(model, data.test)}


def accuracy(folder: str) -> None:
    """Figure 3: error, time and evaluations of a trained ODE-Net at many tolerances."""
    storage.kept("accuracy", "figure-3", functools.partial(measured, images.read(folder)))
