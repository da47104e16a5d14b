"""ODE-Net, RK-Net and ResNet on images of digits (section 3, table 1 and figure 3 of the paper).

python -m benchmarks.paper images --data FOLDER     official widths and 16 channels, on a folder of IDX files
python -m benchmarks.paper digits                   16 channels, on the digits of scikit-learn
"""

import functools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

import node_jax as nj
from benchmarks.paper import storage
from node_jax.nn.conv import groups_of

BATCH = 32
MEASURED = 128  # images of the gradient whose memory is measured
SHIFT = 2  # pixels by which images of MNIST are moved at random in training, in each direction
TOLERANCE = 1e-3  # of the paper
BLOCKS = 6


class Block(eqx.Module):
    """A residual block with normalization before each convolution (He et al., 2016)."""

    norms: tuple[eqx.nn.GroupNorm, ...]
    convs: tuple[eqx.nn.Conv2d, ...]

    def __init__(self, channels: int, *, key: jax.Array):
        keys = jax.random.split(key)
        self.norms = tuple(eqx.nn.GroupNorm(groups_of(channels), channels) for _ in keys)
        self.convs = tuple(eqx.nn.Conv2d(channels, channels, 3, padding=1, use_bias=False, key=each) for each in keys)

    def __call__(self, z: jax.Array) -> jax.Array:
        """Return the features behind the block."""
        x = z
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = conv(jax.nn.relu(norm(x)))
        return z + x


class ResNet(eqx.Module):
    """The stem and head of the ODE-Net with residual blocks between them."""

    stem: Callable
    blocks: tuple[Block, ...]
    head: Callable

    def __init__(self, classifier: nj.nn.Classifier, channels: int, *, key: jax.Array):
        self.stem, self.head = classifier.stem, classifier.head
        self.blocks = tuple(Block(channels, key=each) for each in jax.random.split(key, BLOCKS))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the logits of one image."""
        z = self.stem(x)
        for block in self.blocks:
            z = block(z)
        return self.head(z)


class Training(NamedTuple):
    """What decides one training."""

    kind: str
    channels: int
    seed: int
    epochs: int
    shift: int = SHIFT
    tolerance: float = TOLERANCE


class Images(NamedTuple):
    """Images and labels to train and to test on."""

    train: nj.datasets.Images
    test: nj.datasets.Images


def model_of(training: Training, shape: tuple):
    """Return an untrained net; those of one seed have the same stem and head."""
    first, second = jax.random.split(jax.random.key(training.seed))
    adjoint = nj.Backsolve() if training.kind == "ODE-Net" else nj.Checkpointed()
    steps = nj.Adaptive(training.tolerance, training.tolerance)
    options = {"steps": steps, "adjoint": adjoint, "max_steps": 256}
    model = nj.nn.Classifier.create(shape, 10, width=training.channels, key=first, **options)
    return ResNet(model, training.channels, key=second) if training.kind == "ResNet" else model


def loss(model, batch: tuple, key: jax.Array):
    """Return the cross-entropy of either kind of net."""
    if isinstance(model, nj.nn.Classifier):
        return nj.train.cross_entropy(model, batch, key)
    x, labels = batch
    logits = jax.vmap(model)(x)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def moved(x: jax.Array, pixels: int, key: jax.Array) -> jax.Array:
    """Return images `(n, channels, height, width)` moved at random, by the darkest value behind their edges."""
    wide = jnp.pad(x, ((0, 0), (0, 0), (pixels, pixels), (pixels, pixels)), constant_values=jnp.min(x))
    corners = jax.random.randint(key, (len(x), 2), 0, 2 * pixels + 1)
    return jax.vmap(lambda image, corner: lax.dynamic_slice(image, (0, *corner), x.shape[1:]))(wide, corners)


class Shifted(eqx.Module):
    """The loss of images that are moved by a random number of pixels."""

    pixels: int

    def __call__(self, model, batch: tuple, key: jax.Array):
        """Return what `loss` does of the moved images."""
        x, labels = batch
        return loss(model, (moved(x, self.pixels, key), labels), key)


@eqx.filter_jit
def predicted(model, x: jax.Array) -> tuple[jax.Array, Any]:
    """Return the classes of images, and the evaluations of their solves."""
    if isinstance(model, nj.nn.Classifier):
        logits, solution = jax.vmap(lambda x: model.solve(x))(x)
        return jnp.argmax(logits, axis=1), solution.stats.nfe
    return jnp.argmax(jax.vmap(model)(x), axis=1), jnp.zeros(len(x), jnp.int32)


def tested(model, images: nj.datasets.Images) -> tuple[np.ndarray, float]:
    """Return which images are wrong, and the mean number of evaluations."""
    classes, counts = zip(
        *(predicted(model, x) for x in np.array_split(images.x, max(1, len(images.x) // 500))), strict=True
    )
    return np.concatenate(classes) != images.labels, float(np.mean(np.concatenate(counts)))


@eqx.filter_jit
def evaluations_back(model: nj.nn.Classifier, x: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the evaluations of the augmented solve backwards from the states at the end, which `Backsolve` makes."""
    steps = model.ode.steps.paired()

    def one(x, label):
        z1 = model.ode(model.stem(x))
        a1 = jax.grad(lambda z: optax.softmax_cross_entropy_with_integer_labels(model.head(z), label))(z1)

        def back(state, t, theta):
            slope, pull = jax.vjp(lambda z: model.ode.field(z, t), state[0])
            return slope, jax.tree.map(jnp.negative, pull(state[1])[0])

        return nj.odesolve(back, (z1, a1), model.ode.t1, model.ode.t0, steps=steps, throw=False).stats.nfe

    return jax.vmap(one)(x, labels)


