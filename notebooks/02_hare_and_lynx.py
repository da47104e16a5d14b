# %% [markdown]
# # 2. Training a neural ODE: from a known spiral to the hare and the lynx
#
# [![Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/node-jax/node-jax/blob/main/notebooks/02_hare_and_lynx.ipynb)
#
# This notebook trains a network as the vector field of an ODE with `nj.fit`. It begins with noisy data of a system that
# is known, where the result can be compared with the truth. It then takes a real record of 21 years, and compares the
# network with the classical equations, on the years it saw and on years that were held out.

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
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import node_jax as nj
from node_jax.studies.hare_lynx import populations as study

plt.rcParams.update({"figure.dpi": 80, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
info = nj.info()
print(", ".join(f"{name} {version}" for name, version in info.versions.items()))
print("devices:", ", ".join(info.devices))

# %% [markdown]
# ## A system that is known
#
# The data are 32 trajectories of a cubic spiral. Each is observed at 30 times, with normal noise of standard deviation
# 0.1.

# %%
A = jnp.array([[-0.1, 2.0], [-2.0, -0.1]])
NOISE = 0.1
seen_at = jnp.linspace(0.0, 3.0, 30)


def spiral(z, t, A):
    return A @ z**3


def truth(z0, times):
    return nj.odesolve(spiral, z0, 0.0, times[-1], A, save=nj.SaveAt(times)).zs


key_radius, key_angle, key_noise, key_model, key_fit = jax.random.split(jax.random.key(0), 5)
radius = jax.random.uniform(key_radius, (32,), minval=1.0, maxval=2.2)
angle = jax.random.uniform(key_angle, (32,), maxval=2 * jnp.pi)
starts = jnp.stack([radius * jnp.cos(angle), radius * jnp.sin(angle)], axis=1)
clean = jax.vmap(truth, in_axes=(0, None))(starts, seen_at)
noisy = clean + NOISE * jax.random.normal(key_noise, clean.shape)
print("starts", starts.shape, "observations", noisy.shape)

# %% [markdown]
# The model is a small network as vector field, solved from 0 to 3. A `NeuralODE` holds the field and the options of the
# solve. The loss is a function of the model, the data and a random key. `nj.train.squared_error` returns the mean over
# the solves that succeeded, and counts failures and evaluations of the field (NFE), which the progress bar shows.

# %%
model = nj.NeuralODE(nj.nn.MLPField(2, 64, 2, key=key_model), 0.0, 3.0, steps=nj.Adaptive(rtol=1e-3, atol=1e-4))


def spiral_loss(model, data, key):
    starts, observed = data
    sol = jax.vmap(lambda z0: model.solve(z0, save=nj.SaveAt(seen_at)))(starts)
    return nj.train.squared_error(sol, observed)


optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 1000))
fitted = nj.fit(model, spiral_loss, (starts, noisy), optimizer, updates=1000, key=key_fit)

# %% [markdown]
# A perfect model would leave a loss equal to the variance of the noise, which is 0.01. The fit can also be compared
# with the trajectories without noise, which it has not seen, and it is nearer to them than the data are.

# %%
fits = jax.vmap(fitted.model.trajectory, in_axes=(0, None))(starts, seen_at)
error_of_data = jnp.sqrt(jnp.mean((noisy - clean) ** 2))
error_of_fit = jnp.sqrt(jnp.mean((fits - clean) ** 2))
print(f"loss: first {fitted.losses[0]:.2f}, last {fitted.losses[-1]:.4f}")
print(f"root mean square distance from the truth: data {error_of_data:.3f}, fit {error_of_fit:.3f}")
print(f"failed solves {fitted.failed.sum()}, evaluations an update {fitted.nfe[0]:,} before, {fitted.nfe[-1]:,} after")

# %% [markdown]
# On the left are the learned field and two of the 32 fits. On the right is a start that is not in the data, followed
# for three times as long as any trajectory in it. The model keeps to the spiral beyond the times that it has seen, and
# drifts in phase first.

