"""`node-jax fit` of a known field: parameters of every series in one compiled program."""

import warnings
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from node_jax.commands import drawing
from node_jax.commands.models import MODELS, Problem
from node_jax.commands.options import CommandError
from node_jax.commands.problems import problems_of, told
from node_jax.commands.table import Series, Table
from node_jax.control import Adaptive
from node_jax.datasets import pad
from node_jax.estimate import ParameterFit, fit_parameters
from node_jax.estimate.arguments import state_itself
from node_jax.estimate.parameters import marked
from node_jax.estimate.table import aligned
from node_jax.files import write_json
from node_jax.info import info
from node_jax.train import checkpoint
from node_jax.types import PyTree

STARTS, UPDATES = 16, 200
POINTS = 200  # of a curve


@dataclass(frozen=True)
class Logarithm:
    """Observe the logarithm of what another function observes; equal ones share a compilation."""

    observe: Any

    def __call__(self, z: PyTree, theta: PyTree) -> jax.Array:
        """Return the logarithms."""
        return jnp.log(self.observe(z, theta))


def run(options: Namespace, table: Table) -> int:
    """Fit, show and write; return 1 if a fit has not converged."""
    errors = options.errors or (MODELS[options.model].errors if options.model in MODELS else "additive")
    problems = _counted(problems_of(options, table), table)
    starts = [_beginning(one, options) for one in table.series]
    if options.resume:
        problems = _resumed(problems, table, options)
    print(f"Fitting {options.model} to {len(table.series)} series from {options.starts or STARTS} starts each ...")
    try:
        fits = _fitted(problems, table, starts, errors == "multiplicative", options)
    except (ValueError, TypeError) as error:
        raise CommandError(str(error)) from error
    except Exception as error:
        if options.model in MODELS:
            raise
        raise CommandError(told(error, Path(options.model.rpartition(":")[0]))) from error
    checkpoint.write(options.out / "fit.checkpoint", fits.x, {}, _about(problems, table, options))
    write_json(options.out / "fit.json", _content(fits, table, errors, options))
    print(_text(fits, table))
    drawing.draw(options.out / "fit.png", table, _curves(fits, table, starts, errors == "multiplicative"))
    return _verdict(fits, table)


def _counted(problems: list[Problem], table: Table) -> list[Problem]:
    """Refuse a series with fewer values than parameters: a batch is not looked at by `fit_parameters`."""
    for problem, one in zip(problems, table.series, strict=True):
        parameters, _ = _marked(problem)
        there = int(np.sum(~np.isnan(one.values)))
        if there < parameters.size:
            whose = f"subject {one.subject!r}" if one.subject is not None else str(table.path)
            raise CommandError(f"{whose} has {there} values, fewer than the {parameters.size} parameters")
    return problems


def _marked(problem: Problem) -> tuple:
    try:
        return marked(problem.theta, problem.z0, problem.transform, problem.fit_z0)
    except ValueError as error:
        raise CommandError(str(error)) from error


def _beginning(one: Series, options: Namespace) -> float:
    """Return the time of the initial state."""
    t0 = options.t0
    if t0 is None:
        t0 = MODELS[options.model].t0 if options.model in MODELS else None
    if t0 is None:
        return float(one.ts[0])
    if t0 > one.ts[0]:
        raise CommandError(f"argument --t0: the first time, in row {one.rows[0]}, is {one.ts[0]:g}, before {t0:g}")
    return t0


def _fitted(problems, table: Table, starts: list[float], logs: bool, options: Namespace) -> ParameterFit:
    """Fit all series; the result has a leading axis of them."""
    first = problems[0]
    series = [(one.ts, logarithms(table, one) if logs else one.values) for one in table.series]
    observe = first.observe or state_itself
    settings = {
        "observe": Logarithm(observe) if logs else observe,
        "transform": first.transform,
        "fit_z0": first.fit_z0,
        "starts": options.starts or STARTS,
        "key": jax.random.key(options.seed),
        "updates": options.updates or UPDATES,
        "steps": Adaptive(options.rtol, options.atol),
    }

    def fit(z0, theta, ts, observed, mask, t0):
        return fit_parameters(first.field, z0, theta, ts, observed, mask=mask, t0=t0, **settings)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "all starts failed|the best start|The state is below", UserWarning)
        if len(series) == 1:  # eagerly: more is checked
            ts, observed = series[0]
            found = fit(first.z0, first.theta, ts, observed, None, starts[0])
            return jax.tree.map(lambda x: x[None], found)
        z0, theta = (_stacked([getattr(one, name) for one in problems]) for name in ("z0", "theta"))
        return jax.jit(jax.vmap(fit))(z0, theta, *map(jnp.asarray, pad(series)), jnp.asarray(starts))


def _stacked(trees: list[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(x) for x in leaves]), *trees)


def logarithms(table: Table, one: Series) -> np.ndarray:
    """Return logarithms of positive values."""
    for i, j in np.argwhere(one.values <= 0):
        raise CommandError(
            f"{table.path}, row {one.rows[i]}, column {table.observed[j]!r}: {one.values[i, j]:g} has no logarithm; "
            "leave the cell empty, or use --errors additive"
        )
    return np.log(one.values)


