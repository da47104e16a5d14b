"""`node-jax fit`: a model fitted to a table of measurements."""

import argparse
import math
from pathlib import Path
from typing import Any

import jax

from node_jax.commands import network, parametric
from node_jax.commands.models import MODELS
from node_jax.commands.options import CommandError, named_mark, named_number, number, positive, whole_number
from node_jax.commands.table import read

ABOUT = "fit a model to a CSV table of measurements"
OWN_MODEL = """\
A model of your own is a file with a function field(z, t, theta) and theta0, a dict of starting values, and if you
like z0 (else the first row, fitted), observe(z, theta) (else the state), transform (scales by name), fit_z0.

It writes DIR/fit.json, DIR/fit.png and DIR/fit.checkpoint, and for neural DIR/network.eqx, which
node_jax.commands.network.load(DIR) reads. Exit codes: 0 for a fit, 1 for one that has not converged
or leaves parameters open, 2 for wrong arguments or data, 130 if interrupted."""
UPDATES, UPDATES_OF_NEURAL = 200, 1000
OF_NEURAL = {"window": 8, "width": 32, "depth": 2, "learning_rate": 1e-2}
OF_OTHERS = {"starts": 16, "t0": None, "dose": None, "start": [], "transform": [], "rtol": 1e-6, "atol": 1e-8}


def add(commands: Any) -> None:
    """Describe the command to argparse."""
    models = "\n\n".join(f"{name}: {known.about}" for name, known in MODELS.items())
    fit = commands.add_parser(
        "fit",
        help=ABOUT,
        description=f"{ABOUT[0].upper()}{ABOUT[1:]}.",
        epilog=f"{models}\n\nneural: one network as vector field of all columns and subjects.\n\n{OWN_MODEL}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    fit.add_argument("data", type=Path, metavar="DATA.csv", help="table with a header; empty cells are missing values")
    fit.add_argument("--model", required=True, metavar="MODEL", help=f"{', '.join(MODELS)}, neural or FILE.py:field")
    _add_columns(fit)
    _add_search(fit)
    _add_neural(fit)
    fit.set_defaults(run=run)


def _add_columns(fit: argparse.ArgumentParser) -> None:
    group = fit.add_argument_group("columns")
    group.add_argument("--time", metavar="COLUMN", help="times (default: the first column)")
    group.add_argument("--observed", nargs="+", metavar="COLUMN", help="what was measured (default: all others)")
    group.add_argument("--subject", metavar="COLUMN", help="whose measurement a row is; each subject is fitted")
    group.add_argument("--dose", metavar="NUMBER|COLUMN", help="one-compartment: dose, or column of doses (default: 1)")


def _add_search(fit: argparse.ArgumentParser) -> None:
    group = fit.add_argument_group("search")
    add = group.add_argument
    add("--out", type=Path, default=Path("fit-results"), metavar="DIR", help="folder to write to (fit-results)")
    add("--resume", action="store_true", help="go on from DIR/fit.checkpoint: from the estimates, or the network")
    add("--seed", type=whole_number(0), default=0, metavar="N", help="seed of all random numbers (0)")
    add("--updates", type=whole_number(1), metavar="N", help="most updates of each start (200), of a network (1000)")
    add("--errors", choices=("additive", "multiplicative"), help="compare values, or logarithms as lotka-volterra does")
    add(
        "--starts",
        type=whole_number(1, 100_000),
        metavar="N",
        help="number of starts, the first estimated from the data (16)",
    )
    add("--start", type=named_number, action="append", metavar="NAME=NUMBER", help="first start of a parameter")
    add("--transform", type=named_mark, action="append", metavar="NAME=SCALE",
        help="scale of a parameter, or of z0: log (positive), logit (0 to 1), none, held (not fitted)")  # fmt: skip
    add("--t0", type=number, metavar="TIME", help="time of the initial state (the first; one-compartment: 0)")
    add("--rtol", type=positive, metavar="NUMBER", help="relative tolerance of a solve (1e-6)")
    add("--atol", type=positive, metavar="NUMBER", help="absolute tolerance of a solve (1e-8)")


def _add_neural(fit: argparse.ArgumentParser) -> None:
    add = fit.add_argument_group("for --model neural").add_argument
    add("--window", type=whole_number(2), metavar="N", help="rows that are solved from one to the last (8)")
    add("--width", type=whole_number(1, 4096), metavar="N", help="units of a hidden layer (32)")
    add("--depth", type=whole_number(0, 32), metavar="N", help="hidden layers (2)")
    add("--learning-rate", type=positive, metavar="NUMBER", help="of Adam (0.01)")


def run(options: argparse.Namespace) -> int:
    """Read the table and fit the model; return 1 if the fit has not converged."""
    jax.config.update("jax_enable_x64", True)
    neural = options.model == "neural"
    _refuse(options, OF_OTHERS if neural else OF_NEURAL)
    for name, value in (OF_OTHERS | OF_NEURAL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.updates = options.updates or (UPDATES_OF_NEURAL if neural else UPDATES)
    columns = _dose(options)
    table = read(options.data, options.time, options.observed, options.subject, columns)
    options.out.mkdir(parents=True, exist_ok=True)
    code = network.run(options, table) if neural else parametric.run(options, table)
    print(f"Results are in {options.out}")
    return code


def _refuse(options: argparse.Namespace, others: dict[str, Any]) -> None:
    """Refuse options of other models."""
    for name in others:
        if getattr(options, name) is not None:
            raise CommandError(f"argument --{name.replace('_', '-')}: is not for --model {options.model}")


def _dose(options: argparse.Namespace) -> tuple[str, ...]:
    """Turn the dose into a number, or name the column where it is."""
    if options.dose is None:
        return ()
    if options.model != "one-compartment":
        raise CommandError(f"argument --dose: is not for --model {options.model}")
    try:
        dose = float(options.dose)
    except ValueError:
        return (options.dose,)
    if not 0 < dose < math.inf:
        raise CommandError(f"argument --dose: must be a positive number or a column, got {options.dose!r}")
    options.dose = dose
    return ()
