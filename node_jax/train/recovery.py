"""What training does where the loss is not finite: try again, then go back to a good model with shorter steps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from node_jax import tree
from node_jax.types import PyTree

TRIES = 3  # updates that fail in a row before the model itself is held to be at fault
HALVINGS = 10  # of the steps, before a member is given up
GROWTH = 100  # good updates in a row after which steps double, up to their full size


class Recovery(NamedTuple):
    """What is remembered of one member; arrays only.

    Attributes:
        good: its trained arrays when loss and gradient were finite last; those given at first.
        good_step: number of updates behind them.
        streak: updates that succeeded in a row or, negative, that failed in a row; int32.
        halvings: of its steps, more than `HALVINGS` once it is given up; int32.
    """

    good: PyTree
    good_step: jax.Array
    streak: jax.Array
    halvings: jax.Array


def begin(params: PyTree, lanes: tuple[int, ...]) -> Recovery:
    """Start with the model that was given."""
    zero = jnp.zeros(lanes, jnp.int32)
    return Recovery(params, zero, zero, zero)


def given_up(state: Recovery) -> Any:
    """Whether no more updates are made; bool, one a member."""
    return state.halvings > HALVINGS


def shortened(state: Recovery, steps: PyTree) -> PyTree:
    """Scale the steps of an optimizer."""
    factor = jnp.ldexp(jnp.ones((), jnp.float32), -state.halvings)
    return jax.tree.map(lambda x: x * factor.astype(x.dtype), steps)


def tame(loss: jax.Array, grads: PyTree) -> jax.Array:
    """Whether a loss is finite and a gradient too, the squares included that optimizers average."""
    return jnp.isfinite(loss) & tree.all_finite(jax.tree.map(_square, grads))


def _square(x: jax.Array) -> jax.Array:
    x = tree.single(x)
    return (x * jnp.conj(x)).real


def look(state: Recovery, params: PyTree, step: Any, fine: jax.Array) -> Recovery:
    """Remember the parameters behind a loss and a gradient that are finite."""
    good = tree.where_rows(fine, params, state.good)
    return state._replace(good=good, good_step=jnp.where(fine, step, state.good_step))


def advance(state: Recovery, accepted: jax.Array) -> tuple[Recovery, jax.Array]:
    """Count an update that was made or not; return whether to go back to the good model."""
    streak = jnp.where(accepted, jnp.maximum(state.streak, 0) + 1, jnp.minimum(state.streak, 0) - 1)
    back = (streak <= -TRIES) & ~given_up(state)
    grows = accepted & (streak % GROWTH == 0)
    halvings = jnp.maximum(state.halvings - grows.astype(jnp.int32), 0) + back.astype(jnp.int32)
    return state._replace(streak=jnp.where(back, 0, streak), halvings=halvings), back


def cleared(optimizer: optax.GradientTransformation, params: PyTree, opt_state: PyTree) -> PyTree:
    """Start an optimizer anew, except for its schedules and the settings that were injected."""

    def keep(fresh, old):
        if isinstance(old, optax.ScaleByScheduleState):
            return old
        if _injected(old):
            return old._replace(inner_state=jax.tree.map(keep, fresh.inner_state, old.inner_state, is_leaf=_goes_on))
        return fresh

    return jax.tree.map(keep, optimizer.init(params), opt_state, is_leaf=_goes_on)


def _goes_on(x: Any) -> bool:
    return isinstance(x, optax.ScaleByScheduleState) or _injected(x)


def _injected(x: Any) -> bool:
    """Whether `x` is a state of `optax.inject_hyperparams`, which has several classes."""
    return isinstance(x, tuple) and hasattr(x, "hyperparams") and hasattr(x, "inner_state")
