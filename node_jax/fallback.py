"""A solve whose loop XLA does not compile as one function runs kernel by kernel."""

import warnings
from collections.abc import Callable

import jax

from node_jax.backends.cpu import plain, tried


def or_plain(solve: Callable) -> Callable:
    """Return `solve(static, dynamic)`, compiled; if XLA refuses a loop as one function, with plain ones and a warning.

    That can be seen in an eager call only: what a caller compiles is compiled after the solve was traced.
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
            except jax.errors.JaxRuntimeError:  # the error has another cause
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
