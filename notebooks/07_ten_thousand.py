# %% [markdown]
# # 7. Ten thousand trajectories
#
# [![Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/node-jax/node-jax/blob/main/notebooks/07_ten_thousand.ipynb)
#
# A batch whose members need different numbers of steps is slow if all of them wait for the slowest. This notebook
# solves ten thousand oscillators under `jax.vmap`, and shows how the queue avoids that wait, what its width and a guess
# of the costs do, and how `nj.shard` spreads the batch over devices.

# %% [markdown]
# The next cell installs the package from its repository if it is missing, as in Colab. A JAX that is already there
# stays as it is.

# %%
import importlib.metadata
import importlib.util

from IPython import get_ipython

if importlib.util.find_spec("node_jax") is None:
    there = [name for name in ("jax", "jaxlib") if importlib.util.find_spec(name)]
    kept = " ".join(f"{name}=={importlib.metadata.version(name)}" for name in there)
    package = '"node-jax[demo] @ git+https://github.com/node-jax/node-jax"'
    get_ipython().run_line_magic("pip", f"install --quiet {package} {kept}")

# %% [markdown]
# A CPU counts as one device unless JAX is told otherwise before it starts. The next cell asks for two, so that the last
# section has something to spread over. It changes nothing on a GPU or a TPU.

# %%
import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"

# %%
import functools
import math
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.sharding import Mesh

import node_jax as nj

