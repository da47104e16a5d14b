"""A fallback for solves whose loop XLA refuses to compile as one function."""

import warnings
from collections.abc import Callable

import jax

from node_jax.backends.cpu import plain, tried


def or_plain(solve: Callable) -> Callable:
    """Return `solve(static, dynamic)`, compiled; if XLA refuses its loop as one function, warn and compile plain loops.

    This works for eager calls only: under a `jit` of the caller, compilation happens after the solve was traced.
    """
    compiled, refused = jax.jit(solve, static_argnums=0), {}

    def slowly(static, dynamic):
        with plain():
            return refused[static](dynamic)

    def call(static, dynamic):
        if static in refused:
            return slowly(static, dynamic)
        try:
            return compiled(static, dynamic)
        except jax.errors.JaxRuntimeError as error:
            if not tried():
                raise
            refused[static] = jax.jit(lambda dynamic: solve(static, dynamic))
            try:
                solution = slowly(static, dynamic)
            except jax.errors.JaxRuntimeError:  # the refused loop was not the cause
                del refused[static]
                raise error from None
            _warn(error)
            return solution

    return call


def _warn(error: Exception) -> None:
    warnings.warn(
        "XLA does not compile the loop of this solve as one function; it runs kernel by kernel, slower. Under jax.jit"
        f" the same solve fails unless NODE_JAX_FUSED=0 is set in the environment. XLA says: {str(error)[:300]}",
        stacklevel=6,
    )
