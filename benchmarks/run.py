"""Run the benchmark with every peer: `make bench`, or `make bench ROW=word` for some rows.

python -m benchmarks.run [--row WORD] [--group NAME] [--dtype float32|float64] [--rounds N] [--out FOLDER]
"""

from benchmarks import counted, host_peers, peers, stored, suite
from benchmarks.rows import Packages

EVERY = Packages(
    peers.FORWARD | host_peers.FORWARD,
    peers.GRADIENT | host_peers.GRADIENT,
    {method: makers | host_peers.COUNTED[method] for method, makers in counted.COUNTED.items()},
)

if __name__ == "__main__":
    suite.run(suite.options_of(__doc__).parse_args(), EVERY, stored.here())
