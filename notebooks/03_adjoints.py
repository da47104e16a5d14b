# %% [markdown]
# # 3. Gradients: what they cost, where they lie, and a certificate
#
# [![Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/node-jax/node-jax/blob/main/notebooks/03_adjoints.ipynb)
#
# `jax.grad` goes through a solve as through any other function, and `adjoint=` says how. This notebook compares the
# strategies by their memory and their time, shows a problem on which the adjoint method of the neural ODE paper returns
# a wrong gradient without a warning, and shows the check that finds it.

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

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import node_jax as nj

plt.rcParams.update({"figure.dpi": 80, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
info = nj.info()
print(", ".join(f"{name} {version}" for name, version in info.versions.items()))
print("devices:", ", ".join(info.devices))

# %% [markdown]
# ## Six strategies, one gradient
#
# The field is that of a damped pendulum, and the loss is the angle at $t = 10$. Its gradient with respect to the
# stiffness and the damping can be had in six ways. `Checkpointed` is the default. It takes the accepted steps again,
# backwards, and so gives the gradient of exactly those steps. `Direct` lets JAX differentiate the same steps, and
# `Forward` pushes tangents along them. `Reversible` uses another scheme, whose steps can be undone. `Backsolve` and
# `Interpolated` solve the adjoint differential equation instead: `Backsolve` integrates the state backwards together
# with it, and `Interpolated` reads the state from the solution that was kept.


# %%
def pendulum(z, t, theta):
    angle, speed = z
    stiffness, damping = theta
    return jnp.stack([speed, -stiffness * jnp.sin(angle) - damping * speed])


pendulum_start = jnp.array([2.0, 0.0])
theta = jnp.array([1.0, 0.1])
adjoints = (nj.Checkpointed(), nj.Direct(), nj.Forward(), nj.Reversible(), nj.Backsolve(), nj.Interpolated())


def pendulum_angle(theta, adjoint):
    return nj.odesolve(pendulum, pendulum_start, 0.0, 10.0, theta, adjoint=adjoint).z1[0]


gradients = {}
for adjoint in adjoints:
    # Forward has no way back, so its gradient is taken in forward mode
    derivative = jax.jacfwd if isinstance(adjoint, nj.Forward) else jax.grad
    gradient = jax.jit(derivative(pendulum_angle), static_argnums=1)
    gradients[type(adjoint).__name__] = gradient(theta, adjoint)
for name, gradient in gradients.items():
    print(f"{name:<13} {gradient}")

# %% [markdown]
# All six agree to about five digits, which is what float32 and a tolerance of 1e-6 give.
#
# ## What they cost in memory
#
# A batch of 64 pendulums, solved from 0 to 10, may take at most `max_steps` steps each. `nj.estimate_memory` compiles
# the gradient for each strategy and returns what XLA sets apart for it, without running anything.

# %%
limits = (256, 1024, 4096)
compared = (nj.Direct(), nj.Checkpointed(), nj.Checkpointed(checkpoints=16), nj.Backsolve())
needed = {repr(adjoint): [] for adjoint in compared}
for limit in limits:
    found = nj.estimate_memory(pendulum, pendulum_start, 0.0, 10.0, theta, lanes=64, max_steps=limit, adjoints=compared)
    for name, estimate in found.items():
        needed[name].append(estimate.compiled)
for name, sizes in needed.items():
    print(f"{name:<30}", "  ".join(f"{size / 2**20:6.2f} MiB" for size in sizes))

# %%
fig, ax = plt.subplots(figsize=(8.5, 3.2), layout="constrained")
for (name, sizes), color in zip(needed.items(), ("#4a8f5c", "#1f6f8b", "#7b4fa3", "#c8553d"), strict=True):
    ax.loglog(limits, np.array(sizes) / 2**20, "o-", color=color, ms=4, label=name)
ax.set_xticks(limits, labels=[f"{limit:,}" for limit in limits])
ax.minorticks_off()
ax.set(xlabel="max_steps", ylabel="memory of the gradient, MiB")
fig.legend(loc="outside right upper")
plt.show()

# %% [markdown]
# `Backsolve` keeps nothing along the steps. `Checkpointed` keeps the size and the state of each step as long as the
# states fit into its budget of 256 MiB, and a fixed number of states beyond that. `checkpoints=16` sets the number by
# hand: what still grows are the sizes of the steps, and the price is that steps are taken again on the way back.
# `Direct` keeps one state for every 16 steps, and evaluates the field three times as often on the way back.
#
# ## What they cost in time
#
# The next cell runs the gradient of the whole batch. The times are those of the machine that ran this notebook; the
# [page on gradients](../docs/gradients.md) has them for larger problems.

# %%
stiffnesses = jnp.linspace(0.5, 2.0, 64)


def batch_loss(theta, adjoint):
    def angle(stiffness):
        own = jnp.stack([stiffness * theta[0], theta[1]])
        return nj.odesolve(pendulum, pendulum_start, 0.0, 10.0, own, adjoint=adjoint).z1[0]

    return jnp.sum(jax.vmap(angle)(stiffnesses) ** 2)


for adjoint in (nj.Checkpointed(), nj.Checkpointed(checkpoints=16), nj.Direct(), nj.Backsolve(), nj.Interpolated()):
    gradient = jax.jit(jax.grad(batch_loss), static_argnums=1)
    jax.block_until_ready(gradient(theta, adjoint))
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(gradient(theta, adjoint))
        seconds.append(time.perf_counter() - start)
    print(f"{adjoint!r:<30} {1000 * min(seconds):6.1f} ms")

# %% [markdown]
# ## Where a gradient lies
#
# Van der Pol's oscillator draws every trajectory onto one cycle. How does the state at the end depend on $\mu$? The
# reference is `Checkpointed` at a tolerance a hundred times as small.


# %%
def van_der_pol(z, t, mu):
    x, v = z
    return jnp.stack([v, mu * (1 - x**2) * v - x])


oscillator_start = jnp.array([2.0, 0.0])
tight = nj.Adaptive(1e-6, 1e-8)
loose = nj.Adaptive(1e-4, 1e-6)


def end(mu, t1, steps, adjoint):
    return jnp.sum(nj.odesolve(van_der_pol, oscillator_start, 0.0, t1, mu, steps=steps, adjoint=adjoint).z1)


def slopes(steps, adjoint):
    return jax.vmap(jax.grad(end), in_axes=(None, 0, None, None))(2.0, ends, steps, adjoint)


ends = jnp.linspace(0.5, 8.0, 31)
reference = slopes(tight, nj.Checkpointed())
found = {type(adjoint).__name__: slopes(loose, adjoint) for adjoint in (nj.Checkpointed(), nj.Backsolve())}

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.4), layout="constrained")
left.plot(ends, reference, color="#222222", lw=4, alpha=0.25, label="reference")
worst = {}
for (name, values), color in zip(found.items(), ("#1f6f8b", "#c8553d"), strict=True):
    left.plot(ends, values, "o-", color=color, ms=3, lw=1.2, label=name)
    error = jnp.abs(values - reference) / jnp.max(jnp.abs(reference))
    right.semilogy(ends, error, "o-", color=color, ms=3, lw=1.2)
    worst[name] = float(jnp.nanmax(error))
    print(
        f"{name:<13} largest error {worst[name]:.1e} of the largest gradient; NaN {int(jnp.isnan(error).sum())} times"
    )
