"""What `fit` is called with: wrong arguments are named, with their value and what to give instead."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from node_jax.types import PyTree, is_count


def check_counts(**counts: Any) -> None:
    """Refuse what is no positive integer, or None where that is allowed."""
    for name, value in counts.items():
        optional = name in ("batch_size", "members", "patience")
        if not is_count(value) and not (value is None and optional):
            raise ValueError(f"{name} must be a positive integer{' or None' * optional}, got {value!r}")


def check_things(loss, optimizer, validate, callback, checkpoint, resume) -> None:
    """Refuse what cannot be called, and to resume from nowhere."""
    if not callable(loss):
        raise TypeError(f"loss must be callable as loss(model, batch, key), got {loss!r}")
    if not is_optimizer(optimizer):
        raise TypeError(f"optimizer must be an optax optimizer such as optax.adam(1e-3), got {optimizer!r}")
    if validate is not None and not callable(validate):
        raise TypeError(f"validate must be callable as validate(model), got {validate!r}")
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be callable as callback(update), got {callback!r}")
    if resume and checkpoint is None:
        raise ValueError("resume=True needs checkpoint=path, got checkpoint=None")


def is_optimizer(x: Any) -> bool:
    """Whether `x` has the two functions of an optax optimizer."""
    return callable(getattr(x, "init", None)) and callable(getattr(x, "update", None))


def functions_of(optimizer: Any) -> optax.GradientTransformation:
    """Return an optimizer as its two functions, of an object such as `optax.MultiSteps` too."""
    if isinstance(optimizer, optax.GradientTransformation):
        return optimizer
    parameters = inspect.signature(optimizer.update).parameters.values()
    takes_more = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)
    kind = optax.GradientTransformationExtraArgs if takes_more else optax.GradientTransformation
    return kind(optimizer.init, optimizer.update)


def random_key(key: Any) -> jax.Array:
    """Return one random key, typed or as two or four words, and refuse anything else."""
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
    if isinstance(key, (jax.Array, np.ndarray)) and dtype is not None:
        typed = jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)
        if (typed and shape == ()) or (dtype == np.uint32 and shape in [(2,), (4,)]):
            return key if isinstance(key, jax.Array) else jnp.asarray(key)
        raise TypeError(
            f"key must be one random key such as jax.random.key(0), got an array {dtype}{list(shape or ())}"
        )
    seed = int(key) if isinstance(key, (int, np.integer)) and not isinstance(key, bool) else 0
    raise TypeError(f"key must be a random key such as jax.random.key({seed}), got {key!r}")


def check_data(data: PyTree) -> None:
    """Refuse what is read once, or by iterating over it: only arrays can be read again, and by rows."""
    for path, x in jax.tree_util.tree_leaves_with_path(data, is_leaf=_is_iterator):
        if _is_iterator(x) or (hasattr(x, "__iter__") and not hasattr(x, "shape") and not isinstance(x, str)):
            raise TypeError(
                f"data{jax.tree_util.keystr(path)} must be an array, got {x!r}, which has to be iterated over: put its "
                "rows into arrays and give batch_size=..., or call fit for one piece after the other, with "
                "opt_state=run.opt_state of the piece before"
            )


def _is_iterator(x: Any) -> bool:
    return hasattr(x, "__next__")


def number_of_updates(updates: int | None, epochs: int | None, batches: int | None) -> int:
    """Turn `updates` or `epochs`, of so many batches each, into a number of updates."""
    if (updates is None) == (epochs is None):
        raise ValueError(f"give either updates or epochs, got updates={updates!r} and epochs={epochs!r}")
    if epochs is None:
        check_counts(updates=updates)
        assert updates is not None
        return updates
    check_counts(epochs=epochs)
    if batches is None:
        raise ValueError(f"epochs={epochs} needs batch_size, got batch_size=None; without it an epoch is one update")
    return epochs * batches
