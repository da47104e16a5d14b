"""The names of JAX that are not stable API: only this module imports them, and a test lists them."""

import jax
from jax.core import ShapedArray, Tracer
from jax.experimental import jet
from jax.experimental.checkify import Error
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Primitive, find_top_trace, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir
from jax.interpreters import partial_eval as pe
from jax.sharding import AbstractMesh
from jaxlib import version as xla_version

try:
    from jax._src.checkify import DivisionByZeroError, OOBError, check_nans, error_checks
except ImportError:  # without these names `checkify` does not look inside a solve
    DivisionByZeroError = OOBError = check_nans = None
    error_checks = {}

# Since 0.12 JAX asks for this option of a `custom_vjp` if some of its results have no mapped axis.
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
    "jet",
    "mlir",
    "pe",
    "set_xla_metadata",
    "xla_version",
]