left.set(title="gradient of the final state", xlabel="end of the solve", ylabel="derivative in $\\mu$")
left.set_ylim(1.6 * float(reference.min()), 1.6 * float(reference.max()))
right.set(title="error, relative to the largest gradient", xlabel="end of the solve", ylabel="error")
fig.legend(loc="outside lower center", ncols=3)
plt.show()

# %% [markdown]
# Up to about $t = 2$ both are right. Then the first jump of the oscillator comes, and `Backsolve` is wrong by up to a
# tenth of the largest gradient, and later by up to a third. It says nothing of it, except where its way back fails
# altogether and the gradient is NaN: these are the gaps. The reason is the cycle: what is drawn onto it forwards is
# pushed off it backwards. The state that `Backsolve` integrates back is soon another one than that of the forward
# solve, and a smaller tolerance only delays that. `Checkpointed` goes back over the steps that were taken, and stays
# right.
#
# ## The certificate
#
# `nj.check_gradient` takes the arguments of a solve, and says how far its gradient can be trusted. It compares with
# gradients at far smaller tolerances by a strategy with an error control of its own, and those with a derivative along
# one direction that is solved together with the state. It costs a few compilations, which is little before a long
# training run.

# %%
reports = {}
for adjoint in (nj.Checkpointed(), nj.Backsolve()):
    report = nj.check_gradient(van_der_pol, oscillator_start, 0.0, 6.0, 2.0, adjoint=adjoint)
    reports[type(adjoint).__name__] = report
    print(report, end="\n\n")

# %% [markdown]
# The report on `Backsolve` names the reason too: its way back did not return to the initial state.
#
# ## Which gradient
#
# | you want | take |
# | --- | --- |
# | the default | `adjoint=nj.Checkpointed()` |
# | less memory | `adjoint=nj.Checkpointed(checkpoints=16)`, and `nj.estimate_memory` to see what it saves |
# | few inputs and many outputs | `adjoint=nj.Forward()` |
# | Hessians, or any order of derivatives | `Checkpointed` forward over reverse, `adjoint=nj.Direct()` for the rest |
# | the gradient of the flow, where that of the steps is not to be trusted | `adjoint=nj.Interpolated()` |
# | memory that no step adds to, on trajectories that do not contract | `adjoint=nj.Backsolve()`, with a certificate |
#
# [Which gradient when](../docs/gradients.md) compares them in full. It has two further ways to a wrong gradient: steps
# at the limit of stability, and a state at rest.
#
# The last cell checks what this notebook claims.

# %%
for gradient in gradients.values():
    assert np.allclose(gradient, gradients["Checkpointed"], rtol=1e-3)
backsolve = needed["Backsolve()"]
assert max(backsolve) < 1.1 * min(backsolve)
assert needed["Checkpointed(checkpoints=16)"][-1] < needed["Checkpointed()"][-1]
assert worst["Checkpointed"] < 0.02
assert worst["Backsolve"] > 0.1
assert reports["Checkpointed"].ok
assert not reports["Backsolve"].ok
print("All of it holds.")

# %% [markdown]
# Next: [a classifier of digits](04_digits.ipynb).
