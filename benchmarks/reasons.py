"""Why a peer is ahead where it is: how a row and its dtype begin, the peer, and the reason."""

FUNCTION = (
    "XLA makes one function of a loop that touches less than 1,024 bytes a turn; theirs is below that, ours, with"
    " compensated times, counts and the test for the limit of stability, is above (docs/performance.md)"
)
MORE = "both loops are one function of XLA; ours has compensated times, counts and the test for stability in it"
REASONS = {
    ("100 output times", "jax odeint"): (
        "one solve of two components: theirs is a loop over output times around one over steps, ours asks after every"
        " step which times it passed, at 2 us for each time; with 256 lanes it is ours that is ahead"
    ),
    ("single Lorenz", "tinydiffeq forward"): FUNCTION,
    ("single", "tinydiffeq forward"): MORE,
    ("gradient, Fixed(1000) rk4, float32", "scan"): FUNCTION,
}
UNKNOWN = "not yet understood"


def reason(row: str, dtype: str, peer: str) -> str:
    """Return the reason of the first entry with whose words the row, with its dtype, begins."""
    found = (why for (words, name), why in REASONS.items() if name == peer and f"{row}, {dtype}".startswith(words))
    return next(found, UNKNOWN)
