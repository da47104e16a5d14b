"""The names of JAX that are not stable API: no other file imports one, and a test lists them."""

import jax
from jax.core import ShapedArray, Tracer
from jax.experimental.checkify import Error
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Primitive, find_top_trace, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir
from jax.interpreters import partial_eval as pe
from jax.sharding import AbstractMesh
from jaxlib import version as xla_version

try:
    from jax._src.checkify import DivisionByZeroError, OOBError, check_nans, error_checks
except ImportError:  # a version of JAX without these: `checkify` then looks at nothing inside a solve
    DivisionByZeroError = OOBError = check_nans = None
    error_checks = {}

# From 0.12 on JAX asks this of a `custom_vjp` some results of which are the same in all lanes.
SHARES = {"generic_batching": True} if jax.__version_info__ >= (0, 12) else {}

__all__ = [
    "SHARES",
    "AbstractMesh",
    "ClosedJaxpr",
    "DivisionByZeroError",
    "Error",
    "Jaxpr",
    "Literal",
    "OOBError",
    "Primitive",
    "ShapedArray",
    "Tracer",
    "ad",
    "batching",
    "check_nans",
    "error_checks",
    "find_top_trace",
    "jaxpr_as_fun",
    "mlir",
    "pe",
    "set_xla_metadata",
    "xla_version",
]
