"""Words of the command line, and the error of a command."""

import argparse
import math
from collections.abc import Callable
from typing import Any


class CommandError(ValueError):
    """A command cannot do what it was asked for; the message says why."""


def whole_number(least: int, most: int = 2**31 - 1) -> Callable[[str], int]:
    """Return what reads a whole number from `least` to `most`."""
    bounds = f"of at least {least}" if most == 2**31 - 1 else f"from {least} to {most:,}"

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number {bounds}, got {text!r}")
        return value

    return read


def number(text: str) -> float:
    """Read a finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number, got {text!r}")
    return value


def positive(text: str) -> float:
    """Read a positive number."""
    value = number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be a positive number, got {text!r}")
    return value


def named_number(text: str) -> tuple[str, float]:
    """Read NAME=NUMBER."""
    name, value = _pair(text, "NUMBER")
    return name, number(value)


MARKS: dict[str, Any] = {"log": "log", "logit": "logit", "none": None, "held": False}


def named_mark(text: str) -> tuple[str, Any]:
    """Read NAME=SCALE, and return the mark that `fit_parameters` has for the scale."""
    name, scale = _pair(text, "SCALE")
    if scale not in MARKS:
        raise argparse.ArgumentTypeError(f"must be NAME=SCALE with a scale of {', '.join(MARKS)}, got {text!r}")
    return name, MARKS[scale]


def _pair(text: str, what: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        raise argparse.ArgumentTypeError(f"must be NAME={what}, got {text!r}")
    return name, value
