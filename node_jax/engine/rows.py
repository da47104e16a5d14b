"""The rows of a save: written into a table while steps are taken, and transposed by `jax.vjp` of one row."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from node_jax import tree
from node_jax.engine.each import Each
from node_jax.types import Inputs, PyTree, StepBar, Trial


class Saved(NamedTuple):
    """What was saved: rows, the cursor after the last, and the number of steps whose dense output was completed.

    While steps are taken the rows are a table of shape `(size + 1, elements, all lanes)`, whose last row takes what is
    not due. Afterwards each leaf has shape `(size, *shape, *lanes)`.
    """

    rows: PyTree
    cursor: PyTree
    completed: Any = None  # None if nothing was to be completed


class SavedBar(NamedTuple):
    """In the backward pass: cotangents of the rows, the cursor, and cotangents of the times (None: not wanted)."""

    rows: PyTree
    cursor: PyTree
    ts: Any


def blank(each: Each, z: PyTree, still: jax.Array) -> Saved:
    """Return the table before the first step, for states `z` of all lanes."""
    save, method = each.inputs.save, each.problem.method

    def one(inputs: Inputs, rest):
        return inputs.save.blank(method, inputs, *rest), inputs.save.start(inputs)

    row, cursor = each(one)((z, still))
    if not all(jnp.issubdtype(x.dtype, jnp.inexact) for x in jax.tree.leaves(row)):
        raise TypeError(f"save={save!r}: rows must hold real or complex floating arrays, got {row!r}")
    if save.ts is not None and jax.tree.map(jnp.shape, row) != jax.tree.map(jnp.shape, z):
        raise TypeError(f"save={save!r} has ts, so its rows must be states: leave ts out for other rows")
    completes = save.reads_dense and method.dense_evaluations
    count = math.prod(each.lanes)

    def table(x):
        elements = x.size // max(count, 1)
        return jnp.broadcast_to(x.reshape(elements, count), (save.size + 1, elements, count))

    return Saved(jax.tree.map(table, row), cursor, jnp.zeros_like(still, jnp.int32) if completes else None)


def due(each: Each, saved: Saved, trial: Trial) -> jax.Array:
    """Say which lanes write a row after this trial."""
    return each(lambda inputs, rest: inputs.save.due(inputs, *rest))((trial, saved.cursor))


def record(each: Each, saved: Saved, trial: Trial, complete: Callable) -> tuple[Saved, jax.Array]:
    """Write every row that is due; return also how many rounds over the lanes that took, for the backward pass.

    `complete(trial, wanted)` adds the states that only dense output needs, if any lane wants them.
    """
    save, method = each.inputs.save, each.problem.method
    none = jnp.zeros((), jnp.int32)
    if not save.size:
        return saved, none
    now = due(each, saved, trial)
    if saved.completed is not None:
        saved = saved._replace(completed=saved.completed + now)
    if save.reads_dense:
        trial = complete(trial, jnp.any(now))

    def one(inputs: Inputs, rest):
        trial, cursor, now = rest
        place = inputs.save.place(trial, cursor)
        place = jnp.where(now & (place < save.size), place, save.size)
        return _row(method, inputs, trial, cursor), place, inputs.save.passed(inputs, trial, cursor, now)

    def write(saved: Saved, now: jax.Array) -> Saved:
        row, place, cursor = each(one)((trial, saved.cursor, now))
        rows = each.write(saved.rows, jax.tree.map(lambda x: x[None], row), place)
        return saved._replace(rows=rows, cursor=cursor)

    def body(carry):
        rounds, now, saved = carry
        saved = write(saved, now)
        return rounds + 1, due(each, saved, trial), saved

    if not save.repeats:
        return write(saved, now), none
    rounds, _, saved = lax.while_loop(lambda carry: jnp.any(carry[1]), body, (none, now, saved))
    return saved, rounds


def _row(method: Any, inputs: Inputs, trial: Trial, cursor: PyTree) -> PyTree:
    """Return a row as a function of the trial and of the cursor; derivatives take all else for constants."""
    held = jax.tree.map(lax.stop_gradient, inputs)
    return held.save.row(method, held, trial, cursor)


def finish(each: Each, saved: Saved, z: PyTree) -> Saved:
    """Return what was saved, with rows in the layout of the lanes; `z` are the states of all lanes."""
    save, method = each.inputs.save, each.problem.method
    no = jnp.array(False)
    like = jax.eval_shape(each(lambda inputs, z: inputs.save.blank(method, inputs, z, no)), z)
    n = save.size
    return saved._replace(rows=jax.tree.map(lambda table, x: table[:n].reshape(n, *x.shape), saved.rows, like))


def written(inputs: Inputs, saved: Saved, accepted: jax.Array, ok: jax.Array) -> jax.Array:
    """Say which rows of one lane hold a value, shape `(size,)`."""
    return jnp.arange(inputs.save.size, dtype=jnp.int32) < inputs.save.count(saved.cursor, accepted, ok)


def unwind(each: Each, saved: Saved, rows_bar: PyTree, exact: bool) -> SavedBar:
    """Return the start of the backward pass, after the last row; `exact`: with cotangents of the times."""

    def one(inputs: Inputs, rest):
        rows_bar, cursor = rest
        ts = inputs.save.ts if exact else None
        return SavedBar(rows_bar, cursor, jax.tree.map(jnp.zeros_like, ts))

    return each(one)((rows_bar, saved.cursor))


def no_bar(inputs: Inputs, trial: Trial) -> StepBar:
    """Return zero cotangents for one step of one lane."""
    return jax.tree.map(jnp.zeros_like, StepBar(trial.t.high, trial.h, trial.z, trial.z1, trial.dense))


def pull(each: Each, bar: SavedBar, trial: Trial, rounds: Any) -> tuple[SavedBar, StepBar]:
    """Pull the cotangents of the rows that this step wrote back to the step and to the times of the rows."""
    save, method = each.inputs.save, each.problem.method
    into = each(no_bar)(trial)
    if not save.size:
        return bar, into

    def undo(inputs: Inputs, rest):
        bar, trial, into = rest
        now, earlier = inputs.save.undone(inputs, trial, bar.cursor)
        place = inputs.save.place(trial, earlier)
        now &= place < inputs.save.size
        g = tree.entry(bar.rows, place)
        g = tree.where(now, g, tree.full_like(g, 0.0))

        def row(t, h, end, z, z1, dense, cursor):
            moved = Trial(trial.accepted, trial.index, trial.t._replace(high=t), h, end, z, z1, dense)
            return _row(method, inputs, moved, cursor)

        _, vjp = jax.vjp(row, trial.t.high, trial.h, trial.end, trial.z, trial.z1, trial.dense, earlier)
        t, h, end, z, z1, dense, cursor = vjp(g)
        into = tree.add(into, StepBar(t + end, h + end, z, z1, dense))  # the end is t + h
        ts = bar.ts if bar.ts is None else bar.ts.at[place].add(cursor.target)
        return SavedBar(bar.rows, tree.where(now, earlier, bar.cursor), ts), into

    def once(carry):
        return each(undo)((carry[0], trial, carry[1]))

    return lax.fori_loop(0, rounds, lambda _, carry: once(carry), (bar, into)) if save.repeats else once((bar, into))
