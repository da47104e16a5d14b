"""The command line: `node-jax`, or `python -m node_jax`."""

import argparse
import os
import shlex
import sys

from node_jax import __version__
from node_jax.commands import bench, demo, fit, info
from node_jax.commands.options import CommandError
from node_jax.train.checkpoint import CheckpointError


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        arguments: words of the command line; default: those of the process.

    Returns:
        0 if all went well, 1 if the result is not what it should be (a fit that has not converged), 2 for wrong
        arguments or files, 130 if interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    try:
        code = options.run(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of the output has gone, as `head` does; what is left of it goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, CheckpointError, CommandError) as error:
        print(f"{options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        again = [word for word in arguments if word != "--resume"]
        more = f" Go on with: node-jax {shlex.join(again)} --resume" if hasattr(options, "resume") else ""
        print(f"\nInterrupted.{more}", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="node-jax", description="Neural ODEs in JAX.")
    parser.add_argument("--version", action="version", version=f"node_jax {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    for command in (demo, fit, bench, info):
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
