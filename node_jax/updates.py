"""One training update as a pure function of the state of a run, for one model or an ensemble of them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from node_jax import tree
from node_jax.control import Adaptive, Fixed, Grid
from node_jax.solution import Solution
from node_jax.types import PyTree

LOSSES, BATCHES = 0, 1  # streams of random numbers


class Counts(NamedTuple):
    """What a loss may tell `fit` besides its value: field evaluations and failed solves, integer scalars."""

    nfe: Any = 0
    failed: Any = 0


def squared_error(solution: Solution, targets: PyTree, weights: Any = None) -> tuple[jax.Array, Counts]:
    """Return the mean squared error over the lanes that succeeded, and how many did not.

    Args:
        solution: of one solve or, after `vmap`, of a batch.
        targets: pytree like `solution.zs` (`solution.z1` if no times were saved).
        weights: array of weights for the leading axes of `targets`, at least the lanes; default: all equal.

    Returns:
        Real scalar, the weighted mean over all elements of lanes that are `ok`, NaN if none is; and counts.

    Raises:
        ValueError: if `targets` or `weights` do not have the shapes of the states.

    Example:
        >>> import jax.numpy as jnp
        >>> import node_jax as nj
        >>> def still(z, t, theta):
        ...     return jnp.zeros_like(z)
        >>> loss, counts = squared_error(nj.odesolve(still, 1.0, 0.0, 1.0), jnp.array(3.0))
        >>> float(loss), int(counts.failed)
        (4.0, 0)
    """
    states = solution.z1 if solution.zs is None else solution.zs
    want, got = (jax.tree.map(jnp.shape, x) for x in (states, targets))
    if want != got:
        raise ValueError(f"targets must have the shapes of the states, {want}, got {got}")
    weights = jnp.ones(solution.ok.shape) if weights is None else jnp.asarray(weights)
    lanes = solution.ok.ndim
    if any(x.shape[: weights.ndim] != weights.shape for x in jax.tree.leaves(states)) or weights.ndim < lanes:
        raise ValueError(f"weights must have leading axes of the states, {want}, got shape {weights.shape}")
    weights = tree.where_rows(solution.ok, weights, jnp.zeros_like(weights))
    # Masked before squaring: a NaN state whose square alone was masked would still make the gradient NaN.
    error = tree.subtract(tree.where_rows(solution.ok, states, targets), targets)
    sums = [_weighted(x, weights) for x in jax.tree.leaves(error)]
    counts = Counts(jnp.sum(solution.stats.nfe), jnp.sum(~solution.ok))
    return jnp.asarray(sum(total for total, _ in sums) / sum(weight for _, weight in sums)), counts


def _weighted(error: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Weighted sum of the squares of one leaf, and the sum of the weights of its elements."""
    square = (error * jnp.conj(error)).real
    weights = weights.astype(square.dtype).reshape(weights.shape + (1,) * (error.ndim - weights.ndim))
    return jnp.sum(square * weights), jnp.sum(jnp.broadcast_to(weights, error.shape))


class State(NamedTuple):
    """Everything that changes from update to update; arrays only."""

    arrays: PyTree  # of the model
    opt_state: PyTree
    step: jax.Array
    best: PyTree  # arrays of the best model, () if none is kept
    best_score: jax.Array
    best_step: jax.Array


class Row(NamedTuple):
    """The history of one update."""

    loss: Any
    nfe: Any
    failed: Any
    skipped: Any
    score: Any


class Job(NamedTuple):
    """What a compilation of the update depends on."""

    loss: Callable
    optimizer: optax.GradientTransformation
    static: PyTree  # leaves of the model that are not arrays
    trained: PyTree  # bool for each array
    members: int | None


def begin(model, loss, optimizer, members, keep) -> tuple[Job, State]:
    """Split a model into what is fixed and what changes, and start the optimizer."""
    arrays, static = eqx.partition(model, eqx.is_array)
    trained = jax.tree.map(_trainable, arrays, is_leaf=_is_steps)
    trained = jax.tree.map(lambda flag, sub: jax.tree.map(lambda _: flag, sub), trained, arrays)
    if not any(jax.tree.leaves(trained)):
        raise ValueError(f"model has no floating array to train, got {model!r}")
    for path, x in jax.tree_util.tree_leaves_with_path(arrays):
        if members is not None and x.shape[:1] != (members,):
            where = jax.tree_util.keystr(path)
            raise ValueError(f"members={members}: model{where} must have that leading axis, got shape {x.shape}")
    init = optimizer.init if members is None else jax.vmap(optimizer.init)
    lanes = () if members is None else (members,)
    step = jnp.zeros((), jnp.int32)
    best_score, best_step = jnp.full(lanes, jnp.inf), jnp.zeros(lanes, jnp.int32)
    opt_state = init(eqx.filter(arrays, trained))
    state = State(arrays, opt_state, step, arrays if keep else (), best_score, best_step)
    return Job(loss, optimizer, static, trained, members), jax.tree.map(_settled, state)


