"""Solve an ensemble on two devices of this process, compare with one, and count collectives (see test_devices.py)."""

import functools
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import node_jax as nj

jax.config.update("jax_enable_x64", True)
MESH = Mesh(np.array(jax.devices()), ("solves",))
ALONG = PartitionSpec("solves")
STATES = jnp.stack([jnp.linspace(1.0, 2.0, 12), jnp.zeros(12)], axis=1)
RATE = jnp.array(1.2)


def field(z, t, rate):
    return jnp.stack([z[1], rate * (1 - z[0] ** 2) * z[1] - z[0]])


class Module(eqx.Module):
    rate: jax.Array

    def __call__(self, z, t, theta):
        return field(z, t, self.rate)


def end(z0, rate, **options):
    return nj.odesolve(field, z0, 0.0, 1.0, rate, method=nj.bosh3, max_steps=512, **options).z1


def batch(states, rate):
    return jax.vmap(end, (0, None))(states, rate)


def loss_of(solve):
    return lambda rate: jnp.sum(solve(STATES, rate) ** 3)


def collectives(text):
    """Count collectives in a compiled program, and those in what its loops call."""
    bodies = dict(re.findall(r"^%?([\w.-]+) \(.*?\{\n(.*?)^\}", text, re.S | re.M))
    call = r"(?:body|condition|calls|to_apply)=%?([\w.-]+)"
    found = r" (?:all-reduce|all-gather|all-to-all|reduce-scatter|collective-[a-z]+)(?:-start)?\("

    def inside(name):
        return len(re.findall(found, bodies[name])) + sum(map(inside, re.findall(call, bodies[name])))

    loops = re.findall(r"body=%?([\w.-]+)", text)
    return len(re.findall(found, text)), sum(map(inside, loops))


def report(name, fn, want, *args, eager=False):
    compiled = jax.jit(fn).lower(*args).compile()
    got = compiled(*args)
    assert np.allclose(got, want, rtol=1e-12), (got, want)
    assert not eager or np.allclose(fn(*args), want, rtol=1e-12)
    print("{}: same, {} collectives, {} in loops".format(name, *collectives(compiled.as_text())))


wide = nj.shard(end, MESH, "solves")
slope = jax.grad(loss_of(batch))(RATE)
report("forward", wide, batch(STATES, RATE), STATES, RATE, eager=True)
report("gradient", jax.grad(loss_of(wide)), slope, RATE)


def inside(states, rate):
    return jax.grad(lambda rate: jnp.sum(batch(states, rate) ** 3))(rate)


report(
    "inside",
    jax.shard_map(inside, mesh=MESH, in_specs=(ALONG, PartitionSpec()), out_specs=PartitionSpec()),
    slope,
    STATES,
    RATE,
)


def of_module(z0, module):
    return nj.odesolve(module, z0, 0.0, 1.0, method=nj.bosh3, max_steps=512).z1


report("module", jax.grad(lambda rate: loss_of(nj.shard(of_module, MESH, "solves"))(Module(rate))), slope, RATE)
for name, options in {"queue": {"lane_width": 4}, "direct": {"adjoint": nj.Direct()}}.items():
    solve = nj.shard(lambda z0, rate, options=options: end(z0, rate, **options), MESH, "solves")
    report(name, jax.grad(loss_of(solve)), slope, RATE)


def of_closure(states, rates):
    return jax.vmap(lambda z0: nj.odesolve(lambda z, t, _: field(z, t, rates[0]), z0, 0.0, 1.0).z1)(states)


try:
    jax.shard_map(of_closure, mesh=MESH, in_specs=(ALONG, ALONG), out_specs=ALONG)(STATES, jnp.ones(2))
except NotImplementedError as error:
    print(f"closure: {error}")


def summed(rate, states):
    return jnp.sum(batch(states, rate) ** 3)


spread = jax.device_put(STATES, NamedSharding(MESH, ALONG))
assert np.allclose(jax.jit(batch)(spread, RATE), batch(STATES, RATE), rtol=1e-12)
assert np.allclose(jax.jit(jax.grad(summed))(RATE, spread), slope, rtol=1e-12)
print("jit: same")


def slopes(states, rate, **options):
    return jax.vmap(jax.grad(lambda z0: jnp.sum(end(z0, rate, **options) ** 3)))(states)


def of_rectified(rate, states):
    """Close over a traced value in a field that calls compiled functions."""

    def rectified(z, t, _):
        return jax.nn.relu(jax.nn.relu(rate) * field(z, t, rate))

    return jnp.sum(jax.vmap(lambda z0: nj.odesolve(rectified, z0, 0.0, 1.0, max_steps=512).z1)(states) ** 3)


mesh = jax.make_mesh(MESH.devices.shape, MESH.axis_names, axis_types=(AxisType.Explicit,))
wants = slopes(STATES, RATE), slopes(STATES, RATE, adjoint=nj.Backsolve()), jax.grad(of_rectified)(RATE, STATES)
with jax.set_mesh(mesh):
    spread = jax.device_put(STATES, NamedSharding(mesh, ALONG))
    report("explicit", batch, batch(STATES, RATE), spread, RATE, eager=True)
    assert jax.typeof(batch(spread, RATE)).sharding.spec[0] == "solves"
    report("explicit gradient", jax.grad(summed), slope, RATE, spread, eager=True)
    report("explicit closure", jax.grad(of_rectified), wants[2], RATE, spread)
    report("explicit gradients by Backsolve", functools.partial(slopes, adjoint=nj.Backsolve()), wants[1], spread, RATE)
    assert np.allclose(jax.jit(slopes)(spread, RATE), wants[0], rtol=1e-12)
    print("explicit gradients: same")
