"""Why a peer is ahead where it is: how a row and its dtype begin, the peer, and the reason."""

MORE = "both loops are one function; ours has compensated times, counts and the test for stability in it"
REASONS = {
    ("single", "tinydiffeq forward"): MORE,
}
UNKNOWN = "not yet understood"


def reason(row: str, dtype: str, peer: str) -> str:
    """Return the reason of the first entry with whose words the row, with its dtype, begins."""
    found = (why for (words, name), why in REASONS.items() if name == peer and f"{row}, {dtype}".startswith(words))
    return next(found, UNKNOWN)
