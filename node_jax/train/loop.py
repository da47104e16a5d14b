"""One training loop for every model: optax updates, progress, early stopping, checkpoints."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from node_jax.train import arguments, recovery
from node_jax.train import checkpoint as files
from node_jax.train import progress as bars
from node_jax.train import updates as inner
from node_jax.train.batches import Batches
from node_jax.train.updates import Row
from node_jax.types import PyTree


class Fit(NamedTuple):
    """What `fit` returns; arrays are `(n,)` for `n` updates done, `(n, members)` for an ensemble.

    Attributes:
        model: the trained model; the best one seen if `patience` or `validate` was given. It is the last whose loss
            and gradient were finite where the last one has none that is finite.
        losses: loss before each update.
        nfe: field evaluations that the loss reported.
        failed: failed solves that the loss reported.
        skipped: whether the update was skipped because its loss, gradient or step was not finite; bool.
        scores: what early stopping looks at: the validation score, NaN where not measured, or else the loss.
        best_update: number of updates behind `model`, those skipped included.
        stopped_early: whether the run was ended: patience ran out, the callback asked for it, or training was given
            up after too many recoveries.
        opt_state: state of the optimizer after the last update, for `fit(opt_state=...)`.
        recovered: whether training went back to the last good model after the update; bool.
        metrics: the numbers that the loss returned in its dict, by name.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> import node_jax as nj
        >>> def loss(model, target, key):
        ...     return jnp.sum((model - target) ** 2)
        >>> key = jax.random.key(0)
        >>> run = nj.fit(jnp.zeros(2), loss, jnp.ones(2), optax.sgd(0.25), updates=3, key=key, progress=False)
        >>> run.losses.tolist(), run.model.tolist()
        ([2.0, 0.5, 0.125], [0.875, 0.875])
    """

    model: PyTree
    losses: np.ndarray
    nfe: np.ndarray
    failed: np.ndarray
    skipped: np.ndarray
    scores: np.ndarray
    best_update: np.ndarray
    stopped_early: bool
    opt_state: PyTree
    recovered: np.ndarray
    metrics: dict[str, np.ndarray]

    def __str__(self) -> str:
        """Return what happened in one line."""
        updates = len(self.losses)
        if not updates:
            return "Fit: no update"
        members = f" on average of {self.losses.shape[1]} members" if self.losses.ndim > 1 else ""
        first, last = (f"{np.mean(x):.4g}" for x in (self.losses[0], self.losses[-1]))
        counts = {"skipped": self.skipped, "failed samples": self.failed, "recovered": self.recovered}
        ends = [f"{int(np.sum(x)):,} {name}" for name, x in counts.items() if np.any(x)]
        early = ["stopped early"] if self.stopped_early else []
        least, most = int(np.min(self.best_update)), int(np.max(self.best_update))
        best = [f"best update {least:,}" + f" to {most:,}" * (most > least)] * (least < updates)
        done = f"Fit: {updates:,} update{'s' * (updates > 1)}, loss {first} to {last}{members}"
        return ", ".join([done, *best, *ends, *early])

    __repr__ = __str__


class Update(NamedTuple):
    """What a callback is given after each update; numbers are `()`, or `(members,)` for an ensemble.

    Attributes:
        number: number of updates done, from 1; int.
        loss: loss before the update.
        metrics: the numbers that the loss returned in its dict, by name.
        nfe: field evaluations that the loss reported.
        failed: failed solves that the loss reported.
        skipped: whether the update was skipped; bool.
        recovered: whether training went back to the last good model; bool.
        score: validation score of the model after the update, NaN if not measured; the loss without `validate`.
        arrays: arrays of the model after the update, None in place of its other leaves.
        static: the other leaves of the model.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> import node_jax as nj
        >>> def loss(model, target, key):
        ...     return jnp.sum((model - target) ** 2)
        >>> def stop(update):
        ...     return bool(update.loss < 0.2)
        >>> options = {"updates": 100, "key": jax.random.key(0), "progress": False, "callback": stop}
        >>> nj.fit(jnp.zeros(2), loss, jnp.ones(2), optax.sgd(0.25), **options).losses.size
        3
    """

    number: int
    loss: Any
    metrics: dict[str, Any]
    nfe: Any
    failed: Any
    skipped: Any
    recovered: Any
    score: Any
    arrays: PyTree
    static: PyTree

    @property
    def model(self) -> PyTree:
        """The model after the update."""
        return eqx.combine(self.arrays, self.static)


def fit(
    model: PyTree,
    loss: Callable[..., Any],
    data: PyTree,
    optimizer: Any,
    *,
    updates: int | None = None,
    epochs: int | None = None,
    key: Any,
    batch_size: int | None = None,
    members: int | None = None,
    opt_state: PyTree = None,
    validate: Callable[..., Any] | None = None,
    validate_every: int = 10,
    patience: int | None = None,
    callback: Callable[..., Any] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    every: int = 100,
    resume: bool = False,
    progress: bool | str = True,
) -> Fit:
    """Train a model with an optax optimizer, one jitted update at a time.

    Every floating array of the model is trained, except in its `steps` (tolerances, grids) and in `nj.nn.Frozen`.

    **Where the loss is not finite.** An update whose loss, gradient (squared) or step is not finite leaves model and
    optimizer as they were: it may be the batch. After three in a row it is the model: training goes back to the last
    one whose loss and gradient were finite, with the optimizer started anew (its schedules go on) and steps half as
    long; they double again after every 100 good updates in a row, up to their full size. After more than ten halvings
    the run ends. The model to be returned is looked at too, with one more evaluation of loss and gradient (three if
    they are not finite), and the last good one is returned if need be: it has a finite loss if any had one. Each member
    of an ensemble goes its own way. Skipped updates, recoveries and the failed solves that the loss reports are
    counted, shown, and warned about at the end.

    Args:
        model: pytree with arrays, such as a `NeuralODE`.
        loss: `loss(model, batch, key)`, a real scalar, `(scalar, Counts(nfe, failed))` or
            `(scalar, Counts(nfe, failed), metrics)` with a dict of real scalars to be shown and kept; a function of
            a module (a new one recompiles).
        data: pytree of arrays, handed to `loss` whole, or by rows with `batch_size`.
        optimizer: an optax optimizer, or another object with `init` and `update`, such as `optax.MultiSteps`.
        updates: number of updates, those of a resumed run included.
        epochs: number of passes over the data, instead of `updates`; needs `batch_size`, and counts complete batches.
        key: JAX random key; update `i` uses `fold_in`, so that a resumed run draws the same numbers.
        batch_size: rows of the leading axis of `data` in each update, drawn without replacement; an
            incomplete last batch of an epoch is left out.
        members: size of an ensemble trained by `vmap`: every array of `model` has this leading axis, and each
            member its own optimizer state and random key; its own loss decides which update of it is skipped
            and which model of it is best. The data are shared.
        opt_state: state of the optimizer to go on with, `opt_state` of an earlier `Fit`; default: a new one. A run
            that is resumed takes that of its checkpoint.
        validate: `validate(model)` returning a scalar to be small, measured every `validate_every` updates.
        validate_every: updates between two validations.
        patience: stop when the best score, of every member, is more than this many updates old.
        callback: `callback(update)` with an `Update`, called after each update (and after its checkpoint); the run
            ends when it returns True. It must return True, False or None.
        checkpoint: file to write the state of the run to, atomically, before the first update, every `every` updates
            and at the end; a file that is there is replaced unless `resume`.
        every: updates between two checkpoints.
        resume: go on from `checkpoint` if that file exists, to the same losses bit for bit.
        progress: show a bar with loss, NFE and time left (needs tqdm); a string is its label.

    Returns:
        A `Fit`.

    Raises:
        ValueError, TypeError: for arguments that make no sense, naming them.
        CheckpointError: for a checkpoint of another run, or a file that is none; a ValueError,
            `nj.train.CheckpointError`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import node_jax as nj
        >>> def loss(model, data, key):
        ...     z0, z1 = data
        ...     return nj.train.squared_error(jax.vmap(model.solve)(z0), z1)
        >>> z0 = jnp.linspace(-1.0, 1.0, 8).reshape(4, 2)
        >>> model = nj.NeuralODE(nj.nn.MLPField(2, 8, 1, key=jax.random.key(0)))
        >>> key = jax.random.key(1)
        >>> run = nj.fit(model, loss, (z0, 2 * z0), optax.adam(0.01), updates=50, key=key, progress=False)
        >>> bool(run.losses[-1] < run.losses[0])
        True
    """
    arguments.check_counts(validate_every=validate_every, every=every)
    arguments.check_counts(batch_size=batch_size, members=members, patience=patience)
    arguments.check_things(loss, optimizer, validate, callback, checkpoint, resume)
    key, optimizer = arguments.random_key(key), arguments.functions_of(optimizer)
    arguments.check_data(data)
    batches = Batches(data, batch_size, key)
    updates = arguments.number_of_updates(updates, epochs, batches.in_an_epoch)
    keep = patience is not None or validate is not None
    job, state = inner.begin(model, loss, optimizer, members, keep, opt_state)
    about = _about(key, batch_size, members, validate)
    write = functools.partial(_write, checkpoint, members, about)
    state, history = _start(checkpoint, resume, about, state)
    if not history:  # what cannot be stored fails before the work
        write(state, history)

    tally, asked = bars.Tally(history), False
    with bars.bar(progress, len(history), updates) as bar:
        while len(history) < updates and not inner.exhausted(state, patience) and not asked:
            before = state
            state, row = inner.update(job, state, data, batches.rows(len(history)), key)
            if validate is not None:
                state, row = _validated(job, validate, validate_every, state, row)
            elif keep:  # the loss was that of the model before the update
                state = inner.judge(state, before.arrays, before.step, row.loss)
            _note(history, jax.device_get(row))
            tally.show(bar, history[-1])
            if len(history) % every == 0:
                write(state, history)
            asked = callback is not None and _asks(callback, job, state, history)
    write(state, history)
    rows = inner.columns(history, members)

    def look(state):
        return inner.update(job, state, data, batches.rows(int(state.step)), key)[0]  # compiled already

    end = inner.finish(job, state, keep, validate is not None, look)
    unmeasured = validate is not None and not np.all(end.chosen)
    bars.warn(rows, end.fell_back, recovery.given_up(state.recovery), unmeasured)
    return Fit(
        eqx.combine(end.arrays, job.static),
        *rows[:5],
        best_update=np.asarray(end.done),
        stopped_early=asked or inner.exhausted(state, patience),
        opt_state=end.opt_state,
        recovered=rows.recovered,
        metrics=rows.metrics,
    )


def _write(checkpoint, members, about, state, history) -> None:
    if checkpoint is not None:
        files.write(checkpoint, state, inner.stored(inner.columns(history, members)), about)


def _start(checkpoint, resume, about, state) -> tuple[inner.State, list[Row]]:
    """Return state and history to begin with: those of the checkpoint, if the run is to be resumed."""
    if checkpoint is None:
        return state, []
    files.sweep(checkpoint)
    if not (resume and Path(checkpoint).exists()):
        return state, []
    state, table = files.read(checkpoint, state, about)
    return state, inner.restored(table)


def _note(history: list[Row], row: Row) -> None:
    """Add a row, with the metrics of those before."""
    if history and row.metrics.keys() != history[0].metrics.keys():
        was, now = sorted(history[0].metrics), sorted(row.metrics)
        raise files.CheckpointError(f"the checkpoint belongs to a loss with metrics {was}, not {now}")
    history.append(row)


def _asks(callback, job, state, history) -> bool:
    """Call back, and return whether that asks to stop."""
    row = history[-1]
    numbers = {name: getattr(row, name) for name in Update._fields if name in Row._fields}
    answer = callback(Update(len(history), **numbers, arrays=state.arrays, static=job.static))
    if answer is None:
        return False
    known = isinstance(answer, (bool, np.bool_, np.ndarray, jax.Array))
    if known and np.shape(answer) == () and np.asarray(answer).dtype.kind == "b":
        return bool(answer)
    raise TypeError(f"callback must return None, or a bool that says whether to stop, got {answer!r}")


def _validated(job, validate, validate_every, state, row):
    """Measure the model after the update, when it is time."""
    if int(state.step) % validate_every:
        return state, row._replace(score=np.full(np.shape(row.loss), np.nan))
    score = inner.validation_score(job, validate, state.arrays)
    return inner.judge(state, state.arrays, state.step, score), row._replace(score=score)


def _about(key, batch_size, members, validate) -> dict[str, Any]:
    """What runs that go on from one another agree in."""
    typed = jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)
    words = np.asarray(jax.random.key_data(key) if typed else key).tolist()
    return {"key": words, "batch_size": batch_size, "members": members, "validated": validate is not None}
