"""Images of digits: those of scikit-learn, and folders of IDX files such as MNIST."""

import gzip
import importlib
import os
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class Images(NamedTuple):
    """Images `(n, 1, height, width)`, float32 from 0 to 1, and labels `(n,)`, int32.

    Attributes:
        x: images.
        labels: labels.

    Example:
        >>> images = digits()
        >>> images.x.shape, int(images.labels.max())
        ((1797, 1, 8, 8), 9)
    """

    x: np.ndarray
    labels: np.ndarray


def digits() -> Images:
    """Return the 1,797 images of 8 by 8 pixels that come with scikit-learn.

    Returns:
        `Images`.

    Raises:
        ImportError: if scikit-learn is not installed.

    Example:
        >>> digits().x.shape
        (1797, 1, 8, 8)
    """
    try:
        loaded = importlib.import_module("sklearn.datasets").load_digits()  # only here: an optional dependency
    except ImportError as error:
        raise ImportError("digits() needs scikit-learn: pip install scikit-learn") from error
    return Images((loaded.images / 16.0).astype(np.float32)[:, None], loaded.target.astype(np.int32))


def idx(folder: str | os.PathLike[str], part: str = "train") -> Images:
    """Read images and labels from IDX files, the format of MNIST.

    Args:
        folder: that has the files `<part>-images-idx3-ubyte` and `<part>-labels-idx1-ubyte`, also with `.gz` behind.
        part: "train" or "t10k".

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is no IDX file, or there are not as many labels as images.

    Returns:
        `Images`.

    Example:
        >>> idx("no_such_folder")
        Traceback (most recent call last):
        FileNotFoundError: no_such_folder has none of train-images-idx3-ubyte, ...
    """
    images, labels = (read_idx(_found(Path(folder), f"{part}-{name}")) for name in ("images-idx3", "labels-idx1"))
    if len(images) != len(labels):
        raise ValueError(f"{folder}: {len(images)} images of {part!r} have {len(labels)} labels")
    return Images(images.astype(np.float32)[:, None] / 255.0, labels.astype(np.int32))


def _found(folder: Path, name: str) -> Path:
    names = [f"{name}{dash}ubyte{end}" for dash in ("-", ".") for end in ("", ".gz")]
    for path in (folder / each for each in names):
        if path.exists():
            return path
    raise FileNotFoundError(f"{folder} has none of {', '.join(names)}")


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Return the array of an IDX file, which may be compressed by gzip.

    Raises:
        ValueError: if the file is no IDX file, or is cut off.
    """
    path = Path(path)
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a complete gzip file") from error
    kind, axes = (content[2], content[3]) if len(content) >= 4 and content[:2] == b"\x00\x00" else (None, 0)
    if kind not in _DTYPES or len(content) < 4 + 4 * axes:
        raise ValueError(f"{path} is no IDX file")
    shape = tuple(int(x) for x in np.frombuffer(content, ">i4", axes, 4))
    values = np.frombuffer(content, _DTYPES[kind], offset=4 + 4 * axes)
    if values.size != np.prod(shape):
        raise ValueError(f"{path} must hold {np.prod(shape)} values of shape {shape}, got {values.size}")
    return values.reshape(shape)
