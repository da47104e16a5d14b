# %% [markdown]
# # 9. Fitting the parameters of an equation to measurements
#
# [![Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/node-jax/node-jax/blob/main/notebooks/09_parameters.ipynb)
#
# Here the form of the equation is known and its parameters are not: how fast each of twelve people takes up and
# eliminates a drug. This notebook estimates the parameters from measurements, with standard errors and intervals, and
# fits all people in one compiled program.

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
import numpy as np

import node_jax as nj

jax.config.update("jax_enable_x64", True)  # optima are found more precisely in 64 bits
plt.rcParams.update({"figure.dpi": 80, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
info = nj.info()
print(", ".join(f"{name} {version}" for name, version in info.versions.items()))
print("devices:", ", ".join(info.devices))

# %% [markdown]
# ## The data and the equation
#
# Twelve people took one dose of theophylline by mouth. Its concentration in the blood was measured eleven times over a
# day, at times that differ from person to person (Boeckmann, Sheiner and Beal, 1994). `data.ts` and
# `data.concentration` have the shape `(12, 11)`, and `data.dose` has the doses in mg per kg of body weight.

# %%
data = nj.datasets.theophylline()
fig, ax = plt.subplots(figsize=(7.5, 3), layout="constrained")
for ts, concentration in zip(data.ts, data.concentration, strict=True):
    ax.plot(ts, concentration, "-", color="#1f6f8b", alpha=0.6, lw=1, marker=".")
ax.set(xlabel="hours after the dose", ylabel="concentration, mg/L", xlim=(0, None), ylim=(0, None))
plt.show()

# %% [markdown]
# The drug is absorbed from the gut into the blood at one rate, and eliminated from the blood at another. The
# concentration is the amount in the blood divided by the volume in which it is distributed, here in litres per kg.
#
# If the two rates are exchanged, and the volume is changed with them, the curve of the concentration is the same. Two
# different sets of parameters would then fit equally well. To have a single optimum, the rate of absorption is written
# as the rate of elimination plus an excess, which is positive.


# %%
def one_compartment(z, t, theta):
    gut, blood = z
    absorbed = (theta["elimination"] + theta["excess"]) * gut
    return jnp.stack([-absorbed, absorbed - theta["elimination"] * blood])


def concentration(z, theta):
    return z[1] / theta["volume"]


start = {"excess": 1.0, "elimination": 0.1, "volume": 0.5}
positive = {"excess": "log", "elimination": "log", "volume": "log"}

# %% [markdown]
# ## One person
#
# `nj.fit_parameters` takes the vector field and the initial state, as `nj.odesolve` does, then a first guess of the
# parameters, the times and the measurements. The function `observe(z, theta)` computes what is measured from the state.
# A parameter with the transform `"log"` is fitted on a logarithmic scale, and so stays positive. With `starts=20` the
# search begins at the first guess and at 19 random ones around it, all in one compiled program.

# %%
fit = nj.fit_parameters(
    one_compartment,
    jnp.array([data.dose[0], 0.0]),
    start,
    data.ts[0],
    data.concentration[0],
    t0=0.0,
    observe=concentration,
    transform=positive,
    starts=20,
    key=jax.random.key(0),
)
print(fit)

# %% [markdown]
# The table has a row for each parameter: the estimate, its standard error, and an interval that is symmetric on the
# scale on which the parameter was fitted. The measurements are assumed to have normal errors with one standard
# deviation, sigma. It is not a parameter of the search but follows from the residuals at the optimum, which statistics
# calls *profiled out*. "Residual SD" is its estimate.
#
# The last line says how many searches converged, how many failed, and how many ended at the best optimum: within 0.01
# of its log-likelihood and a standard error of its parameters, or at the same parameters.
#
# `fit.predict` returns the fitted curve with a 95 % band. The band covers the curve, and not single measurements.

# %%
times = jnp.linspace(0.0, 25.0, 200)
band = fit.predict(times)
fig, ax = plt.subplots(figsize=(7.5, 3), layout="constrained")
ax.fill_between(band.ts, band.low, band.high, color="#1f6f8b", alpha=0.2, lw=0, label="95 % band of the mean")
ax.plot(band.ts, band.mean, color="#1f6f8b", label="fitted curve")
ax.plot(data.ts[0], data.concentration[0], "o", color="#c8553d", ms=5, label="measured")
ax.set(xlabel="hours after the dose", ylabel="concentration, mg/L", xlim=(0, 25), ylim=(0, None))
fig.legend(loc="outside upper right", ncols=3)
plt.show()

# %% [markdown]
# ## Does it agree with what is known?
#
# This equation has a solution in closed form. Fitting that formula with SciPy's `least_squares` is an independent check
# of the estimates and of their standard errors. Each line shows the value found above and the one by SciPy.

# %%
from scipy.optimize import least_squares


def residuals(x):
    excess, elimination, volume = np.exp(x)
    absorption = elimination + excess
    scale = data.dose[0] * absorption / (volume * excess)
    curve = scale * (np.exp(-elimination * data.ts[0]) - np.exp(-absorption * data.ts[0]))
    return curve - data.concentration[0]


known = least_squares(residuals, np.log([1.0, 0.1, 0.5]), xtol=1e-12, ftol=1e-12, gtol=1e-12)
variance = 2 * known.cost / (len(data.ts[0]) - 3)
errors = np.exp(known.x) * np.sqrt(np.diag(variance * np.linalg.inv(known.jac.T @ known.jac)))
names = ("excess", "elimination", "volume")
ours = np.array([fit.theta[name] for name in names])
our_errors = dict(zip(fit.names, fit.standard_errors().tolist(), strict=True))
our_errors = np.array([our_errors[name] for name in names])
for row in zip(names, ours, np.exp(known.x), our_errors, errors, strict=True):
    print("{:12} estimate {:.5f} and {:.5f}, standard error {:.4f} and {:.4f}".format(*row))

# %% [markdown]
# ## How well is it determined?
#
# A standard error is computed from the curvature of the likelihood at its maximum. A profile looks further: it holds
# one parameter at each of a row of values, fits the others anew, and shows how much the loss rises. The loss is the
# negative log-likelihood. Where the profile crosses the line at 95 % is another interval. It is the same as that of the
# standard error if the sum of squares is a parabola, and here it is a little narrower. If a profile stays below the
# line on one side, the data do not bound the parameter on that side, and the standard error misses that.

# %%
profile = fit.profile("excess", points=15, width=2.5)
fig, ax = plt.subplots(figsize=(5, 3), layout="constrained")
ax.plot(profile.values, profile.losses - profile.losses.min(), color="#1f6f8b", marker=".")
rise = float(profile.threshold - profile.losses.min())
ax.axhline(rise, color="0.6", lw=1)
ax.text(profile.values[-1], rise, "95 %", ha="right", va="bottom", color="0.4", fontsize=9)
ax.set(xlabel="excess of the rate of absorption, 1/h", ylabel="rise of the loss")
plt.show()
print("interval by the profile {:.3f} to {:.3f}".format(*map(float, profile.interval)))

# %% [markdown]
# ## All twelve at once
#
# `jax.vmap` turns a function that fits one person into one that fits all. Each person has a dose and times of their
# own. The fits run in one compiled program, here with 50 starts each, which makes 600 searches.


# %%
def fitted(dose, ts, observed, key):
    return nj.fit_parameters(
        one_compartment,
        jnp.stack([dose, 0.0]),
        start,
        ts,
        observed,
        t0=0.0,
        observe=concentration,
        transform=positive,
        starts=50,
        key=key,
    )


people = jax.vmap(fitted)(data.dose, data.ts, data.concentration, jax.random.split(jax.random.key(1), 12))
print(people)

# %% [markdown]
# The half-life is the time in which the amount in the blood falls by half after everything has been absorbed. The next
# cell draws it for each person, with a 95 % interval. `people.interval` returns the lower and the upper ends, each with
# a column for every parameter in the order of `people.names`.

# %%
half_lives = jnp.log(2.0) / people.theta["elimination"]
k = people.names.index("elimination")
high, low = (jnp.log(2.0) / rates[:, k] for rates in people.interval(0.95))
order = jnp.argsort(half_lives)
fig, ax = plt.subplots(figsize=(7.5, 3), layout="constrained")
ax.errorbar(
    np.arange(12),
    half_lives[order],
    yerr=np.stack([(half_lives - low)[order], (high - half_lives)[order]]),
    fmt="o",
    color="#1f6f8b",
    capsize=3,
)
ax.set(xlabel="row of the table, by half-life", ylabel="half-life, hours", xticks=range(12), ylim=(0, None))
ax.set_xticklabels(order.tolist())
plt.show()
print(f"half-lives from {float(half_lives.min()):.1f} to {float(half_lives.max()):.1f} hours")

# %% [markdown]
# ## Values that are missing
#
# A measurement that is NaN counts as missing. The next fit leaves out the last three values of the first person, those
# from nine hours on. The interval of the elimination becomes much wider than above.

# %%
early = np.where(np.arange(11) < 8, data.concentration[0], np.nan)
short = nj.fit_parameters(
    one_compartment,
    jnp.array([data.dose[0], 0.0]),
    start,
    data.ts[0],
    early,
    t0=0.0,
    observe=concentration,
    transform=positive,
)
print(short)

# %% [markdown]
# [Fitting parameters](../docs/parameters.md) shows a likelihood of your own, here for counts, and lists what is not
# covered.
#
# The last cell checks what this notebook claims.

# %%
assert np.allclose(ours, np.exp(known.x), rtol=1e-4)
assert np.allclose(our_errors, errors, rtol=1e-2)
assert people.converged.all()
assert (people.starts.agree.sum(axis=-1) > 40).all()
wider, narrower = (np.log(high[k] / low[k]) for low, high in (short.interval(), fit.interval()))
assert wider > 1.5 * narrower
print("All of it holds.")
