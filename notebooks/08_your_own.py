# %% [markdown]
# # 8. Your own field, method and adjoint
#
# [![Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/node-jax/node-jax/blob/main/notebooks/08_your_own.ipynb)
#
# The parts of a solve can be replaced by your own. This notebook writes a field with a structured state, a Runge-Kutta
# method as a row of numbers, an implicit method for a stiff problem, and a strategy for gradients. `nj.testing` then
# checks each of them in batches, in gradients and in compiled code.

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
import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
from jax.flatten_util import ravel_pytree

import node_jax as nj
from node_jax import extending as ext

plt.rcParams.update({"figure.dpi": 80, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
info = nj.info()
print(", ".join(f"{name} {version}" for name, version in info.versions.items()))
print("devices:", ", ".join(info.devices))

# %% [markdown]
# ## A field
#
# A field is any function or module that maps a state, a time and parameters to a slope. The state may be any pytree of
# floating arrays, and the slope has its structure. The leaves of a module are its parameters. This one is a chain of
# masses and springs, whose state is a dictionary.


# %%
class Chain(eqx.Module):
    """Masses between walls, with springs between neighbours."""

    stiffness: jax.Array
    damping: jax.Array

    def __call__(self, z, t, theta=None):
        place, speed = z["place"], z["speed"]
        stretch = jnp.diff(jnp.pad(place, 1))
        return {"place": speed, "speed": jnp.diff(self.stiffness * stretch) - self.damping * speed}


chain = Chain(jnp.full(9, 4.0), jnp.array(0.1))
plucked = {"place": jnp.zeros(8).at[2].set(1.0), "speed": jnp.zeros(8)}
nj.testing.assert_field(chain, plucked)
sol = nj.odesolve(chain, plucked, 0.0, 10.0, save=nj.SaveAt(jnp.linspace(0.0, 10.0, 200)))
print(sol)

# %%
fig, ax = plt.subplots(figsize=(7.5, 3.2), layout="constrained")
for i in range(8):
    ax.plot(sol.ts, i + 1 + sol.zs["place"][:, i], color="#1f6f8b", lw=1.2)
ax.set(xlabel="time", ylabel="mass, displaced", xlim=(0, 10), yticks=range(1, 9))
plt.show()

# %% [markdown]
# Gradients reach the leaves of the module without further ado.


# %%
def swing(chain):
    return nj.odesolve(chain, plucked, 0.0, 5.0).z1["place"][5]


print("gradient in the stiffness", jax.grad(swing)(chain).stiffness)

# %% [markdown]
# ## An explicit method is a row of numbers
#
# An explicit Runge-Kutta method is defined by its tableau. This is Ralston's method of order 3 (1962), with three
# stages. The error estimate is the difference between its result and that of the midpoint rule, which is of order 2, so
# its weights are the differences of the weights.

# %%
ralston3 = nj.ExplicitRK(
    3,
    c=(0.0, 1 / 2, 3 / 4),
    a=((), (1 / 2,), (0.0, 3 / 4)),
    b=(2 / 9, 1 / 3, 4 / 9),
    b_error=(2 / 9, 1 / 3 - 1.0, 4 / 9),
    error_order=3,
    name="ralston3",
)
print(nj.odesolve(nj.testing.decay, 1.0, 0.0, 1.0, 2.0, method=ralston3, steps=nj.Adaptive(1e-4, 1e-6)))

# %% [markdown]
# ## A method with code of its own
#
# A method of another kind is a frozen dataclass with a `step`. It takes one step of one lane, as a solve within a batch
# is called, and returns the state at the end, an error estimate, and the states that its dense output is made of. The
# package maps it over batches, and differentiates it. This one is a Rosenbrock method, called Rodas3 (Sandu et al.,
# 1997): it solves linear systems with the Jacobian of the field, and can take long steps through stiff problems. Its
# dense output is the cubic through the states and slopes at both ends.


# %%
@dataclasses.dataclass(frozen=True)
class Rosenbrock(ext.MethodDefaults):
    """Rodas3: four stages, L-stable, of order 3."""

    order: int = 3
    degree: int = 3
    dense_size: int = 3

    def step(self, field, t, z, h, theta, memory):
        y, unravel = ravel_pytree(z)

        def f(y, t):
            return ravel_pytree(field(unravel(y), t, theta))[0]

        slope, bend = jax.jvp(lambda t: f(y, t), (t,), (jnp.ones_like(t),))
        half, bend = h / 2, h * h / 2 * bend
        factors = jax.scipy.linalg.lu_factor(jnp.eye(y.size, dtype=y.dtype) - half * jax.jacfwd(f)(y, t))

        def solved(right):
            return jax.scipy.linalg.lu_solve(factors, right)

        u = solved(half * slope + bend / 2)
        v = solved(half * slope + 2 * u + 3 * bend / 2)
        w = solved(half * f(y + 2 * u, t + h) + (u - v) / 2)
        x = solved(half * f(y + 2 * u + w, t + h) + (u - v - 8 / 3 * w) / 2)
        z1 = unravel(y + 2 * u + w + x)
        dense = (unravel(slope), field(z1, t + h, theta), z1)
        return ext.Step(z1, (unravel(x),), dense, memory, work=jnp.int32(y.size + 5))

    def polynomial(self, z, h, dense):
        """Return the cubic with the states and slopes of both ends (Hermite)."""

        def cubic(z, k0, k1, z1):
            return z, h * k0, 3 * (z1 - z) - h * (2 * k0 + k1), 2 * (z - z1) + h * (k0 + k1)

        return jax.tree.transpose(jax.tree.structure(z), jax.tree.structure((0,) * 4), jax.tree.map(cubic, z, *dense))


# %% [markdown]
# The oscillator of Van der Pol is stiff for a large $\mu$. An explicit method has to take steps of the size of its
# stability limit, however smooth the solution is. The Rosenbrock method takes steps of the size that the solution
# allows.


# %%
def van_der_pol(z, t, mu):
    return jnp.stack([z[1], mu * (1 - z[0] ** 2) * z[1] - z[0]])


start = jnp.array([2.0, 0.0])
steps = nj.Adaptive(1e-4, 1e-6)
explicit = nj.odesolve(van_der_pol, start, 0.0, 20.0, 200.0, steps=steps, max_steps=100_000)
implicit = nj.odesolve(van_der_pol, start, 0.0, 20.0, 200.0, steps=steps, method=Rosenbrock())
print("tsit5     ", explicit)
print("Rosenbrock", implicit)
print("final states", explicit.z1, implicit.z1)

# %% [markdown]
# Both end at the same state, to about five digits. The explicit method took more than three thousand steps for it, and
# the Rosenbrock method 22.
#
# The method goes wherever those of the package go. Here are four values of $\mu$ in one batch, dense output at 300
# times, and a gradient.

# %%
mus = jnp.array([1.0, 5.0, 20.0, 80.0])
times = jnp.linspace(0.0, 20.0, 300)


def path(mu):
    return nj.odesolve(van_der_pol, start, 0.0, 20.0, mu, steps=steps, method=Rosenbrock(), save=nj.SaveAt(times))


paths = jax.vmap(path)(mus)
print(paths, paths.stats.accepted)


def late(mu):
    return jnp.sum(path(mu).z1)


print("gradient in mu", jax.vmap(jax.grad(late))(mus))

# %%
fig, ax = plt.subplots(figsize=(7.5, 2.8), layout="constrained")
for zs, mu, color in zip(paths.zs, mus, ("#4a8f5c", "#1f6f8b", "#7b4fa3", "#c8553d"), strict=True):
    ax.plot(times, zs[:, 0], color=color, lw=1.4, label=f"$\\mu$ = {mu:g}")
ax.set(xlabel="time", ylabel="$z_1$", xlim=(0, 20))
fig.legend(loc="outside upper right", ncols=4)
plt.show()

# %% [markdown]
# ## An adjoint
#
# An adjoint goes back over what the solve recorded. Unlike a method it works on all lanes of a batch at once, and
# `node_jax.extending` has the functions that it is put together from. This one is truncated backpropagation: the
# cotangent is set to zero at the steps that start before the last `window` units of time.


# %%
class Truncated(eqx.Module, ext.AdjointDefaults):
    """Differentiate only steps that start in the last `window` units of time."""

    window: float = eqx.field(static=True)

    def recorder(self, each):
        return ext.recorder_of(self, each, None, states=True, timed=True)  # also where the field reads no time

    def stored(self, limit, state, sizes):
        return sizes + limit * state

    def backward(self, each, outcome, history, bar):
        ends, bar = ext.Ends.of(each, outcome, bar, ext.moving_times(each))
        late, bar = ends.pull_arrival(bar)
        inner = ext.within_steps(ends.each)
        whole, first = ext.pullback_of_steps(inner), each(lambda inputs, _: inputs.t1 - self.window)()

        def pullback(start):
            step, pull = whole(start)
            near = step.t >= first
            return step, lambda bar: pull(jax.tree.map(lambda g: jnp.where(near, g, 0.0), bar))

        z_bar, along = ext.back_over_steps(ends, inner, history, bar, pullback, self.recorder(each), exact=False)
        return ends.total(late, along, ends.pull_departure(bar, z_bar))


def end(mu, adjoint):
    return nj.odesolve(van_der_pol, start, 0.0, 10.0, mu, adjoint=adjoint).z1[0]


whole = jax.grad(end)(1.0, nj.Checkpointed())
windows = jnp.array([1.0, 2.0, 4.0, 6.0, 8.0, 10.0])
truncated = [jax.grad(end)(1.0, Truncated(float(window))) for window in windows]
for window, gradient in zip(windows, truncated, strict=True):
    print(f"window {window:4.1f}  gradient {gradient:8.5f}")
print(f"whole        gradient {whole:8.5f}")

# %% [markdown]
# The last window cuts nothing off, and its gradient is the whole one. A shorter window leaves out what earlier steps
# add, which here is more than the gradient itself: the shortest window does not even have its sign.
#
# ## Checks
#
# `nj.testing` has a check for each kind of part. It solves, maps, differentiates and compiles with the part, and raises
# an `AssertionError` that says what does not hold.

# %%
nj.testing.assert_method_order(ralston3)
nj.testing.assert_method(ralston3)
nj.testing.assert_method(Rosenbrock())
nj.testing.assert_adjoint(Truncated(10.0))  # of a solve from 0 to 1, so that nothing is cut off
print("The methods and the adjoint pass.")

# %% [markdown]
# A part that is wrong is found. Here is the same tableau with two weights exchanged, and what the check of its order
# says.

# %%
wrong = dataclasses.replace(ralston3, b=(2 / 9, 4 / 9, 1 / 3), name="wrong")
try:
    nj.testing.assert_method_order(wrong)
except AssertionError as error:
    complaint = str(error)
    print(complaint)

# %% [markdown]
# [Extending](../docs/extending.md) shows a policy of steps and a save as well. `node_jax.protocols` lists what each
# kind of part is asked for, and `node_jax.extending` has defaults for what need not be said.
#
# The last cell checks what this notebook claims.

# %%
assert sol.ok
assert implicit.stats.accepted * 20 < explicit.stats.accepted
assert jnp.allclose(implicit.z1, explicit.z1, rtol=1e-3)
assert paths.ok.all()
assert jnp.allclose(truncated[-1], whole, rtol=1e-4)
assert complaint
print("All of it holds.")
