"""Run the same rows on the accelerator that JAX finds, with the JAX packages; results go to a folder of its name.

python -m benchmarks.gpu [--row WORD] [--group NAME] [--dtype float32|float64] [--rounds N] [--out FOLDER]
"""

import jax

from benchmarks import counted, peers, suite
from benchmarks.rows import Packages

JAX_ONLY = Packages(peers.FORWARD, peers.GRADIENT, counted.COUNTED)

if __name__ == "__main__":
    options = suite.options_of(__doc__).parse_args()
    platform = jax.default_backend()
    if platform == "cpu":
        raise SystemExit("JAX finds no accelerator: install jax[cuda] or jax[tpu], or run benchmarks.run on the CPU.")
    suite.run(options, JAX_ONLY, suite.RESULTS / platform)
