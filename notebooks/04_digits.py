# %% [markdown]
# # 4. A classifier whose depth is continuous
#
# [![Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/node-jax/node-jax/blob/main/notebooks/04_digits.ipynb)
#
# An ODE-Net replaces the residual blocks of an image classifier by the solution of an ODE. This notebook trains a small
# one on the 1,797 images of digits that come with scikit-learn. Because each image of a batch is solved with steps of
# its own, the notebook can also show which images need more evaluations of the field than others.

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
    get_ipython().run_line_magic("pip", f"install --quiet {package} scikit-learn {kept}")

# %%
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import node_jax as nj

plt.rcParams.update({"figure.dpi": 80, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
info = nj.info()
print(", ".join(f"{name} {version}" for name, version in info.versions.items()))
print("devices:", ", ".join(info.devices))

# %% [markdown]
# ## The data
#
# The images have 8 by 8 pixels, from 0 to 1. Of them 1,500 are for training and 297 for the test.

# %%
images = nj.datasets.digits()
order = np.random.default_rng(0).permutation(len(images.labels))
train, test = order[:1500], order[1500:]
print("images", images.x.shape, "labels", images.labels.shape)

# %% [markdown]
# ## The model
#
# A `Classifier` has three parts: a stem from the image to the state, a `NeuralODE`, and a head from the final state to
# the logits. Here the stem is one convolution that halves the image, so the state has 8 channels of 4 by 4. The field
# is `nj.nn.ConvField`, which is that of the ODE-Net of the neural ODE paper: it normalizes, activates and convolves,
# twice, and each convolution sees the time. The head is one affine layer. For larger images `nj.nn.Classifier.create`
# builds the stem and the head of the paper.

# %%
CHANNELS = 8
stem_key, field_key, head_key = jax.random.split(jax.random.key(0), 3)
stem = eqx.nn.Conv2d(1, CHANNELS, kernel_size=4, stride=2, padding=1, key=stem_key)
field = nj.nn.ConvField(CHANNELS, key=field_key)
ode = nj.NeuralODE(field, 0.0, 1.0, steps=nj.Adaptive(rtol=1e-2, atol=1e-2))
head = eqx.nn.Sequential([eqx.nn.Lambda(jnp.ravel), eqx.nn.Linear(CHANNELS * 16, 10, key=head_key)])
model = nj.nn.Classifier(stem, ode, head)
print(f"{sum(x.size for x in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))):,} weights")

# %% [markdown]
# ## Training
#
# `nj.train.cross_entropy` maps the model over the batch. It returns the mean cross-entropy, the counts of failures and
# evaluations, and the accuracy, which the progress bar shows.

# %%
EPOCHS, BATCH = 6, 64
optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, EPOCHS * (len(train) // BATCH)))
data = (images.x[train], images.labels[train])
fitted = nj.fit(model, nj.train.cross_entropy, data, optimizer, epochs=EPOCHS, batch_size=BATCH, key=jax.random.key(1))
print(f"failed solves {fitted.failed.sum()}")

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 2.9), layout="constrained")
left.semilogy(fitted.losses, color="#1f6f8b", lw=1.2)
left.set(xlabel="update", ylabel="cross-entropy, nats")
right.plot(fitted.nfe / BATCH, color="#c8553d", lw=1.2)
right.set(xlabel="update", ylabel="evaluations an image", ylim=(0, None))
plt.show()

# %% [markdown]
# ## The test
#
# A call of the model returns logits. `solve` returns the `Solution` beside them, with the counts of every image.


# %%
@eqx.filter_jit
def classify(model, x):
    return jax.vmap(model.solve)(x)


logits, solution = classify(fitted.model, images.x[test])
predicted, labels = np.argmax(logits, axis=1), images.labels[test]
accuracy = np.mean(predicted == labels)
print(solution)
print(f"accuracy {accuracy:.3f}: {np.sum(predicted != labels)} of {len(test)} images are wrong")

# %%
wrong = np.flatnonzero(predicted != labels)[:8]
fig, axes = plt.subplots(1, 8, figsize=(9.5, 1.6), layout="constrained")
for ax in axes:
    ax.set_axis_off()
for ax, i in zip(axes, wrong, strict=False):
    ax.imshow(images.x[test][i, 0], cmap="Greys")
    ax.set_title(f"{labels[i]}, taken for {predicted[i]}", fontsize=9)
plt.show()

# %% [markdown]
# ## Depth that depends on the image
#
# The tolerance decides how many steps each image takes. It can be changed after training. A tighter one costs more
# evaluations, and here it changes no answer, or hardly one.

# %%
tolerances = (1e-1, 1e-2, 1e-3, 1e-4)
same = []
print("tolerance  accuracy  same answers  evaluations an image")
for tolerance in tolerances:
    changed = eqx.tree_at(lambda m: m.ode.steps, fitted.model, nj.Adaptive(tolerance, tolerance))
    others, counted = classify(changed, images.x[test])
    answers = np.argmax(others, axis=1)
    nfe = np.asarray(counted.stats.nfe)
    same.append(np.mean(answers == predicted))
    print(f"{tolerance:9.0e} {np.mean(answers == labels):9.3f} {same[-1]:13.3f}", end=" ")
    print(f"{nfe.mean():11.1f}, {nfe.min()} to {nfe.max()}")

# %%
fig, ax = plt.subplots(figsize=(7.0, 2.8), layout="constrained")
means = [nfe[labels == digit].mean() for digit in range(10)]
jitter = np.random.default_rng(1).uniform(-0.25, 0.25, len(labels))
ax.plot(labels + jitter, nfe, ".", color="#1f6f8b", ms=3, alpha=0.5, label="an image")
ax.plot(range(10), means, "_", color="#c8553d", ms=18, mew=2, label="mean")
ax.set(xlabel="digit", ylabel="evaluations", title="tolerance 1e-4", xticks=range(10))
fig.legend(loc="outside right upper")
plt.show()

# %% [markdown]
# At a tolerance of 1e-4 most images need 50 or 56 evaluations. The numbers lie six apart, because a step takes six
# evaluations. An 8 needs the most on average and a 4 the fewest. The differences between digits are small, as those
# within a digit are.
#
# The last cell checks what this notebook claims.

# %%
assert accuracy > 0.9
assert solution.ok.all()
assert fitted.failed.sum() == 0
assert min(same[1:]) > 0.95
assert nfe.min() < nfe.max()
print("All of it holds.")

# %% [markdown]
# Next: [densities by continuous flows](05_flows.ipynb).
