"""`node-jax info`: versions, devices and fast paths."""

import argparse
from typing import Any

from node_jax.info import info


def add(commands: Any) -> None:
    """Describe the command to argparse."""
    commands.add_parser("info", help="show versions, devices, and which fast paths are on and why not").set_defaults(
        run=run
    )


def run(options: argparse.Namespace) -> int:
    """Print them."""
    print(info())
    return 0
