"""What it takes to trace and compile the judged solves and gradients."""

from benchmarks.measure import Row
from benchmarks.rows import Packages, lanes, networks, singles

JUDGED = (
    "single Lotka-Volterra, 800 steps",
    "256 Lotka-Volterra lanes, own rates",
    "256 network lanes, shared weights",
)
ONLY = ("node_jax", "diffrax", "tinydiffeq forward", "jax odeint")


def rows(dtype, packages: Packages):
    """Yield the judged rows, with the packages that compile."""
    forward, gradient = (
        {name: of[name] for name in ONLY if name in of} for of in (packages.forward, packages.gradient)
    )
    few = packages._replace(forward=forward, gradient=gradient)
    for group in (singles, lanes, networks):
        for row in group.rows(dtype, few):
            if row.name.removeprefix("gradient, ") in JUDGED:
                yield Row(f"compile {row.name}", row.runs, row.args, {"diffrax": 0.5})
