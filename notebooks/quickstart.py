# %% [markdown]
# # node_jax in ten minutes
#
# A solve, a batch, a failure, a gradient that can be checked, and a neural ODE trained on noisy data. All of it runs in
# float32 on a CPU, in a minute or two.

# %% [markdown]
# If the package is missing, as in Colab, the next cell installs it from its repository. A JAX that is there stays as it
# is.

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
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import node_jax as nj

plt.rcParams.update({"figure.dpi": 80, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})

# %% [markdown]
# ## Solve
#
# A vector field is any function `f(z, t, theta)` that JAX can trace: state, time, parameters. Here are Lotka and
# Volterra's prey and predators, with four rates.


# %%
def lotka_volterra(z, t, rates):
    prey, predators = z
    birth, predation, death, gain = rates
    return jnp.stack([prey * (birth - predation * predators), predators * (gain * prey - death)])


rates = jnp.array([1.1, 0.4, 0.4, 0.1])
times = jnp.linspace(0.0, 30.0, 400)
sol = nj.odesolve(lotka_volterra, jnp.array([10.0, 5.0]), 0.0, 30.0, rates, save=nj.SaveAt(times))
print(sol)

# %% [markdown]
# The solver chose its steps by itself (Tsitouras' method of order 5, `rtol=1e-6`): the 400 saved rows are read from
# within 93 steps. Without `save=` only the final state is kept, as `sol.z1`.

# %%
fig, ax = plt.subplots(figsize=(7.5, 2.8), layout="constrained")
for name, color, population in zip(("prey", "predators"), ("#1f6f8b", "#c8553d"), sol.zs.T, strict=True):
    ax.plot(sol.ts, population, color=color, label=name)
ax.set(xlabel="time", ylabel="population", xlim=(0, 30), ylim=(0, None))
fig.legend(loc="outside upper right", ncols=2)
plt.show()
# %% [markdown]
# ## A batch is a `vmap`
#
# Every lane of a batch has its own step sizes, its own count and its own status. Eight initial populations, from near
# the equilibrium to a great many prey:

# %%
starts = jnp.stack([jnp.linspace(5.0, 40.0, 8), jnp.full(8, 3.0)], axis=1)


def orbit(z0):
    return nj.odesolve(lotka_volterra, z0, 0.0, 20.0, rates, save=nj.SaveAt(jnp.linspace(0.0, 20.0, 600)))


batch = jax.vmap(orbit)(starts)
print(batch)
print("steps      ", batch.stats.accepted)
print("rejected   ", batch.stats.rejected)
print("evaluations", batch.stats.nfe)

# %% [markdown]
# `print` says how the lanes ended, `.stats` what each of them cost. The wide orbits have sharp turns and need three
# times the steps of the narrow ones. No lane has had to take the steps of another.

# %%
fig, ax = plt.subplots(figsize=(6.0, 3.6), layout="constrained")
colors = plt.get_cmap("viridis_r")
scale = plt.Normalize(batch.stats.accepted.min(), batch.stats.accepted.max())
for zs, steps in zip(batch.zs, batch.stats.accepted, strict=True):
    ax.plot(*zs.T, color=colors(scale(steps)), lw=1.2)
ax.plot(*starts.T, "o", color="#222222", ms=4, label="starts")
ax.set(xlabel="prey", ylabel="predators", xlim=(0, None), ylim=(0, None))
ax.legend(loc="upper right")
fig.colorbar(plt.cm.ScalarMappable(scale, colors), ax=ax, label="accepted steps")
plt.show()

# %% [markdown]
# ## A failure says so
#
# The solution of $\dot z = z^2$ is $z_0 / (1 - z_0 t)$, which is infinite at $t = 1/z_0$. Nobody can integrate through
# that; the question is what you are told. Called as it stands, a failed solve raises:


# %%
def square(z, t, theta):
    return z**2


try:
    nj.odesolve(square, 1.0, 0.0, 2.0)
except nj.SolveError as error:
    print(error)

# %% [markdown]
# With `throw=False`, and always under `jit`, `vmap` and `grad`, the failure is a value. Each lane says how it ended and
# how far it came; what was not reached is NaN, never a number that looks right.

# %%
z0s = jnp.array([0.2, 0.3, 0.4, 0.6, 0.8])


def grow(z0):
    return nj.odesolve(square, z0, 0.0, 2.0, throw=False)


grown = jax.vmap(grow)(z0s)
print(grown)
print("\n  z0   z(2)  status          t reached    1/z0")
for z0, z1, status, reached in zip(z0s, grown.z1, grown.status, grown.t_reached, strict=True):
    print(f"{z0:4.1f} {z1:6.3f}  {nj.Status(int(status)).name:<16}{reached:9.5f} {1 / z0:7.5f}")

# %% [markdown]
# Two lanes came as far as there is a solution. Masked with `.ok` they add nothing to a gradient, and the others keep
# theirs, which is $1 / (1 - 2 z_0)^2$:


