"""`node-jax fit --model neural`: one network as vector field of all series, trained on short windows."""

import json
import sys
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from node_jax.commands.drawing import POINTS, Curve, draw
from node_jax.commands.options import CommandError
from node_jax.commands.results import described
from node_jax.commands.table import Table, logarithms
from node_jax.control import Adaptive
from node_jax.datasets import pad
from node_jax.files import whole, write_json
from node_jax.nn import MLPField, NeuralODE
from node_jax.save import SaveAt
from node_jax.train import fit, squared_error

BATCH = 256  # windows of an update, if there are more
EVERY = 50  # updates between two checkpoints
STEPS = Adaptive(rtol=1e-5, atol=1e-6)


class Network(eqx.Module):
    """A neural ODE in the units of the data.

    Attributes:
        ode: the dynamics of scaled states in scaled time.
        mean: of each column, or of its logarithm.
        spread: standard deviation of each.
        unit: of time: what a window lasts.
        logs: whether columns are logarithms.
    """

    ode: NeuralODE
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    unit: float
    logs: bool = eqx.field(static=True)

    def trajectory(self, z0: Any, ts: Any) -> jax.Array:
        """Return what the columns are at times `(n,)`, from `z0` `(columns,)` at the first of them on.

        Returns:
            Array `(n, columns)`; NaN from where the solve failed.
        """
        z0, ts, mean, spread = map(jnp.asarray, (z0, ts, self.mean, self.spread))
        scaled = ((jnp.log(z0) if self.logs else z0) - mean) / spread
        save = SaveAt((ts - ts[0]) / self.unit)
        zs = self.ode.solve(scaled, t1=save.ts[-1], save=save, throw=False).zs
        zs = mean[None] + spread[None] * zs
        return jnp.exp(zs) if self.logs else zs


class Windows(NamedTuple):
    """Pieces of series in scaled units: times `(windows, n)` from 0 on, values and mask `(windows, n, columns)`."""

    ts: jax.Array
    values: jax.Array
    mask: jax.Array


def load(folder: str | Path) -> Network:
    """Read the network that `node-jax fit --model neural` wrote into a folder.

    Args:
        folder: what was given as --out.

    Example:
        >>> from node_jax.commands.network import load
        >>> network = load("fit-results")  # doctest: +SKIP
        >>> network.trajectory([30.0, 4.0], [1900.0, 1901.0])  # doctest: +SKIP
    """
    content = json.loads(Path(folder, "fit.json").read_text(encoding="utf-8"))
    settings, columns = content["settings"], len(content["data"]["observed"])
    zeros = (0.0,) * columns
    like = Network(_new(settings, columns), zeros, zeros, 0.0, settings["errors"] == "multiplicative")
    return eqx.tree_deserialise_leaves(Path(folder, "network.eqx"), like)


def run(options: Namespace, table: Table) -> int:
    """Train, show and write; return 1 if the trained network is not finite on its own data."""
    errors = options.errors or "additive"
    names = ("seed", "updates", "window", "width", "depth", "learning_rate")
    settings: dict[str, Any] = {name: getattr(options, name) for name in names} | {"errors": errors}
    values = [logarithms(table, one) if errors == "multiplicative" else one.values for one in table.series]
    mean, spread = _units(values)
    pieces = _pieces(table, values, options.window)
    unit = float(np.median([ts[-1] for ts, _ in pieces]))
    ts, zs, mask = pad([(ts / unit, (piece - mean) / spread) for ts, piece in pieces])
    windows = Windows(*map(jnp.asarray, (ts, zs, mask)))
    trained = _trained(_new(settings, len(table.observed)), windows, options)
    network = Network(trained.model, tuple(mean.tolist()), tuple(spread.tolist()), unit, errors == "multiplicative")
    with whole(options.out / "network.eqx") as unfinished, unfinished.open("wb") as file:
        eqx.tree_serialise_leaves(file, network)
    content = described(table, options, settings) | {
        "time_unit": unit,
        "training": _training(trained, windows),
        "fits": _errors(network, table),
    }
    write_json(options.out / "fit.json", content)
    print(_text(content, table))
    draw(options.out / "fit.png", table, _curves(network, table))
    return 0 if np.isfinite(content["training"]["rmse_scaled"]) else 1


def _new(settings: dict[str, Any], columns: int) -> NeuralODE:
    field = MLPField(columns, settings["width"], settings["depth"], key=jax.random.key(settings["seed"]))
    return NeuralODE(field, steps=STEPS, max_steps=256)


