"""Training states on disk: what they hold, when they are written, and what killed runs leave."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import node_jax as nj
from node_jax.train import checkpoint

KEY = jax.random.key(3)


def loss(model, data, key):
    return jnp.sum((model["a"] - 2.0) ** 2)


def fit(model, optimizer=None, **options):
    options = {"updates": 6, "key": KEY, "progress": False} | options
    return nj.fit(model, loss, None, optimizer or optax.adam(0.1), **options)


MODELS = {
    "typed key": {"a": jnp.zeros(2), "key": jax.random.key(5)},
    "keys of another kind": {"a": jnp.zeros(2), "key": jax.random.split(jax.random.key(5, impl="rbg"), 3)},
    "raw key": {"a": jnp.zeros(2), "key": jax.random.PRNGKey(5)},
    "bfloat16": {"a": jnp.zeros(2, jnp.bfloat16)},
    "float8 that is not trained": {"a": jnp.zeros(2), "b": jnp.arange(4)},
    "empty": {"a": jnp.zeros(2), "b": jnp.zeros((0, 3))},
    "flags": {"a": jnp.zeros(2), "b": jnp.array([True, False])},
    "complex": {"a": jnp.zeros(2), "b": jnp.zeros(2, jnp.complex64)},
}


def bits(x):
    typed = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if typed else x)


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(bits(x), bits(y))


@pytest.mark.parametrize("name", MODELS)
def test_arrays_of_every_kind_are_stored(name, tmp_path):
    state = MODELS[name]
    history = {"loss": np.arange(3.0).astype(jnp.bfloat16), "skipped": np.array([True, False])}
    checkpoint.write(tmp_path / "c", state, history, {})
    like = jax.tree.map(lambda x: x[::-1] if x.ndim else x, state)
    got, columns = checkpoint.read(tmp_path / "c", like, {})
    same(got, state)
    for column, values in history.items():
        assert columns[column].dtype == values.dtype
        np.testing.assert_array_equal(columns[column], values)


@pytest.mark.parametrize("model", ["typed key", "bfloat16"])
def test_run_with_random_keys_resumes_bit_for_bit(model, tmp_path):
    optimizer = optax.noisy_sgd(0.01, key=0)
    whole = fit(MODELS[model], optimizer)
    fit(MODELS[model], optimizer, updates=2, checkpoint=tmp_path / "c")
    resumed = fit(MODELS[model], optimizer, checkpoint=tmp_path / "c", resume=True)
    np.testing.assert_array_equal(resumed.losses, whole.losses)
    same(resumed.model, whole.model)
    same(resumed.opt_state, whole.opt_state)


def test_file_that_is_damaged_or_a_part_is_no_checkpoint(tmp_path):
    path, state, history = tmp_path / "c", {"a": jnp.arange(200.0)}, {"loss": np.zeros(3)}
    checkpoint.write(path, state, history, {"seed": 1})
    content = path.read_bytes()
    parts = [content[:n] for n in (0, 5, len(content) // 2, len(content) - 1)]
    flipped = [content[:n] + bytes([content[n] ^ 4]) + content[n + 1 :] for n in range(0, len(content), 41)]
    for damaged in (*parts, *flipped, content + b"0"):
        path.write_bytes(damaged)
        with pytest.raises(checkpoint.CheckpointError, match=r"c is (damaged|not a file)"):
            checkpoint.read(path, state, {"seed": 1})
    path.write_bytes(content)
    same(checkpoint.read(path, state, {"seed": 1})[0], state)


def test_arrays_that_differ_are_named_and_no_others(tmp_path):
    fit({"a": jnp.zeros(2), "b": jnp.zeros(3)}, checkpoint=tmp_path / "c")
    with pytest.raises(checkpoint.CheckpointError, match=r"\['b'\] float\d\d\[3\].* in the file, .*\[4\]") as caught:
        fit({"a": jnp.zeros(2), "b": jnp.zeros(4)}, checkpoint=tmp_path / "c", resume=True)
    assert "['a']" not in str(caught.value)


def test_key_of_another_implementation_is_another_run(tmp_path):
    fit({"a": jnp.zeros(2), "key": jax.random.key(5)}, checkpoint=tmp_path / "c")
    with pytest.raises(checkpoint.CheckpointError, match="holds other arrays"):
        fit({"a": jnp.zeros(2), "key": jax.random.key(5, impl="rbg")}, checkpoint=tmp_path / "c", resume=True)


def test_what_cannot_be_stored_fails_before_the_first_update(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError("disk full")

    def never(*args):
        raise AssertionError("an update was made")

    monkeypatch.setattr(checkpoint, "write", refuse)
    with pytest.raises(OSError, match="disk full"):
        nj.fit({"a": jnp.zeros(2)}, never, None, optax.sgd(0.1), updates=1, key=KEY, checkpoint=tmp_path / "c")


def test_run_that_ended_before_its_first_update_resumes(tmp_path):
    def stop(model, data, key):
        raise KeyboardInterrupt

    options = {"updates": 6, "key": KEY, "progress": False, "checkpoint": tmp_path / "c"}
    with pytest.raises(KeyboardInterrupt):
        nj.fit(MODELS["typed key"], stop, None, optax.adam(0.1), **options)
    resumed = nj.fit(MODELS["typed key"], loss, None, optax.adam(0.1), **options, resume=True)
    np.testing.assert_array_equal(resumed.losses, fit(MODELS["typed key"]).losses)


@pytest.fixture
def dead():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_unfinished_files_of_killed_runs_are_removed_and_no_others(tmp_path, dead):
    path = tmp_path / "run[1].ckpt"
    gone = [f"{path.name}.{dead}.tmp", f"{path.name}.{os.getpid()}.tmp"]
    kept = [
        f"{path.name}.{os.getppid()}.tmp",  # that process is alive
        f"other.ckpt.{dead}.tmp",
        f"{path.name}.{dead}.tmp.old",
        f"{path.name}.x{dead}.tmp",
        "run1.ckpt",
    ]
    for name in gone + kept:
        (tmp_path / name).write_bytes(b"half")
    fit({"a": jnp.zeros(2)}, checkpoint=path)
    assert sorted(os.listdir(tmp_path)) == sorted([path.name, *kept])
