"""Experiments of the paper, each with one command; what is stored is not run again.

python -m benchmarks.paper derivations|latent|flows [--help]
"""

import argparse

from benchmarks.paper import derivation_figures, derivations, pages


def derive(options) -> None:
    """Run the derivations and draw them."""
    derivation_figures.draw(derivations.run())
    pages.write("derivations")


COMMANDS = {"derivations": derive}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, function in COMMANDS.items():
        commands.add_parser(name, help=function.__doc__)
    chosen = parser.parse_args()
    COMMANDS[chosen.command](chosen)
