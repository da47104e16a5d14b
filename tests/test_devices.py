"""Ensembles over two devices, and over two processes: what each does is its own, and one sum joins the gradients."""

import os
import pathlib
import re
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import Mesh

import node_jax as nj

HERE = pathlib.Path(__file__).parent


def run(script, *args, devices=1):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, HERE / script, *map(str, args)],
        env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(HERE.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    return out


def test_two_devices_solve_and_differentiate_alone():
    out = finish(run("sharded.py", devices=2))
    assert re.findall(r"([\w ]+): (.*)", out) == [
        ("forward", "same, 0 collectives, 0 in loops"),
        ("gradient", "same, 1 collectives, 0 in loops"),
        ("inside", "same, 1 collectives, 0 in loops"),
        ("module", "same, 1 collectives, 0 in loops"),
        ("queue", "same, 1 collectives, 0 in loops"),
        ("direct", "same, 1 collectives, 0 in loops"),
        ("closure", "f uses a value that varies over the axis 'solves': pass it as theta"),
        ("jit", "same"),
        ("explicit", "same, 0 collectives, 0 in loops"),
        ("explicit gradient", "same, 1 collectives, 0 in loops"),
        ("explicit closure", "same, 1 collectives, 0 in loops"),
        ("explicit gradients by Backsolve", "same, 0 collectives, 0 in loops"),
        ("explicit gradients", "same"),
    ]


def test_two_processes_take_a_training_step_together():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outs = [finish(p) for p in [run("distributed.py", port, i) for i in range(2)]]
    losses = [re.findall(r"loss (.*)", out) for out in outs]
    assert losses[0] == losses[1]
    assert float(losses[0][-1]) < float(losses[0][0])


def test_a_field_that_looks_at_other_solves_is_refused_by_name():
    def synchronized(z, t, theta):
        return jax.lax.pmean(z, "solves") - z

    with pytest.raises(NotImplementedError, match="psum over the axis 'solves'"):
        jax.vmap(lambda z0: nj.odesolve(synchronized, z0, 0.0, 1.0).z1, axis_name="solves")(jnp.ones(3))


@pytest.mark.parametrize(
    ("axis", "count", "words"), [("solve", 4, ["axis", "solve"]), ("solves", None, ["own", "multiple"])]
)
def test_shard_refuses_what_does_not_fit_by_name(axis, count, words):
    mesh = Mesh(jax.devices()[:1], ("solves",))

    def end(z0, rate):
        return nj.odesolve(nj.testing.decay, z0, 0.0, 1.0, rate).z1

    with pytest.raises(ValueError, match=".*".join(words)):
        nj.shard(end, mesh, axis)(jnp.ones(()) if count is None else jnp.ones(count), 1.0)
