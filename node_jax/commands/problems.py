"""What is fitted to each series of a table: a known model, or the functions of a file."""

import importlib.util
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from node_jax.commands.models import MODELS, Known, Problem
from node_jax.commands.options import CommandError
from node_jax.commands.table import Series, Table


def problems_of(options: Namespace, table: Table) -> list[Problem]:
    """Return the problem of each series, changed by --start and --transform."""
    known = MODELS.get(options.model)
    found = _known(known, table, options) if known else _of_file(options.model, table)
    return [_changed(problem, options) for problem in found]


def _known(known: Known, table: Table, options: Namespace) -> list[Problem]:
    """Start a known model from each series."""
    observe = known.observe.get(len(table.observed))
    if observe is None:
        counts = " or ".join(map(str, known.observe)) + " column" + "s" * (list(known.observe) != [1])
        raise CommandError(
            f"argument --observed: {options.model} takes {counts} ({', then '.join(known.columns)}), got "
            f"{', '.join(map(repr, table.observed))}"
        )
    return [_started(known, observe, one, options.dose) for one in table.series]


def _started(known: Known, observe: Any, one: Series, dose: Any) -> Problem:
    dose = next(iter(one.constants.values()), 1.0 if dose is None else dose)
    if not dose > 0:
        raise CommandError(f"the dose{_whose(one)} must be positive, got {dose:g}")
    values = np.stack([_complete(one.ts, column) for column in one.values.T], axis=1)
    if not values[:, 0].max() > 0:
        raise CommandError(f"the model needs positive values, but the first observed column{_whose(one)} has none")
    theta, z0 = known.begin(one.ts, values, float(dose))
    return Problem(known.field, observe, theta, z0, dict.fromkeys(theta, "log"), known.fit_z0)


def _complete(ts: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Put what lies between its neighbours in the place of missing values; zeros if there are no others."""
    there = ~np.isnan(column)
    return np.interp(ts, ts[there], column[there]) if there.any() else np.zeros_like(column)


def _whose(one: Series) -> str:
    return f" of subject {one.subject!r}" if one.subject is not None else ""


def _of_file(where: str, table: Table) -> list[Problem]:
    """Take what a file defines; without a z0 of its own, the first row is where the state is looked for."""
    path, _, name = where.rpartition(":")
    module = _loaded(Path(path), where)
    field, theta = (_needed(module, path, what) for what in (name, "theta0"))
    if not callable(field):
        raise CommandError(f"{path}: {name} must be a function {name}(z, t, theta), got {field!r}")
    if not isinstance(theta, dict) or not theta or not all(map(eqx.is_array_like, jax.tree.leaves(theta))):
        raise CommandError(f"{path}: theta0 must be a dict of numbers and arrays by name, got {theta!r}")
    marks = getattr(module, "transform", None)
    marks = marks if isinstance(marks, dict) else dict.fromkeys(theta, marks)
    if set(marks) - set(theta):
        raise CommandError(f"{path}: transform names {sorted(set(marks) - set(theta))}, which theta0 does not have")
    marks = dict.fromkeys(theta) | marks
    own = hasattr(module, "z0")
    if own and not all(map(eqx.is_array_like, jax.tree.leaves(module.z0))):
        raise CommandError(f"{path}: z0 must hold numbers and arrays, got {module.z0!r}")
    fit_z0 = getattr(module, "fit_z0", not own)
    observe = getattr(module, "observe", None)
    z0s = [jax.tree.map(jnp.asarray, module.z0) if own else _first(path, one) for one in table.series]
    return [Problem(field, observe, dict(theta), z0, marks, fit_z0) for z0 in z0s]


def _first(path: str, one: Series) -> np.ndarray:
    if np.isnan(one.values[0]).any():
        raise CommandError(f"{path} has no z0, and the first row{_whose(one)}, row {one.rows[0]}, lacks a value")
    return one.values[0]


def _loaded(path: Path, where: str) -> ModuleType:
    """Run a file of Python."""
    if not path.name.endswith(".py") or where.endswith(":"):
        known = ", ".join([*MODELS, "neural"])
        raise CommandError(f"argument --model: must be {known} or FILE.py:field, got {where!r}")
    if not path.is_file():
        raise CommandError(f"argument --model: there is no file {str(path)!r}")
    spec = importlib.util.spec_from_file_location(f"node_jax_fit_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None  # it ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise CommandError(told(error, path)) from error
    return module


def _needed(module: ModuleType, path: str, name: str) -> Any:
    if not hasattr(module, name):
        raise CommandError(f"{path} defines no {name}")
    return getattr(module, name)


def told(error: Exception, path: Path) -> str:
    """Say what went wrong, and in which line of a user's file."""
    line, trace = getattr(error, "lineno", None), error.__traceback__  # a SyntaxError knows its line
    while trace is not None:
        code = trace.tb_frame.f_code
        line = trace.tb_lineno if Path(code.co_filename).name == path.name else line
        trace = trace.tb_next
    where = f", line {line}" if line else ""
    return f"{path}{where}: {type(error).__name__}: {error}"


def _changed(problem: Problem, options: Namespace) -> Problem:
    """Take the starts and scales of the command line."""
    theta, marks, fit_z0 = dict(problem.theta), dict(problem.transform), problem.fit_z0
    for name, value in options.start:
        if name not in theta:
            raise CommandError(f"argument --start: {options.model} has no parameter {name!r}, only {', '.join(theta)}")
        if jnp.ndim(theta[name]) != 0:
            raise CommandError(f"argument --start: {name} is no number but an array {jnp.shape(theta[name])}")
        if not jnp.issubdtype(jnp.result_type(theta[name]), jnp.floating):
            raise CommandError(f"argument --start: {name} = {theta[name]} is no floating number and cannot be changed")
        theta[name] = value
    for name, mark in options.transform:
        if name == "z0":
            fit_z0 = mark
        elif name in theta:
            marks[name] = mark
        else:
            raise CommandError(
                f"argument --transform: {options.model} has no parameter {name!r}, only {', '.join([*theta, 'z0'])}"
            )
    return problem._replace(theta=theta, transform=marks, fit_z0=fit_z0)
