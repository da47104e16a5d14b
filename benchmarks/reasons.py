"""Why a peer is ahead where it is: words that a row contains, the peer, and the reason."""

REASONS: dict[tuple[str, str], str] = {}
UNKNOWN = "not yet understood"


def reason(row: str, dtype: str, peer: str) -> str:
    """Return the reason of the first entry whose words the row or dtype contains."""
    found = (why for (words, name), why in REASONS.items() if name == peer and words in f"{row}, {dtype}")
    return next(found, UNKNOWN)
