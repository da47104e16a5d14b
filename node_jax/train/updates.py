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
from node_jax.nn import Frozen
from node_jax.train import outcome, recovery
from node_jax.train.recovery import Recovery
from node_jax.types import PyTree

LOSSES, BATCHES = 0, 1  # streams of random numbers


class State(NamedTuple):
    """Everything that changes from update to update; arrays only."""

    arrays: PyTree  # of the model
    opt_state: PyTree
    step: jax.Array
    best: PyTree  # arrays of the best model, () if none is kept
    best_score: jax.Array
    best_step: jax.Array
    recovery: Recovery


class Row(NamedTuple):
    """The history of one update."""

    loss: Any
    nfe: Any
    failed: Any
    skipped: Any
    score: Any
    recovered: Any
    metrics: dict[str, Any]


_PLAIN = tuple(name for name in Row._fields if name != "metrics")
_METRIC = "metrics/"  # before the name of a metric in a checkpoint


class Job(NamedTuple):
    """What a compilation of the update depends on."""

    loss: Callable
    optimizer: optax.GradientTransformation
    static: PyTree  # leaves of the model that are not arrays
    trained: PyTree  # bool for each array
    members: int | None


def begin(model, loss, optimizer, members, keep, opt_state=None) -> tuple[Job, State]:
    """Split a model into what is fixed and what changes, and start the optimizer, or go on with it."""
    arrays, static = eqx.partition(model, eqx.is_array)
    trained = jax.tree.map(_trainable, arrays, is_leaf=_is_fixed)
    trained = jax.tree.map(lambda flag, sub: jax.tree.map(lambda _: flag, sub), trained, arrays)
    if not any(jax.tree.leaves(trained)):
        raise ValueError(f"model has no floating array to train, got {model!r}")
    for path, x in jax.tree_util.tree_leaves_with_path(arrays):
        if members is not None and x.shape[:1] != (members,):
            where = jax.tree_util.keystr(path)
            raise ValueError(f"members={members}: model{where} must have that leading axis, got shape {x.shape}")
    params = eqx.filter(arrays, trained)
    started = (optimizer.init if members is None else jax.vmap(optimizer.init))(params)
    started = jax.tree.map(_settled, started)
    opt_state = started if opt_state is None else _fitting(started, opt_state)
    lanes = () if members is None else (members,)
    step = jnp.zeros((), jnp.int32)
    best_score, best_step = jnp.full(lanes, jnp.inf), jnp.zeros(lanes, jnp.int32)
    best = arrays if keep else ()
    state = State(arrays, opt_state, step, best, best_score, best_step, recovery.begin(params, lanes))
    return Job(loss, optimizer, static, trained, members), jax.tree.map(_settled, state)


def _settled(x: Any) -> jax.Array:
    """Make an array of the type that an update returns: weak ones (`jnp.array(0.0)`) would compile twice."""
    return x.astype(x.dtype) if getattr(x, "weak_type", False) else jnp.asarray(x)


def _fitting(started: PyTree, given: PyTree) -> PyTree:
    """Take a given state of the optimizer if its arrays are those of one just started."""
    want, got = (jax.tree_util.tree_leaves_with_path(x) for x in (started, given))
    want_text, got_text = ([_leaf_text(*leaf) for leaf in leaves] for leaves in (want, got))
    if want_text != got_text:
        here, there = outcome.apart(want_text, got_text)
        raise ValueError(
            "opt_state must be that of a run with the same optimizer, model and members: "
            f"here there is {here}, in opt_state {there}"
        )
    return jax.tree.unflatten(jax.tree.structure(started), [x for _, x in got])


def _leaf_text(path: Any, x: Any) -> str:
    return f"{jax.tree_util.keystr(path) or 'one array'} {outcome.described(x)}"


def _is_fixed(x: Any) -> bool:
    return isinstance(x, (Adaptive, Fixed, Grid, Frozen))


def _trainable(x: Any) -> bool:
    return not _is_fixed(x) and eqx.is_inexact_array(x)


@eqx.filter_jit
def update(job: Job, state: State, data: PyTree, rows: Any, key: jax.Array) -> tuple[State, Row]:
    """Do one update on the given rows of the data, for each member."""
    batch = data if rows is None else jax.tree.map(lambda x: jnp.asarray(x)[rows], data)
    key = jax.random.fold_in(jax.random.fold_in(key, LOSSES), state.step)
    one = functools.partial(_update_one, job)
    if job.members is not None:
        key = jax.random.split(key, job.members)
        one = jax.vmap(one, in_axes=(0, 0, 0, None, None, 0))
    arrays, opt_state, memory, row = one(state.arrays, state.opt_state, state.recovery, state.step, batch, key)
    moved = {"arrays": arrays, "opt_state": opt_state, "recovery": memory}
    return state._replace(**moved, step=state.step + 1), row


