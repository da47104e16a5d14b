"""Training states on disk: one file, written whole or not at all, without pickle."""

import json
import os
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from node_jax.types import PyTree

_FORMAT = "node_jax checkpoint 1"


class CheckpointError(ValueError):
    """A file is no checkpoint, or that of another run."""


def write(path: str | os.PathLike, state: PyTree, history: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    """Write a training state; a crash at any moment leaves the old file or the new one.

    Args:
        path: file to write; its folder is made if need be.
        state: pytree of arrays.
        history: arrays that grow, by name.
        about: what the run must agree in to go on from here; JSON values.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> path = Path(tempfile.mkdtemp(), "run.ckpt")
        >>> write(path, np.ones(2), {"loss": np.zeros(3)}, {"seed": 1})
        >>> read(path, np.zeros(2), {"seed": 1})
        (array([1., 1.]), {'loss': array([0., 0., 0.])})
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {name: [x.shape, x.dtype.str] for name, x in history.items()}
    header = {"format": _FORMAT, "about": about, "leaves": _describe(state), "history": rows}
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            file.write(json.dumps(header).encode() + b"\n")
            eqx.tree_serialise_leaves(file, (state, history))
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def read(path: str | os.PathLike, like: PyTree, about: dict[str, Any]) -> tuple[PyTree, dict[str, np.ndarray]]:
    """Read a training state.

    Args:
        path: file that `write` wrote.
        like: pytree of arrays with the structure, shapes and dtypes of the state.
        about: as written.

    Returns:
        The state and the history.

    Raises:
        CheckpointError: if the file is no checkpoint, or belongs to another run; the message says why.
    """
    with Path(path).open("rb") as file:
        header = _header(path, file.readline())
        for name, value in about.items():
            if header["about"].get(name) != value:
                was = header["about"].get(name)
                text = f"checkpoint {path} belongs to a run with {name}={was!r}, not {value!r}"
                raise CheckpointError(text)
        if header["leaves"] != _describe(like):
            raise CheckpointError(
                f"checkpoint {path} holds other arrays than this model and optimizer: "
                f"{header['leaves']} in the file, {_describe(like)} in this run"
            )
        history = {name: np.zeros(shape, dtype) for name, (shape, dtype) in header["history"].items()}
        return eqx.tree_deserialise_leaves(file, (like, history))


def _header(path: str | os.PathLike, line: bytes) -> dict[str, Any]:
    try:
        header = json.loads(line)
        if header["format"] == _FORMAT:
            return header
    except (ValueError, KeyError, TypeError):
        pass
    raise CheckpointError(f"checkpoint {path} is not a file that this version of fit wrote")


def _describe(state: PyTree) -> list[str]:
    """Paths, shapes and dtypes of the leaves."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return [f"{jax.tree_util.keystr(path)} {x.dtype}{list(x.shape)}" for path, x in leaves]
