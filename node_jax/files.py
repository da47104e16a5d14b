"""Files that are written whole or not at all."""

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def whole(path: str | os.PathLike) -> Iterator[Path]:
    """Give a name to write to, which becomes `path` if all went well; a failure leaves the old file as it was.

    Args:
        path: file to write; its folder is made if need be.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write numbers, arrays, text, lists and dicts as JSON; numbers that it does not have become null."""
    with whole(path) as unfinished:
        text = json.dumps(plain(content), indent=2, allow_nan=False, ensure_ascii=False)
        unfinished.write_text(text + "\n", encoding="utf-8")


def plain(x: Any) -> Any:
    """Return what JSON has for a value: lists for arrays and tuples, None for a number that is not finite.

    Example:
        >>> import numpy as np
        >>> plain({"a": (np.float32(0.5), math.nan), "b": np.arange(2)})
        {'a': [0.5, None], 'b': [0, 1]}
    """
    if isinstance(x, dict):
        return {name: plain(value) for name, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [plain(value) for value in x]
    if hasattr(x, "tolist"):
        return plain(x.tolist())
    return None if isinstance(x, float) and not math.isfinite(x) else x
