"""Why a peer is ahead where it is: how a row and its dtype begin, the peer, and the reason."""

MORE = "both loops are one function; ours has compensated times, counts and the test for stability in it"
SUMS = "sums of large states go to a library, one operation after the other; ours has two more, for stability"
SHARED = "threads share the kernel of the field, which is then not vectorised"
PROGRAM = "a smaller program: no status, no counts"
QUEUE = "a queue, whose loop takes single lanes out and in; theirs steps all lanes together"
TIMES = "a step is a few operations, and ours keeps the time in two numbers"
CONTINUOUS = "the continuous adjoints are compared; the default gradient takes less time than both"
CONVOLUTIONS = "convolutions of PyTorch, which are faster on a CPU than any that XLA makes"
REASONS = {
    ("gradient, ODE-Net block", "torchdiffeq"): CONVOLUTIONS,
    ("gradient, flow of concat-squash", "jax odeint"): CONTINUOUS,
    ("compile", "tinydiffeq forward"): PROGRAM,
    ("compile", "jax odeint"): PROGRAM,
    ("compile 256 Lotka-Volterra lanes", "diffrax"): QUEUE,
    ("Lotka-Volterra batch, 1 lanes", "tinydiffeq forward"): MORE,
    ("single", "tinydiffeq forward"): MORE,
    ("single", "tinydiffeq"): MORE,
    ("Lotka-Volterra, tsit5", "tinydiffeq forward"): MORE,
    ("Lorenz, tsit5", "tinydiffeq forward"): MORE,
    ("two bodies, eccentricity 0.5, tsit5", "tinydiffeq forward"): MORE,
    ("Lotka-Volterra, heun", "diffrax"): MORE,
    ("Lorenz, heun", "diffrax"): MORE,
    ("two bodies, eccentricity 0.5, heun", "diffrax"): MORE,
    ("Arenstorf orbit, heun", "diffrax"): MORE,
    ("ring, 2 components", "tinydiffeq forward"): MORE,
    ("ring, 2 components", "diffrax"): MORE,
    ("ring, 100 components", "tinydiffeq forward"): MORE,
    ("ring, 100 components", "diffrax"): MORE,
    ("Fixed(1000) rk4", "tinydiffeq"): TIMES,
    ("ring, 10,000 components", "diffrax"): SUMS,
    ("ring, 10,000 components", "jax odeint"): SUMS,
    ("ring, 100,000 components, float64", "diffrax"): SUMS,
    ("ring, 100,000 components, float64", "jax odeint"): SUMS,
    ("ring, 100,000 components, float64", "scipy"): SUMS,
    ("ring, 100,000 components, float32", "jax odeint"): SHARED,
}
UNKNOWN = "not yet understood"


def reason(row: str, dtype: str, peer: str) -> str:
    """Return the reason of the first entry with whose words the row, with its dtype, begins."""
    found = (why for (words, name), why in REASONS.items() if name == peer and f"{row}, {dtype}".startswith(words))
    return next(found, UNKNOWN)