def _units(values: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and spread of each column."""
    together = np.concatenate(values)
    spread = np.nanstd(together, axis=0)
    return np.nanmean(together, axis=0), np.where(spread > 0, spread, 1.0)


def _pieces(table: Table, values: list[np.ndarray], length: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the windows: each begins at a complete row, and no other row has its time."""
    pieces = []
    for one, rows in zip(table.series, values, strict=True):
        same = np.flatnonzero(np.diff(one.ts) == 0)
        if same.size:
            raise CommandError(
                f"{table.path}, row {one.rows[same[0] + 1]}, column {table.time!r}: times must increase for a network, "
                f"got {one.ts[same[0]]:g} once more"
            )
        for i in range(max(1, len(rows) - length + 1)):
            piece = rows[i : i + length]
            if not np.isnan(piece[0]).any() and not np.isnan(piece[1:]).all():
                pieces.append((one.ts[i : i + length] - one.ts[i], piece))
    if not pieces:
        raise CommandError(f"{table.path} has no complete row that another one follows: there is nothing to train on")
    return pieces


def loss(model: NeuralODE, windows: Windows, key: Any) -> Any:
    """Mean squared error of the windows, each solved from its first row."""

    def solve(z0, ts):
        return model.solve(z0, t1=ts[-1], save=SaveAt(ts), throw=False)

    solution = jax.vmap(solve)(windows.values[:, 0], windows.ts)
    return squared_error(solution, windows.values, windows.mask.at[:, 0].set(False))


def _trained(ode: NeuralODE, windows: Windows, options: Namespace) -> Any:
    """Train; warnings are printed as lines."""
    path = options.out / "fit.checkpoint"
    if options.resume and not path.exists():
        print(f"Nothing to resume in {options.out}: starting from the beginning.")
    count = len(windows.ts)
    print(f"Training a network on {count:,} windows of {windows.ts.shape[1]} rows, {options.updates:,} updates ...")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        trained = fit(
            ode,
            loss,
            windows,
            optax.adam(options.learning_rate),
            updates=options.updates,
            batch_size=BATCH if count > BATCH else None,
            key=jax.random.key(options.seed + 1),
            checkpoint=path,
            every=EVERY,
            resume=options.resume,
            progress="fit" if sys.stderr.isatty() else False,
        )
    for warning in caught:
        print(f"fit: {warning.message}", file=sys.stderr)
    return trained


def _training(trained: Any, windows: Windows) -> dict[str, Any]:
    """What is to be said of the training; errors in standard deviations of the columns."""
    last, _ = eqx.filter_jit(loss)(trained.model, windows, None)
    still = jnp.where(windows.mask.at[:, 0].set(False), windows.values - windows.values[:, :1], 0.0)
    number = jnp.sum(windows.mask) - jnp.sum(windows.mask[:, 0])
    return {
        "windows": len(windows.ts),
        "updates": len(trained.losses),
        "first_loss": trained.losses[0],
        "last_loss": trained.losses[-1],
        "rmse_scaled": jnp.sqrt(last),
        "rmse_scaled_of_no_change": jnp.sqrt(jnp.sum(still**2) / number),
        "failed_solves": int(np.sum(trained.failed)),
        "skipped_updates": int(np.sum(trained.skipped)),
    }


def _errors(network: Network, table: Table) -> list[dict[str, Any]]:
    """Return the errors of whole trajectories, each followed from the first complete row of a series."""
    rows = []
    for one in table.series:
        i = _start(one.values)
        errors = np.full(len(table.observed), np.nan)
        if i is not None:
            there = ~np.isnan(one.values[i:])
            off = np.where(there, np.asarray(network.trajectory(one.values[i], one.ts[i:])) - one.values[i:], 0.0)
            errors = np.sqrt(np.sum(off**2, axis=0) / np.maximum(np.sum(there, axis=0), 1))
        rmse = dict(zip(table.observed, errors, strict=True))
        rows.append({"subject": one.subject, "start_row": one.rows[i] if i is not None else None, "rmse": rmse})
    return rows


def _start(values: np.ndarray) -> int | None:
    complete = np.flatnonzero(~np.isnan(values).any(axis=1))
    return int(complete[0]) if complete.size else None


def _curves(network: Network, table: Table) -> list[Curve]:
    curves = []
    for one in table.series:
        i = _start(one.values)
        ts = np.linspace(one.ts[i or 0], one.ts[-1], POINTS)
        mean = np.full((POINTS, len(table.observed)), np.nan) if i is None else network.trajectory(one.values[i], ts)
        curves.append(Curve(ts, np.asarray(mean)))
    return curves


def _text(content: dict[str, Any], table: Table) -> str:
    training = content["training"]
    lines = [
        f"windows: RMSE {training['rmse_scaled']:.3g} standard deviations; {training['rmse_scaled_of_no_change']:.3g} "
        "if nothing changed",
        "whole trajectories from their first complete row, RMSE in the units of the columns:",
    ]
    for row in content["fits"]:
        errors = ", ".join(f"{name} {value:.4g}" for name, value in row["rmse"].items())
        lines.append(f"  {table.subject} {row['subject']}: {errors}" if table.subject else f"  {errors}")
    return "\n".join(lines)
