"""`node-jax demo`: the study of hare and lynx."""

import argparse
import importlib
from pathlib import Path
from typing import Any

import jax

from node_jax.commands.options import CommandError, whole_number

FULL = 1500  # updates
LEAST = 600  # with fewer, nothing is required of the result
ABOUT = "learn the dynamics of hare and lynx from a real record, and draw what was learned"


def add(commands: Any) -> None:
    """Describe the command to argparse."""
    demo = commands.add_parser(
        "demo",
        help=ABOUT,
        description=f"{ABOUT[0].upper()}{ABOUT[1:]}. Takes about a minute; writes demo.png and demo.json.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument("--out", type=Path, default=Path("demo-results"), metavar="DIR", help="folder to write to")
    demo.add_argument("--seed", type=whole_number(0), default=0, metavar="N", help="seed of all random numbers")
    demo.add_argument("--updates", type=whole_number(1), default=FULL, metavar="N", help="updates of each fit")
    demo.add_argument("--resume", action="store_true", help="go on from the checkpoints in DIR")
    demo.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the study; return 1 if its network did not fit better than Lotka-Volterra."""
    jax.config.update("jax_enable_x64", True)
    try:
        study = importlib.import_module(
            "node_jax.studies.hare_lynx.demo"
        )  # only here: matplotlib is an optional dependency
    except ModuleNotFoundError as error:
        raise CommandError(f'the demo needs {error.name}: pip install "node-jax[demo]"') from error
    options.out.mkdir(parents=True, exist_ok=True)
    return study.run(options.out, options.seed, options.updates, options.resume, options.updates >= LEAST)
