"""Training states on disk: one file, written whole or not at all, without pickle."""

import json
import os
import re
import zlib
from pathlib import Path
from typing import IO, Any

import jax
import jax.numpy as jnp
import numpy as np

from node_jax.files import whole
from node_jax.train.outcome import apart
from node_jax.types import PyTree

_FORMAT = "node_jax checkpoint 3"
_SUM = 8  # bytes at the end of a file: the checksum of all before, as hexadecimal digits


class CheckpointError(ValueError):
    """A file is no checkpoint, or that of another run; `fit(checkpoint=path, resume=True)` raises it.

    Remove the file, or give another path, to begin from the start.

    Args:
        message: what differs: the random key, the size of batches, the arrays of model and optimizer, or the metrics
            of the loss.

    Example:
        >>> import tempfile
        >>> import jax, jax.numpy as jnp, optax
        >>> import node_jax as nj
        >>> def loss(model, target, key):
        ...     return jnp.sum((model - target) ** 2)
        >>> path = Path(tempfile.mkdtemp(), "run.ckpt")
        >>> def train(seed):
        ...     options = {"updates": 2, "key": jax.random.key(seed), "progress": False}
        ...     nj.fit(jnp.zeros(2), loss, jnp.ones(2), optax.sgd(0.1), checkpoint=path, resume=True, **options)
        >>> train(0)
        >>> try:
        ...     train(1)
        ... except nj.train.CheckpointError as error:
        ...     print(error)
        checkpoint ...run.ckpt belongs to a run with key=[0, 0], not [0, 1]
    """

    def __init__(self, message: str):
        super().__init__(message)


def write(path: str | os.PathLike, state: PyTree, history: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    """Write a training state; a crash at any moment leaves the old file or the new one.

    Args:
        path: file to write; its folder is made if need be.
        state: pytree of arrays, typed random keys among them.
        history: arrays that grow, by name.
        about: what the run must agree in to go on from here; JSON values.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> path = Path(tempfile.mkdtemp(), "run.ckpt")
        >>> write(path, np.ones(2, np.float32), {"loss": np.zeros(3)}, {"seed": 1})
        >>> read(path, np.zeros(2, np.float32), {"seed": 1})
        (Array([1., 1.], dtype=float32), {'loss': array([0., 0., 0.])})
    """
    rows = {name: [x.shape, x.dtype.name] for name, x in history.items()}
    header = {"format": _FORMAT, "about": about, "leaves": _describe(state), "history": rows}
    with whole(path) as unfinished, unfinished.open("wb") as file:
        summed = _Summed(file)
        summed.write(json.dumps(header).encode() + b"\n")
        for x in [*jax.tree.leaves(state), *history.values()]:
            np.save(summed, _bits(x), allow_pickle=False)  # pyright: ignore[reportArgumentType]
        file.write(f"{summed.checksum:0{_SUM}x}".encode())
        file.flush()
        os.fsync(file.fileno())


def read(path: str | os.PathLike, like: PyTree, about: dict[str, Any]) -> tuple[PyTree, dict[str, np.ndarray]]:
    """Read a training state.

    Args:
        path: file that `write` wrote.
        like: pytree of arrays with the structure, shapes and dtypes of the state.
        about: as written.

    Returns:
        The state, of JAX arrays, and the history.

    Raises:
        CheckpointError: if the file is no checkpoint or a part of one, or belongs to another run; the message says why.
    """
    with Path(path).open("rb") as file:
        header = _header(path, file.readline())
        if not _is_whole(file):
            raise CheckpointError(f"checkpoint {path} is damaged, or only a part of one")
        for name, value in about.items():
            if header["about"].get(name) != value:
                was = header["about"].get(name)
                text = f"checkpoint {path} belongs to a run with {name}={was!r}, not {value!r}"
                raise CheckpointError(text)
        if header["leaves"] != _describe(like):
            in_file, here = apart(header["leaves"], _describe(like))
            raise CheckpointError(
                f"checkpoint {path} holds other arrays than this model and optimizer: "
                f"{in_file} in the file, {here} in this run"
            )
        leaves, structure = jax.tree.flatten(like)
        state = jax.tree.unflatten(structure, [_leaf(file, x) for x in leaves])
        return state, {name: _array(file, dtype) for name, (_, dtype) in header["history"].items()}


class _Summed:
    """A file to write to, and the checksum of what was written."""

    def __init__(self, file: IO[bytes]):
        self.file, self.checksum = file, 0

    def write(self, content: Any) -> int:
        self.checksum = zlib.crc32(content, self.checksum)
        return self.file.write(content)


def _is_whole(file: IO[bytes]) -> bool:
    """Whether a file ends with the checksum of what is before; the place in the file stays."""
    place, left, checksum = file.tell(), file.seek(-_SUM, os.SEEK_END), 0
    file.seek(0)
    while left:
        part = file.read(min(left, 1 << 20))
        checksum, left = zlib.crc32(part, checksum), left - len(part)
    found = file.read()
    file.seek(place)
    return found == f"{checksum:0{_SUM}x}".encode()


def sweep(path: str | os.PathLike) -> None:
    """Remove the unfinished files that killed runs of this checkpoint left, each named after its process."""
    path = Path(path)
    if os.name != "posix" or not path.parent.is_dir():  # elsewhere, signal 0 does more than ask
        return
    name = re.compile(re.escape(path.name) + r"\.(\d{1,9})\.tmp")
    for file in path.parent.iterdir():
        match = name.fullmatch(file.name)
        if match and file.is_file() and not _is_alive(int(match[1])):
            file.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    if process == os.getpid():  # the number was given out anew: in a container every run may have the same
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


def _header(path: str | os.PathLike, line: bytes) -> dict[str, Any]:
    try:
        header = json.loads(line)
        if header["format"] == _FORMAT:
            return header
    except (ValueError, KeyError, TypeError):
        pass
    raise CheckpointError(f"checkpoint {path} is not a file that this version of fit wrote")


def _describe(state: PyTree) -> list[str]:
    """Paths, shapes and dtypes of the leaves; the dtype of a typed key names its implementation."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return [f"{jax.tree_util.keystr(path)} {x.dtype}{list(x.shape)}" for path, x in leaves]


def _is_key(x: Any) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _bits(x: Any) -> np.ndarray:
    """Return an array of a dtype that NumPy itself has, which bfloat16 is not."""
    x = np.asarray(jax.random.key_data(x) if _is_key(x) else x)
    return x if x.dtype.isbuiltin == 1 else x.view(f"u{x.dtype.itemsize}")


def _array(file: IO[bytes], dtype: str) -> np.ndarray:
    """Read what `_bits` made of an array of this dtype."""
    x, kind = np.load(file, allow_pickle=False), jnp.dtype(dtype)
    return x if kind.isbuiltin == 1 else x.view(kind)


def _leaf(file: IO[bytes], like: Any) -> jax.Array:
    if _is_key(like):
        return jax.random.wrap_key_data(np.load(file, allow_pickle=False), impl=jax.random.key_impl(like))
    return jnp.asarray(_array(file, like.dtype.name))