def _about(problems: list[Problem], table: Table, options: Namespace) -> dict[str, Any]:
    """What fits that go on from one another agree in."""
    parameters, _ = _marked(problems[0])
    names = dict(zip(parameters.names, parameters.scales, strict=True))
    subjects = [one.subject for one in table.series]
    return {"model": options.model, "parameters": names, "observed": list(table.observed), "subjects": subjects}


def _resumed(problems: list[Problem], table: Table, options: Namespace) -> list[Problem]:
    """Start from the estimates of an earlier run."""
    path = options.out / "fit.checkpoint"
    if not path.exists():
        print(f"Nothing to resume in {options.out}: starting from the beginning.")
        return problems
    like = jnp.stack([_marked(problem)[1] for problem in problems])
    xs, _ = checkpoint.read(path, like, _about(problems, table, options))
    return [_moved(problem, x) for problem, x in zip(problems, xs, strict=True)]


def _moved(problem: Problem, x: jax.Array) -> Problem:
    """Put estimates in the place of the starting values, if there are any."""
    if not bool(jnp.all(jnp.isfinite(x))):
        return problem
    parameters, _ = _marked(problem)
    theta, z0 = parameters.combine(parameters.values(x))
    return problem._replace(theta=theta, z0=z0)


def _content(fits: ParameterFit, table: Table, errors: str, options: Namespace) -> dict[str, Any]:
    """What is written: the fit of each series, and how it was made."""
    low, high = fits.interval()
    columns = {
        "estimate": fits.model.parameters.flat(fits.x),
        "standard_error": fits.standard_errors(),
        "low": low,
        "high": high,
    }
    columns = {name: np.asarray(x) for name, x in columns.items()}
    scales = [scale or "none" for scale in fits.model.parameters.scales]
    numbers = {
        "correlation": fits.correlation(),
        "residual_sd": fits.sigma,
        "freedom": fits.freedom,
        "log_likelihood": -fits.loss,
        "aic": fits.aic,
        "converged": fits.converged,
        "values": fits.count,
    }
    numbers = {name: np.asarray(x) for name, x in numbers.items()}
    counts = {
        name: np.sum(np.asarray(getattr(fits.starts, name)), axis=-1) for name in ("converged", "failed", "agree")
    }
    rows = []
    for i, one in enumerate(table.series):
        parameters = {
            name: {**{what: x[i, j] for what, x in columns.items()}, "scale": scales[j]}
            for j, name in enumerate(fits.names)
        }
        starts = {name: x[i] for name, x in counts.items()}
        each = {name: x[i] for name, x in numbers.items()}
        missing = one.values.size - int(each["values"])
        rows.append({"subject": one.subject, "parameters": parameters, **each, "missing": missing, "starts": starts})
    settings = {
        "t0": options.t0,
        "errors": errors,
        "starts": options.starts or STARTS,
        "updates": options.updates or UPDATES,
        "rtol": options.rtol,
        "atol": options.atol,
        "start": dict(options.start),
        "transform": {name: "none" if mark is None else mark or "held" for name, mark in options.transform},
    }
    return described(table, options, settings) | {"level": 0.95, "fits": rows}


def described(table: Table, options: Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    """What data, model, settings and machine a result belongs to."""
    data = {"file": str(table.path), "time": table.time, "observed": table.observed, "subject": table.subject}
    settings = {"seed": options.seed, **settings}
    return {"model": options.model, "data": data, "settings": settings, "environment": info()._asdict()}


def _text(fits: ParameterFit, table: Table) -> str:
    """Return the table of one fit, or a line for each subject."""
    if len(table.series) == 1:
        return str(jax.tree.map(lambda x: x[0], fits))
    values, errors = (np.asarray(x) for x in (fits.model.parameters.flat(fits.x), fits.standard_errors()))
    head = (table.subject, *(f"{name} (std. error)" for name in fits.names), "residual SD", "converged")
    rows = [
        (
            str(one.subject),
            *(f"{value:.4g} ({error:.2g})" for value, error in zip(values[i], errors[i], strict=True)),
            f"{float(fits.sigma[i]):.3g}",
            "yes" if bool(fits.converged[i]) else "no",
        )
        for i, one in enumerate(table.series)
    ]
    return "\n".join(aligned([head, *rows]))


def _curves(fits: ParameterFit, table: Table, starts: list[float], logs: bool) -> list[drawing.Curve]:
    """Return what each fit predicts, with bands."""
    last = [one.ts[-1] for one in table.series]
    ts = jnp.linspace(jnp.asarray(starts), jnp.asarray(last), POINTS, axis=1)
    bands = jax.vmap(lambda fit, ts: fit.predict(ts))(fits, ts)
    back = np.exp if logs else np.asarray
    return [
        drawing.Curve(*map(np.asarray, one))
        for one in zip(ts, *map(back, (bands.mean, bands.low, bands.high)), strict=True)
    ]


def _verdict(fits: ParameterFit, table: Table) -> int:
    bad = [one.subject for one, fine in zip(table.series, fits.converged, strict=True) if not bool(fine)]
    if not bad:
        return 0
    who = f": {', '.join(map(str, bad))}" if table.subject else ""
    print(f"{len(bad)} of {len(table.series)} fits did not converge{who}. Try more --updates or --starts, or --resume.")
    return 1