# %%
def total(z0s):
    sol = jax.vmap(grow)(z0s)
    return jnp.sum(jnp.where(sol.ok, sol.z1, 0.0))


print("gradient", jax.grad(total)(z0s))
print("exact   ", jnp.where(grown.ok, 1 / (1 - 2 * z0s) ** 2, 0.0))

# %% [markdown]
# ## Gradients, and whether to believe them
#
# `jax.grad` goes through a solve as through anything else: to initial states, parameters, times, the weights of modules
# and whatever the field closes over. Van der Pol's oscillator, and how its state at $t = 6$ depends on $\mu$:


# %%
def van_der_pol(z, t, mu):
    x, v = z
    return jnp.stack([v, mu * (1 - x**2) * v - x])


z0 = jnp.array([2.0, 0.0])


def final(mu, adjoint):
    return jnp.sum(nj.odesolve(van_der_pol, z0, 0.0, 6.0, mu, adjoint=adjoint).z1)


for adjoint in (nj.Checkpointed(), nj.Backsolve()):
    print(f"{type(adjoint).__name__:<13} {jax.grad(final)(2.0, adjoint):.4f}")

# %% [markdown]
# Two strategies, two answers, and neither complained. `Checkpointed`, the default, differentiates the steps that were
# taken. `Backsolve` is the adjoint method of the neural ODE paper: it integrates the state backwards, away from the
# limit cycle that attracted it. Ask each for a certificate: it compares with gradients at far smaller tolerances, and
# those with finite differences.

# %%
for adjoint in (nj.Checkpointed(), nj.Backsolve()):
    print(nj.check_gradient(van_der_pol, z0, 0.0, 6.0, 2.0, adjoint=adjoint), end="\n\n")

# %% [markdown]
# The default is right to five digits. `Backsolve` is off by far more than the tolerance of 1e-6, and the report says
# why: its way back did not return to `z0`. A check costs a few compilations, little before a long training run.

# %% [markdown]
# ## Train a neural ODE
#
# The data: 32 trajectories of a cubic spiral, each observed at 30 times with noise of standard deviation 0.1.

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
# The model is a small network as vector field, solved from 0 to 3. `squared_error` is a mean over the lanes that
# succeeded, with counts of failures and field evaluations beside it, which the progress bar shows.

# %%
model = nj.NeuralODE(nj.nn.MLPField(2, 64, 2, key=key_model), 0.0, 3.0, steps=nj.Adaptive(rtol=1e-3, atol=1e-4))


def loss(model, data, key):
    starts, observed = data
    sol = jax.vmap(lambda z0: model.solve(z0, save=nj.SaveAt(seen_at)))(starts)
    return nj.train.squared_error(sol, observed)


optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 1000))
fitted = nj.fit(model, loss, (starts, noisy), optimizer, updates=1000, key=key_fit)

# %% [markdown]
# A perfect model would leave the variance of the noise. Against the trajectories without noise, which it has not seen,
# the fit is closer than the data it was given:

# %%
fits = jax.vmap(fitted.model.trajectory, in_axes=(0, None))(starts, seen_at)
print(f"loss: first {fitted.losses[0]:.2f}, last {fitted.losses[-1]:.4f}; variance of the noise {NOISE**2:.4f}")
print(f"RMSE to the truth: data {jnp.sqrt(jnp.mean((noisy - clean) ** 2)):.3f}", end=", ")
print(f"fit {jnp.sqrt(jnp.mean((fits - clean) ** 2)):.3f}")
print(f"failed solves {fitted.failed.sum()}, evaluations an update {fitted.nfe[0]:,} before, {fitted.nfe[-1]:,} after")

# %% [markdown]
# Left: the learned field, and two of the 32 fits. Right: a start that is not in the data, followed for three times as
# long as any trajectory in it.

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
# The model keeps to the spiral well beyond the times it has seen; it drifts in phase first.

# %% [markdown]
# ## Which method, which gradient
#
# | your problem | take |
# | --- | --- |
# | nothing special | the defaults: `method=nj.tsit5`, `adjoint=nj.Checkpointed()` |
# | tolerances of 1e-9 and below, in float64 | `method=nj.dopri8` |
# | loose tolerances, rough fields | `method=nj.bosh3` |
# | the same cost for every input | `steps=nj.Fixed(40), method=nj.rk4` |
# | few parameters, many outputs | `adjoint=nj.Forward()` |
# | Hessians, or any order of derivatives | `Checkpointed` forward over reverse, `adjoint=nj.Direct()` for the rest |
# | memory is short | `adjoint=nj.Checkpointed(checkpoints=16)` first; `nj.estimate_memory` compares without running |
# | a stiff problem | explicit methods are all there is yet: watch `sol.stats.limited`, or `adjoint=nj.Interpolated()` |
#
# Further: [which gradient when](../docs/gradients.md), with errors, memory and times of every strategy;
# [ensembles](../docs/ensembles.md), for batches of thousands and several devices; and the
# [README](../README.md) with the tables of methods, saves and failures.
