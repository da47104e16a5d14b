"""`node-jax fit` of a known field: parameters of every series in one compiled program."""

import warnings
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from node_jax.commands.drawing import POINTS, Curve, draw
from node_jax.commands.models import MODELS, Problem
from node_jax.commands.options import CommandError
from node_jax.commands.problems import problems_of, told
from node_jax.commands.results import LEVEL, described, fits_of, text_of
from node_jax.commands.table import Series, Table, logarithms
from node_jax.control import Adaptive
from node_jax.datasets import pad
from node_jax.estimate import ParameterFit, fit_parameters
from node_jax.estimate.arguments import state_itself
from node_jax.estimate.parameters import marked
from node_jax.files import write_json
from node_jax.train import checkpoint
from node_jax.types import PyTree


@dataclass(frozen=True)
class Logarithm:
    """Observe the logarithm of what another function observes; equal ones share a compilation."""

    observe: Any

    def __call__(self, z: PyTree, theta: PyTree) -> jax.Array:
        """Return the logarithms."""
        return jnp.log(self.observe(z, theta))


def run(options: Namespace, table: Table) -> int:
    """Fit, write and show; return 1 if a fit has not converged."""
    settings = _settings(options)
    logs = settings["errors"] == "multiplicative"
    problems = _counted(problems_of(options, table), table)
    begins = [_beginning(one, settings["t0"]) for one in table.series]
    series = [(one.ts, logarithms(table, one) if logs else one.values) for one in table.series]
    if options.resume:
        problems = _resumed(problems, table, options)
    print(f"Fitting {options.model} to {len(table.series)} series, from {settings['starts']} starts ...")
    fits = _fitted_or_said(options, table, problems, series, begins, logs)
    checkpoint.write(options.out / "fit.checkpoint", fits.x, {}, _about(problems, table, options))
    content = described(table, options, settings) | {"level": LEVEL, "fits": fits_of(fits, table)}
    write_json(options.out / "fit.json", content)
    print(text_of(fits, table))
    draw(options.out / "fit.png", table, _curves(fits, table, begins, logs))
    return _verdict(fits, table)


def _settings(options: Namespace) -> dict[str, Any]:
    """Return how the fit is made; what is not said is left to the model."""
    known = MODELS.get(options.model)
    scales = {False: "held", None: "none"}
    return {
        "seed": options.seed,
        "t0": known.t0 if known and options.t0 is None else options.t0,
        "errors": options.errors or (known.errors if known else "additive"),
        "starts": options.starts,
        "updates": options.updates,
        "rtol": options.rtol,
        "atol": options.atol,
        "dose": options.dose,
        "start": dict(options.start),
        "transform": {name: scales.get(mark, mark) for name, mark in options.transform},
    }


def _fitted_or_said(options: Namespace, table: Table, problems: list, series: list, begins: list, logs: bool) -> Any:
    """Fit; what a user's file or the arguments have wrong is said without a traceback."""
    try:
        if logs:
            _check_starts(problems, table, begins)
        return _fitted(options, problems, series, begins, logs)
    except CommandError:
        raise
    except Exception as error:
        if options.model not in MODELS:
            text = told(error, Path(options.model.rpartition(":")[0]))
        elif isinstance(error, (ValueError, TypeError)):
            text = str(error)
        else:
            raise
        raise CommandError(text) from error


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


def _beginning(one: Series, t0: float | None) -> float:
    """Return the time of the initial state."""
    if t0 is None:
        return float(one.ts[0])
    if t0 > one.ts[0]:
        raise CommandError(f"argument --t0: the first time, in row {one.rows[0]}, is {one.ts[0]:g}, before {t0:g}")
    return t0


def _check_starts(problems: list[Problem], table: Table, begins: list[float]) -> None:
    """Refuse a value at the time of a known initial state that is not positive there: it has no logarithm."""
    for problem, one, t0 in zip(problems, table.series, begins, strict=True):
        if any(mark is not False for mark in jax.tree.leaves(problem.fit_z0, is_leaf=lambda x: x is None)):
            continue
        z0, theta = jax.tree.map(jnp.asarray, (problem.z0, problem.theta))
        seen = np.asarray((problem.observe or state_itself)(z0, theta))
        if seen.shape != one.values.shape[1:]:
            continue  # `fit_parameters` says what it should be
        for i, j in np.argwhere((one.ts == t0)[:, None] & ~np.isnan(one.values) & (seen <= 0)):
            raise CommandError(
                f"{table.path}, row {one.rows[i]}, column {table.observed[j]!r}: the model starts at {seen[j]:g} there,"
                " which has no logarithm; leave the cell empty, or use --errors additive"
            )


def _fitted(
    options: Namespace, problems: list[Problem], series: list[tuple], begins: list[float], logs: bool
) -> ParameterFit:
    """Fit all series; the result has a leading axis of them."""
    first = problems[0]
    observe = first.observe or state_itself

    def fit(z0, theta, ts, observed, mask, t0):
        return fit_parameters(
            first.field,
            z0,
            theta,
            ts,
            observed,
            t0=t0,
            mask=mask,
            observe=Logarithm(observe) if logs else observe,
            transform=first.transform,
            fit_z0=first.fit_z0,
            starts=options.starts,
            key=jax.random.key(options.seed),
            updates=options.updates,
            steps=Adaptive(options.rtol, options.atol),
        )

    with warnings.catch_warnings():  # the table says the same
        warnings.filterwarnings("ignore", "all starts failed|the best start|The state is below", UserWarning)
        if len(series) == 1:  # eagerly: more is checked
            ts, observed = series[0]
            found = fit(first.z0, first.theta, ts, observed, None, begins[0])
            return jax.tree.map(lambda x: x[None], found)
        z0, theta = (_stacked([getattr(one, name) for one in problems]) for name in ("z0", "theta"))
        return jax.jit(jax.vmap(fit))(z0, theta, *map(jnp.asarray, pad(series)), jnp.asarray(begins))


def _stacked(trees: list[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(x) for x in leaves]), *trees)


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


def _curves(fits: ParameterFit, table: Table, begins: list[float], logs: bool) -> list[Curve]:
    """Return what each fit predicts, with bands."""
    last = [one.ts[-1] for one in table.series]
    ts = jnp.linspace(jnp.asarray(begins), jnp.asarray(last), POINTS, axis=1)
    bands = jax.vmap(lambda fit, ts: fit.predict(ts))(fits, ts)
    ends = [np.asarray(x) for x in (bands.mean, bands.low, bands.high)]
    mean, low, high = map(np.exp, ends) if logs else ends
    return [Curve(np.asarray(ts[i]), mean[i], low[i], high[i]) for i in range(len(last))]


def _verdict(fits: ParameterFit, table: Table) -> int:
    """Say which fits are not to be trusted; return 1 if there are any."""
    converged = np.asarray(fits.converged)
    known = np.isfinite(fits.correlation()).all(axis=(1, 2))
    advice = {
        "did not converge": (~converged, "Try more --updates or --starts, or --resume."),
        "left parameters open": (converged & ~known, "The data do not determine all parameters: hold some of them."),
    }
    for what, (bad, remedy) in advice.items():
        names = [one.subject for one, is_bad in zip(table.series, bad, strict=True) if is_bad]
        if names:
            who = f" ({table.subject} {', '.join(map(str, names))})" if table.subject else ""
            print(f"{len(names)} of {len(table.series)} fits{who} {what}. {remedy}")
    return int(not (converged & known).all())
