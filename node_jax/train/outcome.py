"""What a loss returns: a scalar, counts of what it cost, and numbers to watch."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

_FORMS = "a scalar or (scalar, Counts(nfe, failed)) or (scalar, Counts(nfe, failed), dict of scalars)"


class Counts(NamedTuple):
    """What a loss may return besides its value: integer scalars, which `fit` shows and keeps.

    Attributes:
        nfe: field evaluations of all solves of the batch.
        failed: samples of the batch whose solve failed, or whose data are not valid.

    Example:
        >>> int(Counts(nfe=120).failed)
        0
    """

    nfe: Any = 0
    failed: Any = 0


def parts(out: Any) -> tuple[jax.Array, Counts, dict[str, jax.Array]]:
    """Split what a loss returned into value, counts and metrics; a wrong one is described without its values."""
    value, counts, metrics = out, Counts(), {}
    if type(out) is tuple and len(out) in (2, 3):
        value, counts, *rest = out
        metrics = rest[0] if rest else metrics
        if not isinstance(counts, Counts):
            hint = ": put Counts() before the dict" * isinstance(counts, dict)
            raise TypeError(f"loss must return {_FORMS}, got the second {described(counts)}{hint}")
        if not isinstance(metrics, dict) or not all(isinstance(name, str) for name in metrics):
            raise TypeError(f"loss must return {_FORMS}, with names as strings, got the third {described(metrics)}")
    elif type(out) is tuple:
        raise TypeError(f"loss must return {_FORMS}, got {described(out)}")
    value = scalar("loss", value)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"loss must return a real scalar, got {described(value)}: it has no gradient")
    counts = Counts(*(scalar(f"loss, in Counts.{name},", x) for name, x in counts._asdict().items()))
    return value, counts, {name: scalar(f"loss, as {name!r},", x) for name, x in metrics.items()}


def scalar(name: str, value: Any) -> jax.Array:
    """Return a real scalar as an array, or say what `name` returned instead and what to do."""
    if not eqx.is_array_like(value):
        raise TypeError(f"{name} must return a real scalar, got {described(value)}")
    if jnp.shape(value) != ():
        remedy = "reduce it, for example with jnp.mean"
        raise TypeError(f"{name} must return a real scalar, got {described(value)}: {remedy}")
    if jnp.iscomplexobj(value):
        remedy = "take its modulus or its real part"
        raise TypeError(f"{name} must return a real scalar, got {described(value)}: {remedy}")
    return jnp.asarray(value)


def apart(some: list[str], others: list[str]) -> tuple[str, str]:
    """Return the texts that each list has and the other has not, the first three of each."""
    names = ([x for x in mine if x not in theirs] for mine, theirs in ((some, others), (others, some)))
    first, second = (", ".join(x[:3]) + f" and {len(x) - 3:,} more" * (len(x) > 3) or "nothing else" for x in names)
    return first, second


def described(x: Any) -> str:
    """Describe a value by its type and shape; a traced one has no other."""
    if isinstance(x, (str, int, float, complex)) or x is None:
        return repr(x)
    if eqx.is_array_like(x):
        return f"an array of shape {jnp.shape(x)} and dtype {x.dtype if eqx.is_array(x) else jnp.result_type(x)}"
    if type(x) in (tuple, list):
        return f"a {type(x).__name__} of {len(x)}: {', '.join(described(each) for each in x)}"
    return f"a {type(x).__name__}"