plt.rcParams.update({"figure.dpi": 80, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
info = nj.info()
print(", ".join(f"{name} {version}" for name, version in info.versions.items()))
print("devices:", ", ".join(info.devices))

# %% [markdown]
# ## The batch
#
# These are oscillators of Van der Pol, with $\mu$ from 0.1 to 50. A large $\mu$ makes the equation stiff, so that an
# explicit method takes many steps. The function `end` solves one of them. A trial is a step that is tried, whether it
# is accepted or not.

# %%
NUMBER = 10_000
mus = jax.random.permutation(jax.random.key(0), jnp.geomspace(0.1, 50.0, NUMBER))


def van_der_pol(z, t, mu):
    x, v = z
    return jnp.stack([v, mu * (1 - x**2) * v - x])


def end(mu, **options):
    start = jnp.array([2.0, 0.0])
    return nj.odesolve(van_der_pol, start, 0.0, 10.0, mu, steps=nj.Adaptive(1e-4, 1e-6), **options)


sol = jax.jit(jax.vmap(end))(mus)
trials = np.asarray(sol.stats.accepted + sol.stats.rejected)
print(sol)
print(f"trials of one solve: median {np.median(trials):.0f}, mean {trials.mean():.0f}, most {trials.max()}")

# %%
fig, ax = plt.subplots(figsize=(7.0, 2.8), layout="constrained")
ax.hist(trials, bins=60, color="#1f6f8b")
ax.axvline(trials.mean(), color="#c8553d", lw=1.5, label=f"mean, {trials.mean():.0f}")
ax.axvline(trials.max(), color="#222222", lw=1.5, ls="--", label=f"most, {trials.max()}")
ax.set(xlabel="trial steps of one solve", ylabel="number of solves", yscale="log")
fig.legend(loc="outside upper right", ncols=2)
plt.show()

# %% [markdown]
# Under `jax.vmap` every solve has a lane. If all lanes stepped together to the end, each would be there for as many
# trials as the most expensive solve needs. The solves need only their mean.
#
# ## The queue
#
# On a CPU only some lanes step together, 64 for a state this small. A lane whose solve is done takes the next one at
# once. The option `lane_width` sets that number, and `lane_width=math.inf` switches the queue off. On a GPU all lanes
# step together unless a width is given.


# %%
def timed(function, *args):
    jax.block_until_ready(function(*args))  # compiles
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        found = jax.block_until_ready(function(*args))
        seconds.append(time.perf_counter() - start)
    return min(seconds), found


def share_idle(sol):
    trials = jnp.sum(sol.stats.accepted + sol.stats.rejected)
    return float(jnp.sum(sol.stats.idle) / (jnp.sum(sol.stats.idle) + trials))


widths = (16, 64, 512, math.inf)
took, idle, states = {}, {}, {}
print("lane_width    time     idle")
for width in widths:
    took[width], found = timed(jax.jit(jax.vmap(functools.partial(end, lane_width=width))), mus)
    idle[width], states[width] = share_idle(found), found.z1
    print(f"{width!s:>10} {1000 * took[width]:5.0f} ms {idle[width]:8.1%}")

# %% [markdown]
# `sol.stats.idle` counts the trials that passed in a lane after its solve was done. Without a queue most of the work is
# such waiting. The times are those of the machine that ran this notebook; the shares hardly depend on it. Results come
# in the order of the inputs.
#
# A batch of another width may be compiled differently and then rounds differently. An oscillator that ends in the
# middle of a jump magnifies that, and a tolerance of 1e-4 allows it. The next cell shows that such lanes are few.

# %%
for width in widths:
    differences = jnp.max(jnp.abs(states[width] - sol.z1), axis=1)
    print(
        f"{width!s:>10} median difference {jnp.median(differences):.0e}, above 1e-3 {jnp.mean(differences > 1e-3):.1%}"
    )

# %% [markdown]
# ## A guess of the cost
#
# The queue is at its worst at the end, when it is empty and the last solves are still going on. `expected_cost` is a
# guess of what each solve costs, in any unit. The most expensive solves then go first, and the last ones are cheap.
# Here $\mu$ itself is a good guess. A width of 512 shows the difference best: the idle share all but vanishes. In a
# batch that takes so little time the time itself hardly changes.


# %%
def guided(mu):
    return end(mu, lane_width=512, expected_cost=mu)


took_guided, found = timed(jax.jit(jax.vmap(guided)), mus)
idle_guided = share_idle(found)
print(f"without a guess: {1000 * took[512]:5.0f} ms, idle {idle[512]:.1%}")
print(f"with a guess:    {1000 * took_guided:5.0f} ms, idle {idle_guided:.1%}")

# %%
fig, ax = plt.subplots(figsize=(7.0, 2.6), layout="constrained")
labels = [*("no queue" if width == math.inf else f"{width} lanes" for width in widths), "512 lanes and a guess"]
shares = [100 * share for share in (*idle.values(), idle_guided)]
bars = ax.barh(labels, shares, color=["#1f6f8b"] * 3 + ["#c8553d"] + ["#4a8f5c"], height=0.6)
ax.bar_label(bars, fmt="%.1f %%", padding=4)
ax.set(xlabel="idle share of all trials, %", xlim=(0, 100))
ax.invert_yaxis()
plt.show()

# %% [markdown]
# ## Gradients
#
# The gradient of a sum over all solves goes through the same queue. The way back takes the solves in chunks of about
# equal length, so its memory is that of one chunk and does not grow with the batch.


# %%
def loss(mus):
    sol = jax.vmap(lambda mu: end(mu, expected_cost=mu))(mus)
    return jnp.mean(jnp.sum(sol.filled().z1 ** 2, axis=1))


gradient = jax.jit(jax.grad(loss))
seconds, slopes = timed(gradient, mus)
memory = gradient.lower(mus).compile().memory_analysis().temp_size_in_bytes
print(
    f"{1000 * seconds:.0f} ms, {memory / 2**20:.1f} MiB of temporary memory, finite: {bool(jnp.isfinite(slopes).all())}"
)

# %% [markdown]
# ## Several devices
#
# `nj.shard` maps a function over the first axis of its first argument, one part on each device of a mesh. Each device
# runs its own queue, and none waits for another. What all solves share comes as further arguments. The two devices here
# are two parts of one CPU, which shows how it works and says nothing about speed.

# %%
devices = jax.devices()
mesh = Mesh(np.array(devices), ("solves",))


def final(mu, start):
    return nj.odesolve(van_der_pol, start, 0.0, 10.0, mu, steps=nj.Adaptive(1e-4, 1e-6)).z1


sharded = jax.jit(nj.shard(final, mesh, "solves"))
spread = sharded(mus, jnp.array([2.0, 0.0]))
difference = float(jnp.median(jnp.abs(spread - sol.z1)))
print(f"{len(devices)} devices, rows of each: {[part.data.shape[0] for part in spread.addressable_shards]}")
print(f"median difference from one device: {difference:.1e}")


# %% [markdown]
# The gradient with respect to a shared argument is one sum over the devices at the end.


# %%
def shared_loss(start):
    return jnp.mean(nj.shard(final, mesh, "solves")(mus, start) ** 2)


def plain_loss(start):
    return jnp.mean(jax.vmap(final, in_axes=(0, None))(mus, start) ** 2)


start = jnp.array([2.0, 0.0])
slope_spread, slope_plain = (jax.jit(jax.grad(f))(start) for f in (shared_loss, plain_loss))
print("gradient, spread", slope_spread)
print("gradient, vmap  ", slope_plain)

# %% [markdown]
# [Ensembles](../docs/ensembles.md) says more about widths, orders, several processes, and what was measured.
#
# The last cell checks what this notebook claims.

# %%
assert sol.ok.all()
assert idle[64] < 0.2 < 0.5 < idle[math.inf]
assert idle_guided < 0.5 * idle[512]
assert all(jnp.median(jnp.abs(states[width] - sol.z1)) < 1e-4 for width in widths)
assert jnp.isfinite(slopes).all()
assert difference < 1e-4
assert jnp.allclose(slope_spread, slope_plain, rtol=1e-2, atol=1e-4)
print("All of it holds.")

# %% [markdown]
# Next: [your own field, method and adjoint](08_your_own.ipynb).