# %%
axis = np.linspace(-2.4, 2.4, 25)
grid = np.stack(np.meshgrid(axis, axis), axis=-1)
slopes = jax.vmap(jax.vmap(fitted.model.field, in_axes=(0, None)), in_axes=(0, None))(grid, 0.0)

fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.4), layout="constrained", width_ratios=(1, 1.3))
left.streamplot(axis, axis, *np.moveaxis(slopes, -1, 0), color="#c8c8c8", linewidth=0.7, arrowsize=0.7)
finely = jnp.linspace(0.0, 3.0, 300)
for i, color in ((0, "#7b4fa3"), (1, "#4a8f5c")):
    left.plot(*noisy[i].T, ".", color=color, ms=6)
    left.plot(*fitted.model.trajectory(starts[i], finely).T, color=color, lw=1.6)
left.set(title="data, fits and learned field", xlabel="$z_1$", ylabel="$z_2$", aspect="equal")

later, held_out = jnp.linspace(0.0, 9.0, 300), jnp.array([1.6, 0.0])
right.set_prop_cycle(color=("#1f6f8b", "#c8553d"))
right.axvspan(0.0, 3.0, color="#f1ece2", zorder=0)
right.text(0.1, -2.15, "times in the data", color="#777777")
right.plot(later, truth(held_out, later), ls="--", lw=1.2, label=("$z_1$, truth", "$z_2$, truth"))
right.plot(later, fitted.model.trajectory(held_out, later), lw=1.8, label=("$z_1$, model", "$z_2$, model"))
right.set(title="a start that was held out", xlabel="time", xlim=(0, 9), ylim=(-2.3, 1.9))
fig.legend(handles=right.get_lines(), loc="outside lower right", ncols=4)
plt.show()

# %% [markdown]
# ## A record of hares and lynxes
#
# The Hudson's Bay Company wrote down how many pelts it took in each year. `nj.datasets.hare_lynx` has the thousands of
# pelts of snowshoe hare and Canada lynx from 1900 to 1920. The populations stay positive and differ by factors, so the
# logarithms are modelled. The first 15 years are for training, and the last six are held out.

# %%
record = nj.datasets.hare_lynx()
years = jnp.asarray(record.years - 1900.0)
logs = jnp.log(jnp.stack([record.hare, record.lynx], axis=1))
TRAINED, FIRST = 15, 8
print(f"{len(years)} years, of which {TRAINED} are for training")

# %% [markdown]
# The field is a network with 16 units in each of two hidden layers, which sees the logarithms in units of their mean
# and spread. The state in 1900 was observed with an error too, so it is trained with the weights. Fifteen points do not
# determine a network, so eight networks are trained at once from different initial weights: `members=8` maps the
# training over the leading axis of every array of the model.

# %%
MEMBERS = 8
mean, spread = np.mean(logs[:TRAINED], axis=0), np.std(logs[:TRAINED], axis=0)


class LogField(eqx.Module):
    net: nj.nn.MLPField

    def __call__(self, z, t, theta=None):
        return spread * self.net((z - mean) / spread, t)


class Population(eqx.Module):
    ode: nj.NeuralODE
    z0: jax.Array

    def solve(self, ts):
        return self.ode.solve(self.z0, t1=ts[-1], save=nj.SaveAt(ts))


def network(key):
    field = LogField(nj.nn.MLPField(2, 16, 2, key=key))
    return Population(nj.NeuralODE(field, steps=nj.Adaptive(1e-4, 1e-5), max_steps=256), logs[0])


def loss(model, data, key):
    ts, observed, weights = data
    return nj.train.squared_error(model.solve(ts), observed, weights)


networks = eqx.filter_vmap(network)(jax.random.split(jax.random.key(1), MEMBERS))

# %% [markdown]
# A network that has to fit all years from the beginning tends to find the mean of the record, and stays there. It is
# easier to fit the first eight years, and then all fifteen. The weights of the loss say which years count.


