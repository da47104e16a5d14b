"""The command line: `python -m node_jax demo`, `python -m node_jax info`."""

import argparse
import importlib
import sys
from pathlib import Path

import jax

from node_jax import __version__, info
from node_jax.train.checkpoint import CheckpointError

FULL = 1500  # updates of the demo
LEAST = 600  # with fewer, nothing is required of the result


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        arguments: words of the command line; default: those of the process.

    Returns:
        0 if all went well, 1 if the network did not fit better than Lotka-Volterra, 2 for wrong arguments.
    """
    options = _parser().parse_args(arguments)
    if options.command == "info":
        print(info())
        return 0
    jax.config.update("jax_enable_x64", True)
    try:
        demo = importlib.import_module(
            "node_jax.studies.hare_lynx.demo"
        )  # only here: matplotlib is an optional dependency
    except ModuleNotFoundError as error:
        print(f'The demo needs {error.name}: pip install "node-jax[demo]"', file=sys.stderr)
        return 2
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        return demo.run(options.out, options.seed, options.updates, options.resume, options.updates >= LEAST)
    except (OSError, CheckpointError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted. Go on with: the same command and --resume", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m node_jax", description="Neural ODEs in JAX.")
    parser.add_argument("--version", action="version", version=f"node_jax {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    commands.add_parser("info", help="show versions, devices, and which fast paths are on and why not")
    about = "learn the dynamics of hare and lynx from a real record, and draw what was learned"
    demo = commands.add_parser(
        "demo",
        help=about,
        description=f"{about[0].upper()}{about[1:]}. Takes about a minute; writes demo.png and demo.json.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument("--out", type=Path, default=Path("demo-results"), metavar="DIR", help="folder to write to")
    demo.add_argument("--seed", type=_at_least(0), default=0, metavar="N", help="seed of all random numbers")
    demo.add_argument("--updates", type=_at_least(1), default=FULL, metavar="N", help="updates of each fit")
    demo.add_argument("--resume", action="store_true", help="go on from the checkpoints in DIR")
    return parser


def _at_least(least: int):
    def whole(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value < 2**31:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got {text!r}")
        return value

    return whole


if __name__ == "__main__":
    sys.exit(main())
