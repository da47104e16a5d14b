"""The commands of `node-jax`: one file each, and what `fit` is made of."""
