"""One training loop for every model: optax updates, progress, early stopping, checkpoints."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
import optax

from node_jax import checkpoint as files
from node_jax import progress as bars
from node_jax import updates as inner
from node_jax.types import PyTree
from node_jax.updates import Counts, Row, squared_error

__all__ = ["Counts", "Fit", "fit", "squared_error"]


class Fit(NamedTuple):
    """What `fit` returns; arrays are `(n,)` for `n` updates done, `(n, members)` for an ensemble.

    Attributes:
        model: the trained model; the best one seen if `patience` or `validate` was given.
        losses: loss before each update.
        nfe: field evaluations that the loss reported.
        failed: failed solves that the loss reported.
        skipped: whether the update was skipped because its loss or gradient was not finite; bool.
        scores: what early stopping looks at: the validation score, NaN where not measured, or else the loss.
        best_update: number of updates behind `model`.
        stopped_early: whether patience ran out.
        opt_state: state of the optimizer after the last update.
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


def fit(
    model: PyTree,
    loss: Callable,
    data: PyTree,
    optimizer: optax.GradientTransformation,
    *,
    updates: int,
    key: jax.Array,
    batch_size: int | None = None,
    members: int | None = None,
    validate: Callable | None = None,
    validate_every: int = 10,
    patience: int | None = None,
    checkpoint: str | os.PathLike | None = None,
    every: int = 100,
    resume: bool = False,
    progress: bool | str = True,
) -> Fit:
    """Train a model with an optax optimizer, one jitted update at a time.

    An update whose loss or gradient is not finite leaves model and optimizer as they were; such updates, and
    the failed solves that the loss reports, are counted, shown, and warned about at the end. Every floating
    array of the model is trained, except in its `steps` (tolerances, grids).

    Args:
        model: pytree with arrays, such as a `NeuralODE`.
        loss: `loss(model, batch, key)`, a real scalar or `(scalar, Counts(nfe, failed))`; a function of a
            module (a new one recompiles).
        data: pytree of arrays, handed to `loss` whole, or by rows with `batch_size`.
        optimizer: an optax optimizer.
        updates: number of updates, those of a resumed run included.
        key: JAX random key; update `i` uses `fold_in`, so that a resumed run draws the same numbers.
        batch_size: rows of the leading axis of `data` in each update, drawn without replacement; an
            incomplete last batch of an epoch is left out.
        members: size of an ensemble trained by `vmap`: every array of `model` has this leading axis, and each
            member its own optimizer state and random key; its own loss decides which update of it is skipped
            and which model of it is best. The data are shared.
        validate: `validate(model)` returning a scalar to be small, measured every `validate_every` updates.
        validate_every: updates between two validations.
        patience: stop when the best score, of every member, is more than this many updates old.
        checkpoint: file to write the state of the run to, atomically, every `every` updates and at the end.
        every: updates between two checkpoints.
        resume: go on from `checkpoint` if that file exists, to the same losses bit for bit.
        progress: show a bar with loss, NFE and time left (needs tqdm); a string is its label.

    Returns:
        A `Fit`.

    Raises:
        ValueError, TypeError: for arguments that make no sense, naming them; `CheckpointError`, a ValueError,
            for a checkpoint of another run.

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
    counts = {"updates": updates, "validate_every": validate_every, "every": every}
    _check_counts(**counts, batch_size=batch_size, members=members, patience=patience)
    _check_things(loss, optimizer, validate, checkpoint, resume)
    keep = patience is not None or validate is not None
    job, state = inner.begin(model, loss, optimizer, members, keep)
    batches = _Batches(data, batch_size, key)
    about = {
        "key": _numbers(key),
        "batch_size": batch_size,
        "members": members,
        "validated": validate is not None,
    }
    history: list[Row] = []
    if resume and checkpoint is not None and Path(checkpoint).exists():
        state, columns = files.read(checkpoint, state, about)
        history = [Row(*row) for row in zip(*(columns[name] for name in Row._fields), strict=True)]

    tally = bars.Tally(history)
    with bars.bar(progress, len(history), updates) as bar:
        while len(history) < updates and not inner.exhausted(state, patience):
            before = state
            state, row = inner.update(job, state, data, batches.rows(len(history)), key)
            if validate is not None:
                state, row = _validated(job, validate, validate_every, state, row)
            elif keep:  # the loss was that of the model before the update
                state = inner.judge(state, before.arrays, before.step, row.loss)
            history.append(jax.device_get(row))
            tally.show(bar, history[-1])
            if checkpoint is not None and len(history) % every == 0:
                files.write(checkpoint, state, inner.columns(history, members)._asdict(), about)
    rows = inner.columns(history, members)
    if checkpoint is not None:
        files.write(checkpoint, state, rows._asdict(), about)
    _say(rows)
    arrays, done = (state.best, state.best_step) if keep else (state.arrays, state.step)
    trained = eqx.combine(arrays, job.static)
    stopped = inner.exhausted(state, patience)
    return Fit(trained, *rows, np.asarray(done), stopped, state.opt_state)


def _validated(job, validate, validate_every, state, row):
    """Measure the model after the update, when it is time."""
    if int(state.step) % validate_every:
        return state, row._replace(score=np.full(np.shape(row.loss), np.nan))
    score = inner.validation_score(job, validate, state.arrays)
    return inner.judge(state, state.arrays, state.step, score), row._replace(score=score)


def _say(rows: Row) -> None:
    """Warn about what was left out."""
    skipped, failed = np.flatnonzero(rows.skipped), inner.total(rows.failed)
    if skipped.size:
        first = int(skipped[0]) // max(1, int(np.size(rows.skipped[0])))
        warnings.warn(
            f"{skipped.size:,} of {rows.skipped.size:,} updates were skipped, first update {first}: "
            "their loss or gradient was not finite",
            stacklevel=3,
        )
    if failed:
        where = int(np.sum(np.reshape(rows.failed, (len(rows.failed), -1)).any(axis=1)))
        warnings.warn(
            f"{failed:,} solves failed, in {where:,} of {len(rows.failed):,} updates; the loss left them out",
            stacklevel=3,
        )


def _numbers(key: jax.Array) -> list:
    """The words of a random key, typed or not."""
    typed = jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(key) if typed else key).tolist()


def _check_counts(**counts: Any) -> None:
    for name, value in counts.items():
        optional = name in ("batch_size", "members", "patience")
        if value is None and optional:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a positive integer{' or None' * optional}, got {value!r}")


def _check_things(loss, optimizer, validate, checkpoint, resume) -> None:
    if not callable(loss):
        raise TypeError(f"loss must be callable as loss(model, batch, key), got {loss!r}")
    if not callable(getattr(optimizer, "update", None)):
        raise TypeError(f"optimizer must be an optax optimizer such as optax.adam(1e-3), got {optimizer!r}")
    if validate is not None and not callable(validate):
        raise TypeError(f"validate must be callable as validate(model), got {validate!r}")
    if resume and checkpoint is None:
        raise ValueError("resume=True needs checkpoint=path, got checkpoint=None")


class _Batches:
    """Rows of the data for each update: a permutation an epoch, drawn from the key and the epoch alone."""

    def __init__(self, data: PyTree, batch_size: int | None, key: jax.Array):
        self.size, self.key, self.epoch, self.order = batch_size, key, -1, np.zeros(0, int)
        if batch_size is None:
            return
        lengths = {jax.numpy.shape(x)[:1] for x in jax.tree.leaves(data)}
        if len(lengths) != 1 or lengths == {()}:
            raise ValueError(f"batch_size={batch_size}: data needs one leading axis, got {lengths}")
        ((self.number,),) = lengths
        if batch_size > self.number:
            raise ValueError(f"batch_size must be at most the {self.number} rows of data, got {batch_size}")

    def rows(self, update: int) -> np.ndarray | None:
        """Indices of the batch of an update; None for all of the data."""
        if self.size is None:
            return None
        epoch, batch = divmod(update, self.number // self.size)
        if epoch != self.epoch:
            key = jax.random.fold_in(jax.random.fold_in(self.key, inner.BATCHES), epoch)
            self.epoch, self.order = epoch, np.asarray(jax.random.permutation(key, self.number))
        return self.order[batch * self.size : (batch + 1) * self.size]
