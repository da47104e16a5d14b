"""Tables of measurements from CSV files; what is wrong with one is said by row and column."""

import csv
import itertools
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from node_jax.commands.options import CommandError

MISSING = ("", "na", "nan")  # whatever the case
DELIMITERS = ",;\t"


class Series(NamedTuple):
    """What was measured of one subject.

    Attributes:
        subject: its name, None without a column of subjects.
        rows: number of each row in the file, the header being row 1.
        ts: times `(n,)`, from the first to the last.
        values: `(n, observed)`, NaN where missing.
        constants: the number of each further column, such as a dose.
    """

    subject: str | None
    rows: list[int]
    ts: np.ndarray
    values: np.ndarray
    constants: dict[str, float]


class Table(NamedTuple):
    """Measurements of one subject or several; `time`, `observed` and `subject` are names of columns."""

    path: Path
    time: str
    observed: tuple[str, ...]
    subject: str | None
    series: list[Series]


class _Row(NamedTuple):
    number: int
    time: float
    values: list[float]
    constants: list[float]


def read(
    path: Path, time: str | None, observed: list[str] | None, subject: str | None, constants: tuple[str, ...] = ()
) -> Table:
    """Read a table.

    Args:
        path: a CSV file in UTF-8 with a header, its cells separated by commas, semicolons or tabs.
        time: column of times; default: the first one that is not `subject`.
        observed: columns of what was measured; default: all others. Empty cells, NaN and NA are missing values.
        subject: column that says whose measurement a row is, if there are several; their rows may be mixed.
        constants: columns with one number for each subject.

    Raises:
        CommandError: naming the row and the column of what is wrong.
    """
    lines = _lines(path)
    header = _header(path, lines[0][1])
    others = [name for name in header if name not in (subject, *constants)]
    time = time or (others[0] if others else header[0])
    observed = observed or [name for name in others if name != time]
    for option, names in _uses(time, observed, subject, constants):
        _check_names(path, option, names, header)
    if not observed:
        raise CommandError(f"{path} has no column but {', '.join(map(repr, header))}: there is nothing to fit")
    _check_once([time, *observed, *constants, *([subject] if subject else [])])
    rows = _rows(path, lines[1:], header, (time, observed, subject, constants))
    series = [_series(path, time, name, found, constants) for name, found in rows.items()]
    _check_values(path, observed, series)
    return Table(path, time, tuple(observed), subject, series)


def logarithms(table: Table, one: Series) -> np.ndarray:
    """Return logarithms of positive values."""
    for i, j in np.argwhere(one.values <= 0):
        raise CommandError(
            f"{table.path}, row {one.rows[i]}, column {table.observed[j]!r}: {one.values[i, j]:g} has no logarithm; "
            "leave the cell empty, or use --errors additive"
        )
    return np.log(one.values)


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Return the lines that are not blank, with their numbers; the header first."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            delimiter = max(DELIMITERS, key=first.count)
            reader = enumerate(csv.reader(file, delimiter=delimiter, strict=True), 1)
            lines = [(i, [cell.strip() for cell in cells]) for i, cells in reader if any(map(str.strip, cells))]
    except UnicodeDecodeError as error:
        raise CommandError(f"{path} is no text in UTF-8: {error.reason} at byte {error.start}") from error
    except csv.Error as error:
        raise CommandError(f"{path} is no CSV file: {error}") from error
    if not lines:
        raise CommandError(f"{path} is empty")
    if len(lines) == 1:
        raise CommandError(f"{path} has a header but no rows")
    return lines


def _header(path: Path, names: list[str]) -> list[str]:
    for i, name in enumerate(names):
        if not name:
            raise CommandError(f"{path}, row 1: column {i + 1} has no name")
        if name in names[:i]:
            raise CommandError(f"{path}, row 1: columns {names.index(name) + 1} and {i + 1} are both called {name!r}")
    return names


def _uses(time, observed, subject, constants) -> list[tuple[str, list[str]]]:
    return [
        ("--time", [time]),
        ("--observed", observed),
        ("--subject", [subject] if subject else []),
        ("--dose", list(constants)),
    ]


def _check_names(path: Path, option: str, names: list[str], header: list[str]) -> None:
    for name in names:
        if name not in header:
            raise CommandError(f"argument {option}: {path} has no column {name!r}, only {', '.join(map(repr, header))}")


def _check_once(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise CommandError(f"column {name!r} cannot be used twice")


def _rows(path: Path, lines: list, header: list[str], columns: tuple) -> dict[str | None, list[_Row]]:
    """Return the rows of each subject."""
    time, observed, subject, constants = columns
    found: dict[str | None, list[_Row]] = {}
    for i, cells in lines:
        if len(cells) != len(header):
            raise CommandError(f"{path}, row {i}: {len(cells)} cells, but the header has {len(header)}")
        row = dict(zip(header, cells, strict=True))
        if subject and not row[subject]:
            raise CommandError(f"{path}, row {i}, column {subject!r}: the name of the subject is missing")
        place = (path, i, row)
        values = [_number(*place, name, missing=True) for name in observed]
        needed = [_number(*place, name) for name in (time, *constants)]
        found.setdefault(row[subject] if subject else None, []).append(_Row(i, needed[0], values, needed[1:]))
    return found


def _number(path: Path, i: int, row: dict[str, str], name: str, missing: bool = False) -> float:
    text, where = row[name], f"{path}, row {i}, column {name!r}"
    if text.lower() in MISSING:
        if missing:
            return math.nan
        raise CommandError(f"{where}: a number is missing, got {text!r}")
    try:
        value = math.nan if "_" in text else float(text)  # Python reads 1_000 as a number
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise CommandError(f"{where}: expected a finite number, got {text!r}")
    return value


def _series(path: Path, time: str, name: str | None, rows: list[_Row], constants: tuple[str, ...]) -> Series:
    whose = f" of subject {name!r}" if name is not None else ""
    for before, row in itertools.pairwise(rows):
        if row.time < before.time:
            raise CommandError(
                f"{path}, row {row.number}, column {time!r}: times{whose} must increase, got {row.time:g} after "
                f"{before.time:g} in row {before.number}"
            )
        for column, old, new in zip(constants, before.constants, row.constants, strict=True):
            if old != new:
                raise CommandError(
                    f"{path}, row {row.number}, column {column!r}: must be the same number in all rows{whose}, got "
                    f"{new:g} after {old:g}"
                )
    ts, values = np.array([row.time for row in rows]), np.array([row.values for row in rows])
    if np.isnan(values).all():
        raise CommandError(f"{path}, rows {rows[0].number} to {rows[-1].number}: all values{whose} are missing")
    fixed = dict(zip(constants, rows[0].constants, strict=True))
    return Series(name, [row.number for row in rows], ts, values, fixed)


def _check_values(path: Path, observed: list[str], series: list[Series]) -> None:
    for i, name in enumerate(observed):
        if all(np.isnan(one.values[:, i]).all() for one in series):
            raise CommandError(f"{path}, column {name!r}: all values are missing")
