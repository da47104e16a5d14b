"""Questions about a jaxpr: which operations it contains, and whether it multiplies large matrices."""

import math
from typing import Any

import jax

from node_jax.compat import ClosedJaxpr, jaxpr_as_fun, pe

PRODUCT = 8  # with fewer rows, columns and terms than this, no library is called for a product of matrices


def opened(jaxpr: Any) -> Any:
    """Return a jaxpr that takes its constants as its first arguments."""
    return jaxpr.replace(constvars=[], invars=[*jaxpr.constvars, *jaxpr.invars])


def evaluated(jaxpr: Any, *args: Any) -> list:
    """Evaluate a jaxpr that holds no constants."""
    return jaxpr_as_fun(ClosedJaxpr(jaxpr, ()))(*args)


def low(jaxpr: Any) -> Any:
    """Return a jaxpr whose high-level operations, which the newest JAX keeps, such as a table search, are expanded."""
    return pe.lower_jaxpr2(jaxpr) if getattr(jaxpr, "is_high", False) else jaxpr  # pyright: ignore[reportAttributeAccessIssue]


def equations(jaxpr: Any) -> list:
    """Return all equations, those of nested jaxprs too; of a choice by platform only the branch for the CPU."""
    found, chosen_by_platform = [], set()
    for eqn in low(jaxpr).eqns:
        found.append(eqn)
        params = dict(eqn.params)
        if eqn.primitive.name == "platform_index":
            chosen_by_platform.add(eqn.outvars[0])
        elif eqn.primitive.name == "cond" and eqn.invars[0] in chosen_by_platform:
            params = {"cpu": _of_cpu(params)}
        for part in jax.tree.leaves(list(params.values())):
            inner = getattr(part, "jaxpr", part)
            if hasattr(inner, "eqns"):
                found += equations(inner)
    return found


def _of_cpu(params: dict) -> Any:
    """Return the branch for the CPU of a `platform_dependent`; a branch without platforms is the default."""
    branches = list(zip(params["branches_platforms"], params["branches"], strict=True))
    named = [branch for platforms, branch in branches if platforms is not None and "cpu" in platforms]
    return named[0] if named else next((branch for platforms, branch in branches if platforms is None), ())


def multiplies(jaxpr: Any) -> bool:
    """Whether a jaxpr multiplies large matrices or convolves."""
    return any(is_product(eqn) or eqn.primitive.name == "conv_general_dilated" for eqn in equations(jaxpr))


def is_product(eqn: Any) -> bool:
    """Whether an equation is a matrix product that a library computes."""
    sizes = [x.aval.size for x in eqn.invars]
    return eqn.primitive.name == "dot_general" and all(sizes) and max(_matrices(eqn)) >= PRODUCT


def _matrices(eqn: Any) -> tuple[int, int, int]:
    """Return rows, terms and columns of a product, as a library sees it: axes with the same role count as one."""
    (contracted, _), (batch, _) = eqn.params["dimension_numbers"]
    left, right = (x.aval for x in eqn.invars)
    terms, lanes = (math.prod(left.shape[i] for i in axes) for axes in (contracted, batch))
    return left.size // (terms * lanes), terms, right.size // (terms * lanes)
