"""A vector field together with how it is solved: the continuous-depth layer."""

from typing import Any

import equinox as eqx

from node_jax.adjoints.checkpointed import Checkpointed
from node_jax.control import Adaptive, Fixed, Grid
from node_jax.methods import ExplicitRK, tsit5
from node_jax.odesolve import odesolve
from node_jax.save import SaveAt
from node_jax.solution import Solution
from node_jax.types import PyTree


class NeuralODE(eqx.Module):
    """Map a state at `t0` to the state at `t1` along a learned vector field.

    The layer of Chen, Rubanova, Bettencourt and Duvenaud, Neural Ordinary Differential Equations, 2018. It
    takes one state: `jax.vmap(model)(z0s)` for a batch. Outside any transformation a failed solve raises
    `SolveError`.

    Args:
        field: `f(z, t, theta)`, usually an equinox module such as `nn.MLPField`; its leaves are the weights.
        t0: initial time.
        t1: final time. A time given as an array is trained with the weights; a Python number is not.
        theta: parameters of a `field` that is a plain function, trained with the model.
        method: as in `odesolve`; so are `steps`, `adjoint` and `max_steps`.

    Raises:
        TypeError: if `field` is not callable.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import node_jax as nj
        >>> model = nj.NeuralODE(nj.nn.MLPField(2, 16, 1, key=jax.random.key(0)))
        >>> model(jnp.ones(2)).shape
        (2,)
        >>> model.trajectory(jnp.ones(2), jnp.linspace(0.0, 1.0, 5)).shape
        (5, 2)
    """

    field: Any
    t0: Any = 0.0
    t1: Any = 1.0
    theta: PyTree = None
    method: ExplicitRK = eqx.field(static=True, default=tsit5, kw_only=True)
    steps: Adaptive | Fixed | Grid = eqx.field(default=Adaptive(), kw_only=True)
    adjoint: Any = eqx.field(static=True, default=Checkpointed(), kw_only=True)
    max_steps: int | None = eqx.field(static=True, default=4096, kw_only=True)

    def __check_init__(self):
        """Refuse a field that cannot be called."""
        if not callable(self.field):
            raise TypeError(f"field must be callable as field(z, t, theta), got {self.field!r}")

    def __repr__(self) -> str:
        """Name the parts, those at their defaults included."""
        parts = {name: eqx.tree_pformat(getattr(self, name)) for name in ("field", *_OPTIONS)}
        parts["method"] = repr(self.method)
        lines = [f"{name}={text}".replace("\n", "\n  ") for name, text in parts.items()]
        return "NeuralODE(\n  " + ",\n  ".join(lines) + "\n)"

    def __call__(self, z0: PyTree) -> PyTree:
        """Return the state at `t1`.

        Args:
            z0: state at `t0`: pytree of real or complex floating arrays.

        Returns:
            Pytree like `z0`.

        Raises:
            SolveError: if the solve fails and values are concrete.
        """
        return self.solve(z0).z1

    def trajectory(self, z0: PyTree, ts: Any) -> PyTree:
        """Return the states at given times.

        Args:
            z0: state at `t0`, not at `ts[0]`.
            ts: times `(n,)`, `n >= 1`, sorted from `t0` onwards; the last ends the solve, not `t1`.

        Returns:
            Pytree like `z0` with a leading axis `n`.

        Raises:
            SolveError: if the solve fails and values are concrete.
        """
        save = SaveAt(ts)
        return self.solve(z0, t1=save.ts[-1], save=save).zs

    def solve(self, z0: PyTree, **options: Any) -> Solution:
        """Solve from `z0` and return all that is known about the solve.

        Args:
            z0: state at `t0`.
            **options: options of `odesolve` (`t0`, `t1`, `theta`, `save`, ...), replacing the module's.

        Returns:
            A `Solution`.

        Raises:
            SolveError, ValueError, TypeError: as `odesolve`.
        """
        own = {name: getattr(self, name) for name in _OPTIONS}
        return odesolve(self.field, z0, **{**own, **options})


_OPTIONS = ("t0", "t1", "theta", "method", "steps", "adjoint", "max_steps")
