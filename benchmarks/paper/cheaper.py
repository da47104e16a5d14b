"""Cheaper dynamics: what each regularizer saves on digits, and what augmentation makes possible.

python -m benchmarks.paper cheaper
python -m benchmarks.paper spheres
"""

import functools
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import node_jax as nj
from benchmarks.paper import storage

TOLERANCE, MAX_STEPS = 1e-6, 1024
BATCH, EPOCHS, SEEDS = 128, 60, (0, 1, 2)
HELD_OUT = 500  # the last digits are for the test
REGULARIZERS = {  # of each name: how it is made, and the weights that are tried; of RandomEnd, half widths
    "none": (None, (0.0,)),
    "Kinetic": (nj.nn.Kinetic(), (1e-3, 1e-2, 1e-1)),
    "JacobianFrobenius": (nj.nn.JacobianFrobenius(), (1e-3, 1e-2, 1e-1)),
    "TotalDerivative(2)": (nj.nn.TotalDerivative(2), (1e-3, 1e-2, 1e-1)),
    "TotalDerivative(3)": (nj.nn.TotalDerivative(3), (1e-4, 1e-3, 1e-2)),
    "SolverError": (nj.nn.SolverError(), (1e4, 1e5, 1e6)),
    "RandomEnd": (None, (0.25, 0.5, 0.75)),
}


def classifier_of(regularizers: tuple, seed: int) -> nj.nn.Classifier:
    """Return the classifier of Kelly et al., 2020: a field of one hidden layer in the space of the images."""
    first, second = jax.random.split(jax.random.key(seed))
    field = nj.nn.MLPField(64, 100, 1, key=first, time_dependent=True)
    steps = nj.Adaptive(TOLERANCE, TOLERANCE)
    ode = nj.NeuralODE(field, steps=steps, max_steps=MAX_STEPS, regularizers=regularizers)
    return nj.nn.Classifier(eqx.nn.Identity(), ode, eqx.nn.Linear(64, 10, key=second))


def tested(model: nj.nn.Classifier, x, labels) -> dict:
    """Return the accuracy, the cross-entropy and the evaluations of a solve without regularizers."""
    logits, solution = eqx.filter_jit(jax.vmap(lambda x: model.solve(x, regularized=False)))(x)
    values = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return {
        "accuracy": float(jnp.mean(jnp.argmax(logits, axis=1) == labels)), "loss": float(jnp.mean(values)),
        "nfe": float(jnp.mean(solution.stats.nfe)), "failed": int(jnp.sum(~solution.ok)),
    }  # fmt: skip


def run_one(name: str, weight: float, seed: int, epochs: int = EPOCHS) -> dict:
    """Train one classifier on digits and test it."""
    images, (regularizer, _) = nj.datasets.digits(), REGULARIZERS[name]
    x, labels = jnp.asarray(images.x).reshape(-1, 64), jnp.asarray(images.labels)
    made = (nj.nn.RandomEnd(weight),) if name == "RandomEnd" else () if regularizer is None else (regularizer,)
    penalties = {regularizer.name: weight} if regularizer is not None else None
    begin, each = time.process_time(), (len(x) - HELD_OUT) // BATCH
    rate = optax.cosine_decay_schedule(3e-3, each * epochs)
    fitted = nj.fit(
        classifier_of(made, seed), functools.partial(nj.train.cross_entropy, penalties=penalties),
        (x[:-HELD_OUT], labels[:-HELD_OUT]), optax.adam(rate), epochs=epochs, batch_size=BATCH,
        key=jax.random.key(seed + 1), progress=f"{name}, weight {weight:g}, seed {seed}",
    )  # fmt: skip
    return {
        "regularizer": name, "weight": weight, "seed": seed, "epochs": epochs,
        "train": tested(fitted.model, x[:-HELD_OUT], labels[:-HELD_OUT]),
        "test": tested(fitted.model, x[-HELD_OUT:], labels[-HELD_OUT:]),
        "failed": int(np.sum(fitted.failed)), "seconds": time.process_time() - begin,
    }  # fmt: skip


def cheaper() -> None:
    """Digits with each regularizer and weight, three seeds; what is stored is not run again."""
    for seed in SEEDS:
        for name, (_, weights) in REGULARIZERS.items():
            for weight in weights:
                run = f"{name.replace('(', '_').replace(')', '')}-{weight:g}-{seed}"
                storage.kept("cheaper", run, functools.partial(run_one, name, weight, seed))


POINTS, UPDATES = 1000, 3000
EXTRA = {"plain": 0, "augmented": 5}  # zeros appended to the state


def separator_of(kind: str, seed: int) -> nj.nn.Classifier:
    """Return a classifier of points in the plane: a field of two hidden layers, and an affine head."""
    first, second = jax.random.split(jax.random.key(seed))
    extra = EXTRA[kind]
    field = nj.nn.MLPField(2 + extra, 32, 2, key=first, time_dependent=True, activation=jax.nn.relu)
    whole = nj.nn.Augmented(field, extra) if extra else field
    ode = nj.NeuralODE(whole, steps=nj.Adaptive(1e-3, 1e-3), max_steps=256)
    return nj.nn.Classifier(eqx.nn.Identity(), ode, eqx.nn.Linear(2 + extra, 2, key=second))


def separate(kind: str, seed: int, updates: int = UPDATES) -> dict:
    """Train one classifier on nested spheres and test it on new points."""
    first, second = jax.random.split(jax.random.key(seed + 100))
    data, (x, labels) = (nj.datasets.nested_spheres(n, key=key) for n, key in ((POINTS, first), (2000, second)))
    evaluations = []

    def look(update):
        if update.number % 100 == 0:
            evaluations.append([update.number, float(update.nfe) / BATCH, float(update.loss)])

    begin = time.process_time()
    fitted = nj.fit(
        separator_of(kind, seed), nj.train.cross_entropy, data, optax.adam(1e-3), updates=updates, batch_size=BATCH,
        key=jax.random.key(seed), callback=look, progress=f"{kind}, seed {seed}",
    )  # fmt: skip
    found = tested(fitted.model, x, labels)
    axis = jnp.linspace(-2.0, 2.0, 80)
    plane = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    sides = jax.nn.softmax(eqx.filter_jit(jax.vmap(fitted.model))(plane))[:, 1]
    return {
        "kind": kind, "seed": seed, "updates": updates, **found, "seconds": time.process_time() - begin,
        "history": evaluations, "points": rounded(x[:600]), "labels": labels[:600].tolist(), "plane": rounded(sides),
    }  # fmt: skip


def rounded(x: jax.Array) -> list:
    """Return numbers for a figure."""
    return np.round(np.asarray(x, float), 3).tolist()


def spheres() -> None:
    """Nested spheres, plain and augmented, three seeds; what is stored is not run again."""
    for seed in SEEDS:
        for kind in EXTRA:
            storage.kept("spheres", f"{kind}-{seed}", functools.partial(separate, kind, seed))