# %%
def train(models, name):
    for seen, updates in ((FIRST, 250), (TRAINED, 750)):
        weights = (jnp.arange(TRAINED) < seen).astype(logs.dtype)
        data = (years[:TRAINED], logs[:TRAINED], weights)
        optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, updates))
        label = f"{name}, 1900 to {1899 + seen}"
        run = nj.fit(
            models, loss, data, optimizer, updates=updates, key=jax.random.key(2), members=MEMBERS, progress=label
        )
        models = run.model
    return run


ours = train(networks, "networks")

# %% [markdown]
# The comparison is with the equations of Lotka and Volterra. For the logarithms $h$ and $l$ of hare and lynx they are
# $\dot h = a - b e^l$ and $\dot l = d e^h - c$. Their four rates and the state in 1900 are fitted in the same way from
# eight starts, of which the best on the years seen is taken. They are part of `node_jax.studies`, which is also what
# `python -m node_jax demo` runs.

# %%
theirs = train(study.classical(study.load(), jax.random.key(3)), "Lotka and Volterra")

# %% [markdown]
# Errors are root mean squares of the error of the logarithms. Of the eight networks the median is taken.

# %%
months = jnp.linspace(0.0, 20.0, 241)


@eqx.filter_jit
def forecasts(models):
    return eqx.filter_vmap(lambda model: model.solve(months).zs)(models)


def errors(forecast):
    error = np.asarray(forecast[::12] - logs)
    return np.sqrt(np.mean(error[:TRAINED] ** 2)), np.sqrt(np.mean(error[TRAINED:] ** 2))


many = np.asarray(forecasts(ours.model))
median = np.nanmedian(many, axis=0)
classical = np.asarray(forecasts(theirs.model))
best = classical[np.nanargmin([errors(each)[0] for each in classical])]
print("                     1900 to 1914   1915 to 1920, held out")
for name, forecast in (("networks, median", median), ("Lotka and Volterra", best)):
    print("{:<20} {:8.2f} {:16.2f}".format(name, *errors(forecast)))
print(f"failed solves {ours.failed.sum() + theirs.failed.sum()}")

# %%
fig, ax = plt.subplots(figsize=(9.0, 4.2), layout="constrained")
ax.axvspan(1914.5, 1920.4, color="#f1ece2", zorder=0)
for i, (name, color) in enumerate((("hare", "#c8553d"), ("lynx", "#1f6f8b"))):
    low, high = np.nanmin(many[..., i], axis=0), np.nanmax(many[..., i], axis=0)
    ax.fill_between(1900 + months, np.exp(low), np.exp(high), color=color, alpha=0.18, lw=0)
    ax.plot(1900 + months, np.exp(median[:, i]), color=color, lw=2, label=f"{name}, networks")
    ax.plot(1900 + months, np.exp(best[:, i]), color=color, lw=1.1, ls="--", label=f"{name}, Lotka and Volterra")
    pelts = np.exp(logs[:, i])
    ax.plot(record.years[:TRAINED], pelts[:TRAINED], "o", color=color, ms=5)
    ax.plot(record.years[TRAINED:], pelts[TRAINED:], "o", color=color, ms=5, mfc="white")
ax.text(1914.7, 2.4, "held out", color="#777777")
ax.set(xlabel="year", ylabel="thousands of pelts", yscale="log", xlim=(1899.6, 1920.4), ylim=(2, 200))
ax.set_xticks(range(1900, 1921, 4))
ax.set_yticks((3, 10, 30, 100), labels=("3", "10", "30", "100"))
fig.legend(loc="outside lower center", ncols=4)
plt.show()

# %% [markdown]
# The networks fit the years that they saw much better than the equations do: their errors are about a third as large.
# They forecast the years that were held out worse. Fifteen points do not determine a network, and the band shows how
# far the eight disagree where there are no data. The hares fell to a tenth of their number then, which neither foresaw.
#
# The last cell checks what this notebook claims.

# %%
assert error_of_fit < error_of_data
assert fitted.failed.sum() == 0
assert errors(median)[0] < errors(best)[0]
assert np.isfinite(median).all()
print("All of it holds.")

# %% [markdown]
# Next: [where gradients come from, what they cost, and when they are wrong](03_adjoints.ipynb).
