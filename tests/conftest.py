"""What every test runs under: the CPU, 64-bit floats, strict shapes, and annotations that are checked."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"  # subprocesses of tests inherit these two
os.environ["MPLBACKEND"] = "agg"

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
install_import_hook("node_jax", "beartype.beartype")
