"""A vector field together with how it is solved: the continuous-depth layer."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from node_jax.adjoints.checkpointed import Checkpointed
from node_jax.arguments import check_parts
from node_jax.control import Adaptive, Fixed, Grid
from node_jax.methods import ExplicitRK, tsit5
from node_jax.nn.augmented import Augmented
from node_jax.nn.integrals import Along, WithIntegrals, check_names, saving, split, watching
from node_jax.nn.regularizers import RandomEnd, SolverError
from node_jax.nn.solver_error import solver_error
from node_jax.odesolve import odesolve
from node_jax.save import SaveAt, SaveEnd
from node_jax.solution import Solution
from node_jax.types import PyTree, direction


def _several(regularizers: Any) -> tuple[Any, ...]:
    """Return a tuple, of one regularizer too."""
    return (regularizers,) if isinstance(regularizers, eqx.Module) else tuple(regularizers)


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
        method: as in `odesolve`.
        steps: as in `odesolve`.
        adjoint: as in `odesolve`.
        max_steps: as in `odesolve`.
        regularizers: what `solve` computes besides, for a loss: `Kinetic()`, `JacobianFrobenius()`,
            `TotalDerivative()`, `SolverError()`; `RandomEnd(b)` makes the end of a solve random.

    Raises:
        TypeError: if `field` is not callable, or `method`, `steps` or `adjoint` is no such part.
        ValueError: if two regularizers have one name.

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
    regularizers: tuple[Any, ...] = eqx.field(converter=_several, default=(), kw_only=True)

    def __check_init__(self):
        """Refuse a field that cannot be called, parts that are none, and regularizers that cannot be told apart."""
        if not callable(self.field):
            raise TypeError(f"field must be callable as field(z, t, theta), got {self.field!r}")
        check_parts(method=self.method, steps=self.steps, save=SaveEnd(), adjoint=self.adjoint)
        check_names([x.name for x in self.regularizers if not isinstance(x, RandomEnd)])
        for one in self.regularizers:
            if isinstance(one, RandomEnd):
                one.check(self.t0, self.t1)

    def __repr__(self) -> str:
        """Name the parts, those at their defaults included."""
        names = ("field", *_OPTIONS, *(("regularizers",) if self.regularizers else ()))
        parts = {name: eqx.tree_pformat(getattr(self, name)) for name in names}
        parts["method"] = repr(self.method)
        lines = [f"{name}={text}".replace("\n", "\n  ") for name, text in parts.items()]
        return "NeuralODE(\n  " + ",\n  ".join(lines) + "\n)"

    def __call__(self, z0: PyTree, theta: PyTree = None) -> PyTree:
        """Return the state at `t1`.

        Args:
            z0: state at `t0`: pytree of real or complex floating arrays.
            theta: parameters of the field, such as a condition; default: those of the module.

        Returns:
            Pytree like `z0`; with an `Augmented` field, the larger state.

        Raises:
            SolveError: if the solve fails and values are concrete.
        """
        return self.solve(z0, regularized=False, **given(theta)).z1

    def trajectory(self, z0: PyTree, ts: Any, theta: PyTree = None) -> PyTree:
        """Return the states at given times.

        Args:
            z0: state at `t0`, not at `ts[0]`.
            ts: times `(n,)`, `n >= 1`, sorted from `t0` onwards; the last ends the solve, not `t1`.
            theta: parameters of the field, such as a condition; default: those of the module.

        Returns:
            Pytree like `z0` with a leading axis `n`.

        Raises:
            SolveError: if the solve fails and values are concrete.
        """
        save = SaveAt(ts)
        return self.solve(z0, t1=save.ts[-1], save=save, regularized=False, **given(theta)).zs

    def solve(self, z0: PyTree, *, key: Any = None, regularized: bool = True, **options: Any) -> Solution:
        """Solve from `z0` and return all that is known about the solve.

        Args:
            z0: state at `t0`.
            key: JAX random key for the regularizers that are random.
            regularized: whether the regularizers are computed.
            **options: options of `odesolve` (`t0`, `t1`, `theta`, `save`, ...), replacing the module's.

        Returns:
            A `Solution`, with a dict of real scalars by name as `penalties`.

        Raises:
            SolveError, ValueError, TypeError: as `odesolve`; ValueError if a random regularizer has no key.
        """
        return self.along(z0, key=key, regularized=regularized, **options).solution

    def along(
        self, z0: PyTree, watched: tuple[Any, ...] = (), *, key: Any = None, regularized: bool = True, **options: Any
    ) -> Along:
        """Solve together with integrals along the solution; what the models are built on.

        Args:
            z0: state at `t0`.
            watched: rates (see `node_jax.nn.integrals`) whose integrals are controlled like the state.
            key: JAX random key for the rates and regularizers that are random.
            regularized: whether the regularizers are computed.
            **options: options of `odesolve`.

        Returns:
            The `Solution` of the state, and the integrals of the watched rates.
        """
        z0 = self.field.lifted(z0) if isinstance(self.field, Augmented) else z0
        some = self.regularizers if regularized else ()
        first, second = (None, None) if key is None else jax.random.split(key)
        saves = not isinstance(options.get("save", SaveEnd()), SaveEnd)  # at times that a random end would pass by
        own = {name: getattr(self, name) for name in _OPTIONS} | {"t1": self.end(first, regularized and not saves)}
        options = {**own, **options}
        free = tuple(x for x in some if not isinstance(x, RandomEnd | SolverError))
        found, penalties = self._integrated(z0, tuple(watched), free, second, options)
        for one in some:
            if isinstance(one, SolverError):
                penalties[one.name] = solver_error(self.field, z0, options, one.capacity)
        return found._replace(solution=dataclasses.replace(found.solution, penalties=penalties))

    def end(self, key: Any, regularized: bool = True) -> Any:
        """Return `t1`, or with a key a draw of it if there is a `RandomEnd`."""
        for one in self.regularizers if regularized else ():
            if isinstance(one, RandomEnd) and key is not None:
                return one.end(key, self.t1)
        return self.t1

    def _integrated(self, z0, watched, free, key, options) -> tuple[Along, dict[Any, Any]]:
        """Solve, with integrals where there are any."""
        if not (watched or free):
            return Along(odesolve(self.field, z0, **options), {}), {}
        field = WithIntegrals(self.field, watched, free)
        save, theta = options.get("save", SaveEnd()), (options["theta"], field.drawn(key, z0))
        changed = {"theta": theta, "save": saving(save), "steps": watching(options["steps"], bool(watched))}
        solution = odesolve(field, field.start(z0), **{**options, **changed})
        found, penalties = split(solution, save)
        sign = direction(jnp.asarray(options["t0"]), jnp.asarray(options["t1"]))  # penalties are positive both ways
        return found, {name: jnp.where(sign < 0, -x, x) for name, x in penalties.items()}


def given(theta: PyTree) -> dict[str, PyTree]:
    """Return the option of a solve that replaces the theta of the module, if one is given."""
    return {} if theta is None else {"theta": theta}


_OPTIONS = ("t0", "t1", "theta", "method", "steps", "adjoint", "max_steps")
