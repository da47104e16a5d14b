"""What a fit says: the content of `fit.json`, and tables to print."""

from argparse import Namespace
from typing import Any

import jax
import numpy as np

from node_jax.commands.table import Table
from node_jax.estimate import ParameterFit
from node_jax.estimate.table import aligned
from node_jax.info import info

LEVEL = 0.95  # of intervals


def described(table: Table, options: Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what data, model, settings and machine a result belongs to."""
    data = {"file": str(table.path), "time": table.time, "observed": table.observed, "subject": table.subject}
    return {"model": options.model, "data": data, "settings": settings, "environment": info()._asdict()}


def fits_of(fits: ParameterFit, table: Table) -> list[dict[str, Any]]:
    """Return the numbers of each fit of a batch; matrices are in the order of the parameters."""
    low, high = fits.interval(LEVEL)
    of_parameter = {"estimate": _flat(fits), "standard_error": fits.standard_errors(), "low": low, "high": high}
    of_fit = {
        "correlation": fits.correlation(),
        "residual_sd": fits.sigma,
        "freedom": fits.freedom,
        "log_likelihood": -fits.loss,
        "aic": fits.aic,
        "converged": fits.converged,
        "values": fits.count,
    }
    of_parameter, of_fit = jax.device_get((of_parameter, of_fit))
    starts = {
        name: np.sum(np.asarray(getattr(fits.starts, name)), axis=-1) for name in ("converged", "failed", "agree")
    }
    scales = [scale or "none" for scale in fits.model.parameters.scales]
    rows = []
    for i, one in enumerate(table.series):
        parameters = {
            name: {what: x[i, j] for what, x in of_parameter.items()} | {"scale": scales[j]}
            for j, name in enumerate(fits.names)
        }
        rows.append(
            {
                "subject": one.subject,
                "parameters": parameters,
                **{name: x[i] for name, x in of_fit.items()},
                "missing": one.values.size - of_fit["values"][i],
                "starts": {name: x[i] for name, x in starts.items()},
            }
        )
    return rows


def text_of(fits: ParameterFit, table: Table) -> str:
    """Return the table of one fit, or a line for each subject."""
    if len(table.series) == 1:
        return str(jax.tree.map(lambda x: x[0], fits))
    values, errors, sigma = (np.asarray(x) for x in (_flat(fits), fits.standard_errors(), fits.sigma))
    head = (table.subject, *(f"{name} (std. error)" for name in fits.names), "residual SD", "converged")
    rows = [
        (
            str(one.subject),
            *(f"{value:.4g} ({error:.2g})" for value, error in zip(values[i], errors[i], strict=True)),
            f"{sigma[i]:.3g}",
            "yes" if bool(fits.converged[i]) else "no",
        )
        for i, one in enumerate(table.series)
    ]
    return "\n".join(aligned([head, *rows]))


def _flat(fits: ParameterFit) -> jax.Array:
    return fits.model.parameters.flat(fits.x)
