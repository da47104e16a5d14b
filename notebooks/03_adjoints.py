# %% [markdown]
# # 3. Gradients: what they cost, where one is wrong, and how to check
#
# [![Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/node-jax/node-jax/blob/main/notebooks/03_adjoints.ipynb)
#
# `jax.grad` differentiates a solve like any other function. The argument `adjoint=` of `nj.odesolve` chooses how the
# derivative is computed. This notebook compares the choices by memory and time. It then shows a problem on which the
# adjoint method of the neural ODE paper (Chen, Rubanova, Bettencourt and Duvenaud, 2018) returns a wrong gradient
# without a warning, and `nj.check_gradient`, which detects it.

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
# The field is that of a damped pendulum, and the loss is the angle at $t = 10$. There are six ways to compute its
# gradient with respect to the stiffness and the damping:
#
# - `Checkpointed`, the default, stores states of the forward solve. It then goes through the accepted steps backwards,
#   recomputes each and differentiates it. The result is the exact derivative of the computed steps.
# - `Direct` lets JAX differentiate the loop over the same steps.
# - `Forward` propagates tangents along the same steps, in forward mode.
# - `Reversible` solves with another scheme, whose steps can be undone, so that the states are recomputed backwards.
# - `Backsolve` is the method of the paper: it solves the adjoint equation backwards in time together with the state.
# - `Interpolated` solves the adjoint equation too, but reads the state from the stored and interpolated solution.


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
    # Forward has no reverse mode
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
# A reverse-mode gradient has to reserve memory before the number of steps is known, so what counts is their bound,
# `max_steps`. `nj.estimate_memory` compiles the gradient for each strategy, without running it, and returns the bytes
# of temporary memory that XLA allocates for it. Here it does so for a batch of 64 pendulums and three bounds.

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
# `Backsolve` stores nothing along the steps. `Checkpointed` stores the size and the state of every step as long as the
# states fit into a budget, by default 16 MiB; beyond it, it stores fewer states and recomputes the steps between them.
# On this small problem everything fits, so the default needs the most memory. `checkpoints=16` limits it to 16 states:
# what still grows are the step sizes, and the price is that steps are computed once more in the backward pass. `Direct`
# stores one state for every 16 steps.
#
# ## What they cost in time
#
# The next cell measures the gradient of the whole batch. The times are those of the machine that ran this notebook.
# [Which gradient](../docs/gradients.md#choose-by-size) has times for larger problems.

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
# ## Where a gradient is wrong
#
# Every trajectory of van der Pol's oscillator approaches one cycle, the limit cycle. The next cells differentiate the
# sum of the two components of the final state with respect to $\mu$, for 31 final times. The reference is
# `Checkpointed` at a hundredth of the tolerance.


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
# Up to about $t = 2$ both are right. Then the oscillator makes its first jump, and from there on `Backsolve` is wrong,
# by up to a third of the largest gradient. No warning says so. Where its backward solve fails altogether, the gradient
# is NaN; these are the gaps in the curve.
#
# The reason is the limit cycle. Forward in time, trajectories approach it; backward in time, they move away from it. A
# small error of the state that `Backsolve` integrates backwards grows, and soon that state is not the one of the
# forward solve. A smaller tolerance only delays this. `Checkpointed` does not integrate the state backwards: it goes
# back over the steps that were stored, and stays right.
#
# ## Checking a gradient
#
# `nj.check_gradient` estimates the error of a gradient. It takes the vector field, the state, the times and the
# parameters of one solve, and the options `method=`, `steps=` and `adjoint=` that you intend to use. It checks the
# gradient of the sum of the components of `z1`; `cotangent=` gives them other weights. The reference is a gradient by
# `Interpolated` at far smaller tolerances, which is itself compared with a derivative in forward mode. The check
# compiles several gradients. That takes seconds, so do it once before a long training run.

# %%
reports = {}
for adjoint in (nj.Checkpointed(), nj.Backsolve()):
    report = nj.check_gradient(van_der_pol, oscillator_start, 0.0, 6.0, 2.0, adjoint=adjoint)
    reports[type(adjoint).__name__] = report
    print(report, end="\n\n")

# %% [markdown]
# Each report gives the relative error of the gradient, how precisely this error is known, and the largest error that
# was accepted: `accept=`, by default 0.01. The report on `Backsolve` names the reason too. Its backward solve should
# end at the initial state $z(t_0)$, and missed it by more than the size of that state.
#
# ## Which gradient
#
# | you want | take |
# | --- | --- |
# | the default | `adjoint=nj.Checkpointed()` |
# | less memory | `adjoint=nj.Checkpointed(checkpoints=16)`, and `nj.estimate_memory` to see what it saves |
# | derivatives by few inputs of many outputs | `adjoint=nj.Forward()` with `jax.jacfwd` |
# | a Hessian | the default with `jax.hessian`, which is forward over reverse |
# | reverse over reverse, or derivatives of higher order | `adjoint=nj.Direct()` |
# | the gradient of the exact solution instead of the steps, as for stiff problems | `adjoint=nj.Interpolated()` |
# | memory that does not grow with the steps | `adjoint=nj.Backsolve()`, if `nj.check_gradient` trusts it |
#
# [Which gradient](../docs/gradients.md) compares the strategies in full. [Can a gradient be
# trusted?](../docs/trust.md) shows two further causes of a wrong gradient, which concern `Checkpointed` too: steps at
# the limit of stability of a stiff problem, and an initial state that is an equilibrium.
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