def _update_one(job: Job, arrays: PyTree, opt_state: PyTree, memory: Recovery, step: Any, batch: PyTree, key: Any):
    params, frozen = eqx.partition(arrays, job.trained)

    def objective(params):
        value, *rest = outcome.parts(job.loss(eqx.combine(params, frozen, job.static), batch, key))
        return value, rest

    (loss, (counts, metrics)), grads = jax.value_and_grad(objective, has_aux=True)(params)
    grads = jax.tree.map(jnp.conj, grads)  # of a complex weight: the direction of steepest ascent
    # Optimizers that look at the loss itself (reduce_on_plateau, lbfgs) get it.
    extra = {"value": loss, "grad": grads, "value_fn": lambda params: objective(params)[0]}
    optimizer = optax.with_extra_args_support(job.optimizer)
    steps, moved_state = optimizer.update(grads, opt_state, params, **extra)
    moved = optax.apply_updates(params, recovery.shortened(memory, steps))
    fine = recovery.tame(loss, grads)
    accepted = fine & tree.all_finite(moved) & ~recovery.given_up(memory)
    memory, back = recovery.advance(recovery.look(memory, params, step, fine), accepted)
    stays = tree.where_rows(back, memory.good, params)
    stays_state = tree.where_rows(back, recovery.cleared(job.optimizer, memory.good, opt_state), opt_state)
    row = Row(loss, counts.nfe, counts.failed, ~accepted, loss, back, metrics)
    params = tree.where_rows(accepted, moved, stays)
    return eqx.combine(params, frozen), tree.where_rows(accepted, moved_state, stays_state), memory, row


class End(NamedTuple):
    """What a run ends with; all but `arrays` and `opt_state` one a member."""

    arrays: PyTree  # of the model
    done: Any  # number of updates behind it
    opt_state: PyTree
    chosen: Any  # whether it is the best model
    fell_back: Any  # whether it is neither that nor the last model, since the loss of these is not finite


def finish(job: Job, state: State, keep: bool, scored: bool, look: Callable[[State], State]) -> End:
    """Take the best model, the last, or the last good one: the first of these whose loss is finite.

    Args:
        job: as of `begin`.
        state: after the last update.
        keep: whether the best model is kept.
        scored: whether it is the best by a validation score, which does not look at its loss.
        look: makes an update, of which nothing is kept but whether loss and gradient were finite.
    """
    chosen = jnp.isfinite(state.best_score) & keep
    if scored and np.any(chosen):
        chosen = chosen & _is_sound(state._replace(arrays=state.best), look)
    if np.all(chosen):
        return End(state.best, state.best_step, state.opt_state, chosen, ~chosen)
    sound = _is_sound(state, look)
    good, good_step = eqx.combine(state.recovery.good, state.arrays), state.recovery.good_step
    arrays, done, opt_state = state.arrays, jnp.broadcast_to(state.step, sound.shape), state.opt_state
    if not np.all(sound):
        clear = functools.partial(recovery.cleared, job.optimizer)
        clear = clear if job.members is None else jax.vmap(clear)
        opt_state = tree.where_rows(sound, opt_state, clear(state.recovery.good, opt_state))
        arrays, done = tree.where_rows(sound, arrays, good), jnp.where(sound, done, good_step)
    if keep:
        arrays, done = tree.where_rows(chosen, state.best, arrays), jnp.where(chosen, state.best_step, done)
    return End(arrays, done, opt_state, chosen, ~sound & ~chosen)


def _is_sound(state: State, look: Callable[[State], State]) -> jax.Array:
    """Whether loss and gradient of a model are finite in one of several batches."""
    sound = jnp.array(False)
    for i in range(recovery.TRIES):
        at = state._replace(step=state.step + i)
        sound = sound | (look(at).recovery.good_step == at.step)
        if np.all(sound):
            break
    return sound


@eqx.filter_jit
def validation_score(job: Job, validate: Callable, arrays: PyTree) -> jax.Array:
    """Return `validate(model)`, for each member."""

    def one(arrays):
        return outcome.scalar("validate", validate(eqx.combine(arrays, job.static)))

    return one(arrays) if job.members is None else jax.vmap(one)(arrays)


@jax.jit
def judge(state: State, arrays: PyTree, updates: Any, score: Any) -> State:
    """Keep the arrays as the best ones, of each member whose score they improve."""
    better = jnp.isfinite(score) & (score < state.best_score)
    best = tree.where_rows(better, arrays, state.best)
    return state._replace(
        best=best,
        best_score=jnp.where(better, score, state.best_score),
        best_step=jnp.where(better, updates, state.best_step),
    )


def exhausted(state: State, patience: int | None) -> bool:
    """Whether no member has improved for `patience` updates, or all are given up."""
    if np.all(np.asarray(state.recovery.halvings) > recovery.HALVINGS):
        return True
    return patience is not None and bool(np.all(state.step - np.asarray(state.best_step) > patience))


def columns(history: list[Row], members: int | None) -> Row:
    """Turn the history of updates into one array for each of its entries."""
    if not history:
        empty = np.zeros((0,) if members is None else (0, members))
        count, flag = empty.astype(int), empty.astype(bool)
        return Row(empty, count, count, flag, empty, flag, metrics={})
    plain = {name: np.stack([getattr(row, name) for row in history]) for name in _PLAIN}
    metrics = {name: np.stack([row.metrics[name] for row in history]) for name in history[0].metrics}
    return Row(**plain, metrics=metrics)


def stored(rows: Row) -> dict[str, np.ndarray]:
    """Give every column a name."""
    return {name: getattr(rows, name) for name in _PLAIN} | {_METRIC + name: x for name, x in rows.metrics.items()}


def restored(table: dict[str, np.ndarray]) -> list[Row]:
    """Undo `stored`, row by row."""

    def row(i):
        metrics = {name.removeprefix(_METRIC): x[i] for name, x in table.items() if name.startswith(_METRIC)}
        return Row(**{name: table[name][i] for name in _PLAIN}, metrics=metrics)

    return [row(i) for i in range(len(table["loss"]))]