def memory_of(model, shape: tuple) -> int:
    """Return the temporary memory of a compiled gradient of 128 images, in bytes."""
    arrays, static = eqx.partition(model, eqx.is_inexact_array)
    batch = (jnp.zeros((MEASURED, *shape)), jnp.zeros(MEASURED, jnp.int32))

    def value(arrays):
        out = loss(eqx.combine(arrays, static), batch, jax.random.key(0))
        return out[0] if isinstance(out, tuple) else out

    return int(jax.jit(jax.grad(value)).lower(arrays).compile().memory_analysis().temp_size_in_bytes)


def trained(training: Training, images: Images, run: str) -> tuple[Any, list[dict]]:
    """Train one net; return it and what was measured after each epoch, by which nothing is chosen.

    A run that was stopped goes on from its last epoch.
    """
    model, each = model_of(training, images.train.x.shape[1:]), len(images.train.x) // BATCH
    rate = optax.cosine_decay_schedule(0.1, each * training.epochs)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(rate, momentum=0.9))
    checkpoint = storage.checkpoint_of("images", run)
    measured, clock = checkpoint.with_suffix(".history"), [time.process_time()]
    history = json.loads(measured.read_text()) if checkpoint.exists() and measured.exists() else []

    def look(update):
        if update.number % each == 0:
            seconds = time.process_time() - clock[0]
            wrong, nfe = tested(update.model, images.test)
            history.append({"epoch": update.number // each, "error": float(np.mean(wrong)), "nfe": nfe,
                            "loss": float(update.loss), "seconds": seconds})  # fmt: skip
            storage.write(measured, history)
            clock[0] = time.process_time()

    fitted = nj.fit(
        model, Shifted(training.shift), (images.train.x, images.train.labels), optimizer, epochs=training.epochs,
        batch_size=BATCH, key=jax.random.key(training.seed + 1), callback=look, checkpoint=checkpoint, every=each,
        resume=True, progress=run,
    )  # fmt: skip
    return fitted.model, history


def run_one(images: Images, training: Training, run: str) -> dict:
    """Train one net and test it at its last epoch."""
    shape = images.train.x.shape[1:]
    model, history = trained(training, images, run)
    wrong, nfe = tested(model, images.test)
    parameters = sum(x.size for x in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)))
    result = {
        **{name: getattr(training, name) for name in ("kind", "channels", "seed", "epochs")},
        "error": float(np.mean(wrong)), "wrong": np.flatnonzero(wrong).tolist(), "images": len(wrong),
        "parameters": parameters,
        "memory": memory_of(model, shape), "nfe": nfe, "history": history,
        "seconds_an_epoch": statistics.median(x["seconds"] for x in history),
    }  # fmt: skip
    if training.kind == "ODE-Net":
        some = (jnp.asarray(images.test.x[:500]), jnp.asarray(images.test.labels[:500]))
        result["nfe_back"] = float(jnp.mean(evaluations_back(model, *some)))
    return result


def run(experiment: str, images: Images, channels: int, seeds: tuple, epochs: int, shift: int) -> None:
    """Run what is not stored."""
    for seed in seeds:
        for kind in ("ODE-Net", "RK-Net", "ResNet"):
            name, training = f"{kind}-{channels}-{seed}", Training(kind, channels, seed, epochs, shift)
            storage.kept(experiment, name, functools.partial(run_one, images, training, f"{experiment}-{name}"))


def read(folder: str) -> Images:
    """Return the images of a folder of IDX files."""
    return Images(nj.datasets.idx(folder), nj.datasets.idx(folder, "t10k"))


def mnist(folder: str) -> None:
    """Run the official widths with one seed, and 16 channels with three."""
    images = read(folder)
    run("images", images, 16, (0, 1, 2), 8, SHIFT)
    run("images", images, 64, (0,), 8, SHIFT)


def digits() -> None:
    """Run a small version on the digits of scikit-learn, of which the last 500 are for the test."""
    every, images = nj.datasets.digits(), nj.datasets.Images
    parts = (images(every.x[some], every.labels[some]) for some in (slice(-500), slice(-500, None)))
    run("digits", Images(*parts), 16, (0, 1, 2), 20, 0)
