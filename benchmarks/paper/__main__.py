"""Experiments of the paper; what is stored is not run again.

python -m benchmarks.paper derivations|latent|matching|likelihood
"""

import argparse

from benchmarks.paper import derivation_figures, derivations, flows, latent, pages


def derive() -> None:
    """The derivations of the paper as numbers."""
    derivation_figures.draw(derivations.run())
    pages.write("derivations")


COMMANDS = {"derivations": derive, "latent": latent.run, "matching": flows.matching, "likelihood": flows.likelihood}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, function in COMMANDS.items():
        commands.add_parser(name, help=function.__doc__)
    COMMANDS[parser.parse_args().command]()
