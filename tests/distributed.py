"""One of two processes that train together (see test_devices.py): `distributed.py PORT PROCESS`."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import node_jax as nj

port, process = map(int, sys.argv[1:])
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=process)
mesh = Mesh(np.array(jax.devices()), ("solves",))
along = NamedSharding(mesh, PartitionSpec("solves"))

# each process holds its own half of the data
states = np.linspace(1.0, 2.0, 8, dtype=np.float32).reshape(2, 4)[process]
states = jax.make_array_from_process_local_data(along, states)


def end(z0, rate):
    return nj.odesolve(nj.testing.decay, z0, 0.0, 1.0, rate, method=nj.bosh3).z1


def loss(rate, states):
    return jnp.mean((nj.shard(end, mesh, "solves")(states, rate) - 0.5 * states) ** 2)


optimizer = optax.sgd(0.5)
rate = jnp.array(0.1, jnp.float32)
state = optimizer.init(rate)


@jax.jit
def update(rate, state, states):
    value, slope = jax.value_and_grad(loss)(rate, states)
    change, state = optimizer.update(slope, state)
    return optax.apply_updates(rate, change), state, value


for _ in range(3):
    rate, state, value = update(rate, state, states)
    print(f"loss {float(value):.6f}")
