"""Training with optimizers of optax; trained models in files of Equinox, Orbax and jax.export."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import export

import node_jax as nj

TS = jnp.linspace(0.0, 1.0, 5)
STARTS = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.7, -0.7]])
ANGLES = TS[:, None]
TARGETS = jax.vmap(lambda z: jnp.cos(ANGLES) * z[None] + jnp.sin(ANGLES) * jnp.stack([-z[1], z[0]])[None])(STARTS)
OPTIMIZERS = {
    "sgd with momentum": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": optax.adam(0.02),
    "adamw with a schedule": optax.adamw(optax.cosine_decay_schedule(0.03, 40), weight_decay=1e-4),
    "lion": optax.lion(0.01),
    "clipped and accumulated": optax.MultiSteps(
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.05)), 2
    ).gradient_transformation(),
    "scaled by sums of squares": optax.chain(optax.scale_by_rss(), optax.scale(-0.1)),
}


def new(seed=0):
    return nj.NeuralODE(nj.nn.MLPField(2, 8, 1, key=jax.random.key(seed)), steps=nj.Fixed(8), method=nj.rk4)


def loss(model, data, key):
    starts, targets = data
    return jnp.mean((jax.vmap(model.trajectory, (0, None))(starts, TS) - targets) ** 2)


def train(optimizer, updates=40):
    return nj.fit(new(), loss, (STARTS, TARGETS), optimizer, updates=updates, key=jax.random.key(1), progress=False)


@pytest.fixture(scope="module")
def trained():
    return train(OPTIMIZERS["adam"]).model


def solves(model):
    return jax.vmap(model)(STARTS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_of_optax_halves_the_loss(name):
    run = train(OPTIMIZERS[name])
    assert run.losses[-1] < 0.5 * run.losses[0]
    assert not run.skipped.any()


def test_a_model_in_a_file_of_equinox_solves_as_before(trained, tmp_path):
    eqx.tree_serialise_leaves(tmp_path / "model.eqx", trained)
    again = eqx.tree_deserialise_leaves(tmp_path / "model.eqx", new(seed=7))
    np.testing.assert_array_equal(solves(again), solves(trained))
    assert not np.allclose(solves(new(seed=7)), solves(trained))


@pytest.mark.filterwarnings("ignore")  # its own, of names that others deprecated
def test_a_model_in_a_checkpoint_of_orbax_solves_as_before(trained, tmp_path):
    orbax = pytest.importorskip("orbax.checkpoint")
    arrays, rest = eqx.partition(trained, eqx.is_array)
    leaves = dict(enumerate(jax.tree.leaves(arrays)))
    leaves = {str(i): x for i, x in leaves.items()}
    with orbax.StandardCheckpointer() as files:
        files.save(tmp_path.resolve() / "model", leaves)
        files.wait_until_finished()
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), leaves)
        found = files.restore(tmp_path.resolve() / "model", like)
    arrays = jax.tree.unflatten(jax.tree.structure(arrays), [found[str(i)] for i in range(len(found))])
    np.testing.assert_array_equal(solves(eqx.combine(arrays, rest)), solves(trained))


def test_a_batch_exported_to_a_file_solves_as_before(trained, tmp_path):
    pytest.importorskip("flatbuffers")  # jax.export writes with it
    exported = export.export(jax.jit(jax.vmap(trained)))(jax.ShapeDtypeStruct(STARTS.shape, STARTS.dtype))
    (tmp_path / "model.bin").write_bytes(exported.serialize())
    again = export.deserialize((tmp_path / "model.bin").read_bytes())
    for starts in (STARTS, -STARTS):
        np.testing.assert_allclose(again.call(starts), jax.vmap(trained)(starts), rtol=1e-12)


def test_an_adaptive_model_exported_with_its_gradient_gives_that_gradient(trained, tmp_path):
    pytest.importorskip("flatbuffers")
    adaptive = nj.NeuralODE(trained.field)

    @jax.jit
    def end(z0):
        return jnp.sum(adaptive(z0) ** 2)

    exported = export.export(end)(jax.ShapeDtypeStruct((2,), jnp.float64))
    (tmp_path / "model.bin").write_bytes(exported.serialize(vjp_order=1))
    again = export.deserialize((tmp_path / "model.bin").read_bytes())
    np.testing.assert_allclose(again.call(STARTS[0]), end(STARTS[0]), rtol=1e-12)
    np.testing.assert_allclose(jax.grad(again.call)(STARTS[0]), jax.grad(end)(STARTS[0]), rtol=1e-9)
