"""Fits as text: a table of the estimates, and what a reader needs to judge them."""

from typing import Any

import numpy as np

BLIND = "The state is below atol at all times: the error of the solve was not controlled."
MOST = 20  # fits of a batch that are shown


def of_one(fit: Any) -> str:
    """Return the table of one concrete fit."""
    model, (low, high) = fit.model, fit.interval()
    columns = (fit.names, _flat(fit), fit.standard_errors(), low, high, model.parameters.scales)
    head = ("parameter", "estimate", "std. error", "95 % interval", "scale")
    rows = [
        (name, f"{value:.5g}", f"{error:.3g}", f"{least:.4g} to {most:.4g}", scale or "own")
        for name, value, error, least, most, scale in zip(*map(np.asarray, columns), strict=True)
    ]
    kind = "gaussian loss with sigma profiled out" if model.gaussian else f"loss {_called(model.loss)}"
    missing = model.mask.size - int(fit.count)
    text = [f"Parameter fit: {int(fit.count):,} observations{f' ({missing:,} missing)' * bool(missing)}, {kind}"]
    text += ["", *aligned([head, *rows]), ""]
    if model.gaussian:
        text.append(f"residual SD {float(fit.sigma):.4g} on {int(fit.freedom)} degrees of freedom")
    text.append(f"log-likelihood {-float(fit.loss):.5g}, AIC {float(fit.aic):.5g}")
    return "\n".join([*text, _starts(fit), *_warnings(fit)])


def of_many(fits: Any) -> str:
    """Return one line for each fit of a batch: estimates with standard errors."""
    shape, p = fits.loss.shape, len(fits.names)
    values, errors = (np.asarray(x).reshape(-1, p) for x in (_flat(fits), fits.standard_errors()))
    losses, converged = np.asarray(fits.loss).ravel(), np.asarray(fits.converged).ravel()
    head = ("fit", *(f"{name} (std. error)" for name in fits.names), "log-likelihood", "converged")
    rows = [
        (
            ", ".join(map(str, np.unravel_index(i, shape))),
            *(f"{value:.4g} ({error:.2g})" for value, error in zip(values[i], errors[i], strict=True)),
            f"{-losses[i]:.5g}",
            "yes" if converged[i] else "no",
        )
        for i in range(min(len(losses), MOST))
    ]
    more = [f"... and {len(losses) - MOST:,} more"] if len(losses) > MOST else []
    return "\n".join([f"Parameter fits: {len(losses):,}", "", *aligned([head, *rows]), *more, "", _starts(fits)])


def _flat(fit: Any) -> Any:
    return fit.model.parameters.flat(fit.x)


def _starts(fit: Any) -> str:
    starts = fit.starts
    counts = [int(np.sum(x)) for x in (starts.converged, starts.failed, starts.agree)]
    total = np.size(starts.losses)
    elsewhere = int(np.sum(fit.found.level & ~starts.agree))
    return "{:,} start{}: {:,} converged, {:,} failed, {:,} at the best optimum".format(
        total, "s" * (total > 1), *counts
    ) + f", {elsewhere:,} with its loss at other parameters" * (elsewhere > 0)


def _warnings(fit: Any) -> list[str]:
    lines = []
    if bool(np.all(fit.starts.failed)):
        return ["All starts failed: there is no estimate."]
    if not bool(fit.converged):
        lines.append("The best start has not converged: the estimates may not be those of an optimum.")
    if not np.all(np.isfinite(np.asarray(fit.correlation()))):
        lines.append("The information matrix is not positive definite: the data do not determine all parameters.")
    elif int(fit.freedom) == 0:
        lines.append("There are as many parameters as observations: no standard errors.")
    return [*lines, BLIND] if bool(fit.found.blind) else lines


def _called(loss: Any) -> str:
    return getattr(loss, "__name__", type(loss).__name__)


def aligned(rows: list[tuple]) -> list[str]:
    """Align columns: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(x.rjust(w) for x, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    ]