def _settled(x: Any) -> jax.Array:
    """Make an array of the type that an update returns: weak ones (`jnp.array(0.0)`) would compile twice."""
    return x.astype(x.dtype) if getattr(x, "weak_type", False) else jnp.asarray(x)


def _is_steps(x: Any) -> bool:
    return isinstance(x, (Adaptive, Fixed, Grid))


def _trainable(x: Any) -> bool:
    return not _is_steps(x) and eqx.is_inexact_array(x)


@eqx.filter_jit
def update(job: Job, state: State, data: PyTree, rows: Any, key: jax.Array) -> tuple[State, Row]:
    """Do one update on the given rows of the data, for each member."""
    batch = data if rows is None else jax.tree.map(lambda x: jnp.asarray(x)[rows], data)
    key = jax.random.fold_in(jax.random.fold_in(key, LOSSES), state.step)
    one = functools.partial(_update_one, job)
    if job.members is not None:
        key = jax.random.split(key, job.members)
        one = jax.vmap(one, in_axes=(0, 0, None, 0))
    arrays, opt_state, row = one(state.arrays, state.opt_state, batch, key)
    return state._replace(arrays=arrays, opt_state=opt_state, step=state.step + 1), row


def _update_one(job: Job, arrays: PyTree, opt_state: PyTree, batch: PyTree, key: jax.Array):
    params, frozen = eqx.partition(arrays, job.trained)

    def objective(params):
        out = job.loss(eqx.combine(params, frozen, job.static), batch, key)
        return _value_and_counts(out)

    (loss, counts), grads = jax.value_and_grad(objective, has_aux=True)(params)
    grads = jax.tree.map(jnp.conj, grads)  # of a complex weight: the direction of steepest ascent
    # Optimizers that look at the loss itself (reduce_on_plateau, lbfgs) get it.
    extra = {"value": loss, "grad": grads, "value_fn": lambda params: objective(params)[0]}
    optimizer = optax.with_extra_args_support(job.optimizer)
    steps, moved_state = optimizer.update(grads, opt_state, params, **extra)
    moved = optax.apply_updates(params, steps)
    good = jnp.isfinite(loss) & tree.all_finite(grads) & tree.all_finite(moved)
    params = tree.where_rows(good, moved, params)
    row = Row(loss, jnp.asarray(counts.nfe), jnp.asarray(counts.failed), ~good, loss)
    return eqx.combine(params, frozen), tree.where_rows(good, moved_state, opt_state), row


def _value_and_counts(out: Any) -> tuple[jax.Array, Counts]:
    pair: Any = out if type(out) is tuple and len(out) == 2 else (out, Counts())
    value, counts = pair
    if not isinstance(counts, Counts):
        raise TypeError(f"loss must return a scalar or (scalar, Counts(nfe, failed)), got the second {counts!r}")
    if not eqx.is_array_like(value) or jnp.shape(value) != () or jnp.iscomplexobj(value):
        raise TypeError(f"loss must return a real scalar or (scalar, Counts(nfe, failed)), got {value!r}")
    return jnp.asarray(value), counts


@eqx.filter_jit
def validation_score(job: Job, validate: Callable, arrays: PyTree) -> jax.Array:
    """Return `validate(model)`, for each member."""

    def one(arrays):
        return jnp.asarray(validate(eqx.combine(arrays, job.static)))

    return one(arrays) if job.members is None else jax.vmap(one)(arrays)


@jax.jit
def judge(state: State, arrays: PyTree, updates: Any, score: Any) -> State:
    """Keep the arrays as the best ones, of each member whose score they improve."""
    better = score < state.best_score
    best = tree.where_rows(better, arrays, state.best)
    return state._replace(
        best=best,
        best_score=jnp.where(better, score, state.best_score),
        best_step=jnp.where(better, updates, state.best_step),
    )


def exhausted(state: State, patience: int | None) -> bool:
    """Whether no member has improved for `patience` updates."""
    return patience is not None and bool(np.all(state.step - np.asarray(state.best_step) > patience))


def columns(history: list[Row], members: int | None) -> Row:
    """Turn the history of updates into one array for each of its entries."""
    if not history:
        empty = np.zeros((0,) if members is None else (0, members))
        return Row(empty, empty.astype(int), empty.astype(int), empty.astype(bool), empty)
    return Row(*(np.stack(column) for column in zip(*history, strict=True)))


def total(x: Any) -> int:
    """Sum over members."""
    return int(np.sum(x))


def median_loss(row: Row) -> float:
    """Median over members."""
    return float(np.median(row.loss))
