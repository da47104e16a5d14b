"""Experiments of the paper; what is stored is not run again.

python -m benchmarks.paper derivations|latent|matching|likelihood
"""

import argparse

from benchmarks.paper import derivation_figures, derivations, flows, latent, latent_figures, pages


def derive() -> None:
    """The derivations of the paper as numbers."""
    derivation_figures.draw(derivations.run())
    pages.write("derivations")


def series() -> None:
    """Latent ODEs and recurrent networks on spirals at irregular times."""
    latent.run()
    latent_figures.draw()
    pages.write("latent")


COMMANDS = {"derivations": derive, "latent": series, "matching": flows.matching, "likelihood": flows.likelihood}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, function in COMMANDS.items():
        commands.add_parser(name, help=function.__doc__)
    COMMANDS[parser.parse_args().command]()
