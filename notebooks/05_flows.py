# %% [markdown]
# # 5. Continuous flows: densities and samples
#
# [![Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/node-jax/node-jax/blob/main/notebooks/05_flows.ipynb)
#
# A continuous normalizing flow moves a simple density along a vector field until it is that of the data. This notebook
# trains one on two moons, whose true density is known, and shows its density and its samples. It then compares the
# exact trace of the Jacobian with the estimate that makes flows affordable in many dimensions.

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

# %%
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

import node_jax as nj

plt.rcParams.update({"figure.dpi": 80, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
info = nj.info()
print(", ".join(f"{name} {version}" for name, version in info.versions.items()))
print("devices:", ", ".join(info.devices))

# %% [markdown]
# ## The data
#
# `nj.datasets.Moons` is a distribution with `sample` and `log_prob`. The mean negative log-density of any model, in
# nats, cannot be smaller in expectation than that of the truth. The distance from it is what is left to learn.

# %%
truth = nj.datasets.Moons(noise=0.2)
points = truth.sample(jax.random.key(0), (4000,))
unseen = truth.sample(jax.random.key(1), (1000,))
least = -jnp.mean(jax.vmap(truth.log_prob)(unseen))
print(f"the truth on the unseen points: {least:.3f} nats; its entropy: {truth.entropy():.3f}")

# %% [markdown]
# ## The flow
#
# A `CNF` is made of a `NeuralODE` and a base density, which is a standard normal one by default. The field here is a
# network that sees the time; `nj.nn.ConcatSquashField` is that of FFJORD. A flow takes one point, and `jax.vmap` takes
# a batch; each point is solved with its own steps.

# %%
field = nj.nn.MLPField(2, 64, 3, time_dependent=True, key=jax.random.key(2))
flow = nj.nn.CNF(nj.NeuralODE(field, 0.0, 1.0, steps=nj.Adaptive(1e-3, 1e-3)), 2)


@eqx.filter_jit
def judge(flow, points):
    found = jax.vmap(flow.solve)(points)
    return -jnp.mean(found.log_prob), found.solution


value, solution = judge(flow, unseen)
print(f"untrained: {value:.3f} nats, {value - least:.3f} above the truth")
print(solution)

# %% [markdown]
# ## Training in two stages
#
# Maximum likelihood, `nj.train.nll`, solves the ODE of every point in every update. Flow matching solves nothing: it
# compares the field with the velocity of points on straight lines from the base to the data. It brings the flow near at
# little cost, and a few updates of maximum likelihood bring it nearer. The flow, the data and `nj.fit` are the same in
# both.


# %%
def adam(rate, updates):
    return optax.adam(optax.cosine_decay_schedule(rate, updates))


matched = nj.fit(
    flow, nj.train.flow_matching, points, adam(5e-3, 3000), updates=3000, batch_size=512, key=jax.random.key(3),
    progress="flow matching",
)  # fmt: skip
value_matched, solution = judge(matched.model, unseen)
print(f"flow matching: {value_matched:.3f} nats, {value_matched - least:.3f} above the truth")

# %%
fitted = nj.fit(
    matched.model, nj.train.nll, points, adam(3e-3, 60), updates=60, batch_size=256, key=jax.random.key(4),
    progress="maximum likelihood",
)  # fmt: skip
trained = fitted.model
value_trained, solution = judge(trained, unseen)
print(f"maximum likelihood: {value_trained:.3f} nats, {value_trained - least:.3f} above the truth")
print(solution, f"mean evaluations of a point {solution.stats.nfe.mean():.0f}")

# %% [markdown]
# ## Density and samples
#
# The density is found by solving from a point of the data back to the base. Samples go the other way. Since the flow is
# a density, its integral over the plane is 1, which the sum over the grid confirms.

# %%
SIZE = 80
xs, ys = jnp.linspace(-2.0, 3.0, SIZE), jnp.linspace(-1.5, 2.0, SIZE)
grid = jnp.stack(jnp.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
density = jnp.exp(jax.jit(jax.vmap(trained.log_prob))(grid)).reshape(SIZE, SIZE)
true_density = jnp.exp(jax.lax.map(truth.log_prob, grid)).reshape(SIZE, SIZE)
samples = trained.sample(jax.random.key(5), (1000,))
mass = float(jnp.sum(density) * (xs[1] - xs[0]) * (ys[1] - ys[0]))
print(f"integral of the density over the grid {mass:.3f}")

# %%
fig, axes = plt.subplots(1, 3, figsize=(10.5, 2.9), layout="constrained", sharex=True, sharey=True)
shown = {"cmap": "Blues", "vmin": 0.0, "vmax": float(true_density.max()), "shading": "auto", "rasterized": True}
for ax, values, title in ((axes[0], true_density, "density of the data"), (axes[1], density, "density of the flow")):
    mesh = ax.pcolormesh(xs, ys, values, **shown)
    ax.set(title=title, xlabel="$x_1$")
fig.colorbar(mesh, ax=axes[:2], label="density")
axes[2].plot(*samples.T, ".", color="#1f6f8b", ms=2.5, alpha=0.6)
axes[2].set(title="samples of the flow", xlabel="$x_1$", xlim=(-2, 3), ylim=(-1.5, 2))
axes[0].set_ylabel("$x_2$")
plt.show()

# %% [markdown]
# The next figure follows 60 samples from the base, at $t = 0$, to the data, at $t = 1$. Solutions of an ODE never cross
# in space and time, so the map can be undone. This takes a smaller tolerance, which can be changed in a trained model.

# %%
begin = jax.random.normal(jax.random.key(6), (60, 2))
precise = eqx.tree_at(lambda flow: flow.ode.steps, trained, nj.Adaptive(1e-5, 1e-5))
paths = jax.vmap(precise.ode.trajectory, in_axes=(0, None))(begin, jnp.linspace(0.0, 1.0, 40))
back = jax.vmap(precise.inverse)(paths[:, -1])
missed = float(jnp.max(jnp.abs(back - begin)))
print(f"largest error of the way there and back {missed:.1e}")

fig, ax = plt.subplots(figsize=(5.6, 3.8), layout="constrained")
ax.plot(*paths.transpose(2, 1, 0), color="#b8b8b8", lw=0.7)
ax.plot(*begin.T, "o", color="#c8553d", ms=3.5, label="base, $t = 0$")
ax.plot(*paths[:, -1].T, "o", color="#1f6f8b", ms=3.5, label="data, $t = 1$")
ax.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
fig.legend(loc="outside upper right", ncols=2)
plt.show()

# %% [markdown]
# ## Exact trace and estimated trace
#
# The log-density changes along a solution by minus the trace of the Jacobian of the field. The exact trace costs as
# many derivatives as there are dimensions. Hutchinson's estimate costs one, with a random vector that is drawn once for
# a solve: its mean is the exact value. It needs a key.

# %%
estimated = eqx.tree_at(lambda flow: flow.trace, trained, nj.nn.Hutchinson(noise="normal"))
point = jnp.array([0.0, 0.9])
exact = trained.log_prob(point)
keys = jax.random.split(jax.random.key(7), 1000)
draws = jax.jit(jax.vmap(lambda key: estimated.log_prob(point, key=key)))(keys)
spread = jnp.std(draws) / jnp.sqrt(len(draws))
print(f"exact {exact:.3f}; estimates: mean {draws.mean():.3f} +- {spread:.3f}, standard deviation {draws.std():.3f}")

# %% [markdown]
# One estimate is far from exact, but training needs only a mean over many points. What the two cost in more dimensions
# is measured with an untrained field, 64 points and the same ten steps for both. The times are those of the machine
# that ran this notebook.

# %%
DIMENSIONS = (2, 16, 64)
ms = {"exact": [], "Hutchinson": []}
for dim in DIMENSIONS:
    wide = nj.nn.ConcatSquashField(dim, (64,), key=jax.random.key(8))
    ode = nj.NeuralODE(wide, steps=nj.Fixed(10), method=nj.rk4)
    some = jax.random.normal(jax.random.key(9), (64, dim))
    for name, trace in (("exact", nj.nn.Exact()), ("Hutchinson", nj.nn.Hutchinson())):
        other = nj.nn.CNF(ode, dim, trace=trace)
        log_probs = jax.jit(jax.vmap(lambda x, key, other=other: other.log_prob(x, key=key)))
        jax.block_until_ready(log_probs(some, keys[:64]))
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            jax.block_until_ready(log_probs(some, keys[:64]))
            seconds.append(time.perf_counter() - start)
        ms[name].append(1000 * min(seconds))
print("dimensions", *(f"{dim:>8}" for dim in DIMENSIONS))
for name, row in ms.items():
    print(f"{name:<10}", *(f"{each:5.1f} ms" for each in row))

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.0), layout="constrained")
left.hist(draws, bins=40, color="#1f6f8b", alpha=0.75, label="estimates")
left.axvline(float(exact), color="#c8553d", lw=1.8, label="exact")
left.set(title="log-density of one point", xlabel="nats", ylabel="number of draws")
left.legend(fontsize=9)
for (name, row), color in zip(ms.items(), ("#c8553d", "#1f6f8b"), strict=True):
    right.loglog(DIMENSIONS, row, "o-", color=color, ms=4, label=name)
right.set_xticks(DIMENSIONS, labels=map(str, DIMENSIONS))
right.minorticks_off()
right.set(title="log-density of 64 points", xlabel="dimensions", ylabel="ms")
right.legend(fontsize=9)
plt.show()

# %% [markdown]
# The last cell checks what this notebook claims.

# %%
assert value_trained < value_matched < value
assert value_trained < least + 0.1
assert abs(mass - 1) < 0.03
assert missed < 0.05
assert abs(draws.mean() - exact) < 4 * spread
print("All of it holds.")

# %% [markdown]
# Next: [series with irregular times](06_latent_ode.ipynb).
