# %% [markdown]
# # 1. A first solve, batches and failures
#
# [![Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/node-jax/node-jax/blob/main/notebooks/01_first_solve.ipynb)
#
# This notebook solves an ordinary differential equation, then a batch of them with `jax.vmap`, and then some that have
# no solution up to the final time. It shows what a solve returns, what each member of a batch costs, and how a failed
# solve can be kept out of a gradient. You need to know JAX, but not this package.

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
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

import node_jax as nj

plt.rcParams.update({"figure.dpi": 80, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
info = nj.info()
print(", ".join(f"{name} {version}" for name, version in info.versions.items()))
print("devices:", ", ".join(info.devices))

# %% [markdown]
# `print(nj.info())` prints more: the version of Python, the platform, whether JAX computes in 64 bits, and whether XLA
# compiles the loop of a small solve into a single CPU function ("compiled loops"), which makes small solves faster.
#
# ## A solve
#
# A vector field is any function `f(z, t, theta)` that JAX can trace. Its arguments are the state, the time and the
# parameters, and it returns the derivative $dz/dt$, with the shape of `z`. `nj.odesolve(f, z0, t0, t1, theta)` solves
# the equation from the state `z0` at time `t0` to time `t1`. Here are the equations of Lotka and Volterra for prey and
# predators, with four rates as parameters.


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
# `print` shows the number of accepted steps and of evaluations of `f`, including those of rejected steps. The solver
# chose the step sizes so that the estimated error of each step stays below a tolerance: by default a relative one of
# 1e-6 and an absolute one of 1e-8. The default method is `nj.tsit5`, a Runge-Kutta method of order 5 by Tsitouras.
#
# The states at the 400 times are in `sol.zs`, an array of shape `(400, 2)`. They are interpolated within the steps, so
# they cost no further evaluations of `f`. Without `save=` only the final state is kept. It is always in `sol.z1`.

# %%
PREY, PREDATORS = "#1f6f8b", "#c8553d"
fig, ax = plt.subplots(figsize=(7.5, 2.8), layout="constrained")
for name, color, population in zip(("prey", "predators"), (PREY, PREDATORS), sol.zs.T, strict=True):
    ax.plot(sol.ts, population, color=color, label=name)
ax.set(xlabel="time", ylabel="population", xlim=(0, 30), ylim=(0, None))
fig.legend(loc="outside upper right", ncols=2)
plt.show()

# %% [markdown]
# These equations have an invariant: a function of the state that is constant along every exact solution. How much it
# changes along the computed solution is a measure of the error.


# %%
def invariant(z):
    prey, predators = z
    birth, predation, death, gain = rates
    return gain * prey - death * jnp.log(prey) + predation * predators - birth * jnp.log(predators)


invariants = jax.vmap(invariant)(sol.zs)
drift = jnp.max(jnp.abs(invariants / invariants[0] - 1))
print(f"relative drift of the invariant: {drift:.1e}")

# %% [markdown]
# ## A batch is a `vmap`
#
# `odesolve` solves one equation and has no batch argument: `jax.vmap` maps it over initial states, parameters or times.
# Every solve of a batch has its own step sizes, counts and status, and every array of the result has the axis of the
# batch in front. Here are eight initial populations, from one near the equilibrium to one with very many prey.

# %%
starts = jnp.stack([jnp.linspace(5.0, 40.0, 8), jnp.full(8, 3.0)], axis=1)


def orbit(z0):
    return nj.odesolve(lotka_volterra, z0, 0.0, 20.0, rates, save=nj.SaveAt(jnp.linspace(0.0, 20.0, 600)))


batch = jax.vmap(orbit)(starts)
print(batch)
print("accepted steps", batch.stats.accepted)
print("rejected steps", batch.stats.rejected)
print("evaluations   ", batch.stats.nfe)

# %% [markdown]
# `print` shows how the solves ended, and `.stats` what each of them cost. The wide orbits have sharp turns, and need
# about three times as many steps as the narrow ones. The narrow ones do not take these extra steps.

# %%
fig, ax = plt.subplots(figsize=(6.0, 3.6), layout="constrained")
colors = plt.get_cmap("viridis_r")
scale = plt.Normalize(batch.stats.accepted.min(), batch.stats.accepted.max())
for zs, steps in zip(batch.zs, batch.stats.accepted, strict=True):
    ax.plot(*zs.T, color=colors(scale(steps)), lw=1.2)
ax.plot(*starts.T, "o", color="#222222", ms=4, label="initial states")
ax.set(xlabel="prey", ylabel="predators", xlim=(0, None), ylim=(0, None))
ax.legend(loc="upper right")
fig.colorbar(plt.cm.ScalarMappable(scale, colors), ax=ax, label="accepted steps")
plt.show()

# %% [markdown]
# ## A failure says so
#
# The solution of $\dot z = z^2$ is $z_0 / (1 - z_0 t)$, which becomes infinite at $t = 1/z_0$. No solver can integrate
# through that point; the question is what it tells you. A solve that is called outside of `jit`, `vmap` and `grad`
# raises an error, which says how far it came and what to look for.


# %%
def square(z, t, theta):
    return z**2


try:
    nj.odesolve(square, 1.0, 0.0, 2.0)
except nj.SolveError as error:
    print(error)

# %% [markdown]
# The step underflowed: near the singularity the solver made its steps smaller and smaller, until a step no longer
# changed the time or the state. The hint on `breakpoints` is meant for fields that jump, as in
# `steps=nj.Adaptive(breakpoints=[1.0])`.
#
# Under `jit`, `vmap` and `grad` nothing can be raised, and with `throw=False` nothing is. The solution then says
# whether the solve succeeded (`ok`), how it ended (`status`) and which time it reached (`t_reached`). States after that
# time are NaN.

# %%
z0s = jnp.array([0.2, 0.3, 0.4, 0.6, 0.8])


def grow(z0):
    return nj.odesolve(square, z0, 0.0, 2.0)


grown = jax.vmap(grow)(z0s)
print(grown)
print("\n  z0   z(2)  status          t reached    1/z0")
for z0, z1, status, reached in zip(z0s, grown.z1, grown.status, grown.t_reached, strict=True):
    print(f"{z0:4.1f} {z1:6.3f}  {nj.Status(int(status)).name:<16}{reached:9.5f} {1 / z0:7.5f}")

# %% [markdown]
# The last two solves stopped where the solution becomes infinite, at $1/z_0$. `sol.filled()` replaces the states of
# failed solves by zeros, so that a loss never reads a NaN. The failed solves then add exactly nothing to a gradient,
# and the others keep theirs, which is $1 / (1 - 2 z_0)^2$.


# %%
def total(z0s):
    return jnp.sum(jax.vmap(grow)(z0s).filled().z1)


gradient = jax.grad(total)(z0s)
exact = jnp.where(grown.ok, 1 / (1 - 2 * z0s) ** 2, 0.0)
print("gradient", gradient)
print("exact   ", exact)

# %% [markdown]
# ## Which method and which steps
#
# | your problem | take |
# | --- | --- |
# | nothing special | the defaults: `method=nj.tsit5`, `steps=nj.Adaptive(rtol=1e-6, atol=1e-8)` |
# | tolerances of 1e-9 and below, in float64 | `method=nj.dopri8` |
# | loose tolerances, rough fields | `method=nj.bosh3` |
# | the same cost for every input | 40 equal steps: `steps=nj.Fixed(40), method=nj.rk4` |
# | the state after every step | `save=nj.SaveSteps(256)`, with room for 256 steps |
# | the state at times that you choose later | `save=nj.Dense(256)`, then `sol.evaluate(t)` |
# | a stiff problem | an [implicit method that you define](08_your_own.ipynb); the package has explicit methods only |
#
# Is a problem stiff? `sol.stats.limited` counts the steps that the stability of the method limited, and not the
# tolerance. [Stiff problems and limits](../docs/stiff.md) shows an example, and [Methods, steps and
# output](../docs/methods.md) describes all choices.
#
# The last cell checks what this notebook claims.

# %%
assert drift < 1e-4
assert batch.ok.all()
assert batch.stats.accepted[-1] > 2.5 * batch.stats.accepted[0]
assert grown.ok.tolist() == [True, True, True, False, False]
assert jnp.isnan(grown.z1[3:]).all()
assert jnp.allclose(grown.t_reached[3:], 1 / z0s[3:], rtol=1e-4)
assert (gradient[3:] == 0).all()
assert jnp.allclose(gradient, exact, rtol=1e-3)
print("All of it holds.")

# %% [markdown]
# Next: [training a neural ODE](02_hare_and_lynx.ipynb).
