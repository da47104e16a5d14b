"""Versions and devices, for a bug report or a benchmark."""

import importlib.metadata
import platform
from typing import NamedTuple

import jax

from node_jax.backends import cpu

PACKAGES = ("node-jax", "jax", "jaxlib", "equinox", "optax")


class Info(NamedTuple):
    """Versions and devices, and which fast paths of node_jax are on; `print` shows it line by line.

    Attributes:
        versions: version of each package that matters here, by name.
        python: version of Python.
        platform: operating system and machine.
        devices: those that JAX sees.
        x64: whether JAX computes in 64 bits by default.
        compiled_loops: "on" if small solves run as one compiled function, or why they run kernel by kernel.

    Example:
        >>> import node_jax as nj
        >>> "jax" in nj.info().versions
        True
    """

    versions: dict[str, str]
    python: str
    platform: str
    devices: list[str]
    x64: bool
    compiled_loops: str  # "on", or the reason why small loops are not compiled as one function

    def __str__(self) -> str:
        """Return a line for each entry."""
        entries = {
            **self.versions,
            "python": f"{self.python} on {self.platform}",
            "devices": ", ".join(self.devices),
            "64-bit floats": "on" if self.x64 else "off: jax.config.update('jax_enable_x64', True)",
            "compiled loops": self.compiled_loops,
        }
        return "\n".join(f"{name:15} {value}" for name, value in entries.items())


def info() -> Info:
    """Return versions, devices, and whether small loops are compiled as one function.

    On a CPU this makes small solves several times faster. It is on with the versions of jaxlib that it was tested with;
    `NODE_JAX_FUSED=0` in the environment switches it off.

    Returns:
        `Info`, whose text is a line for each entry; also `python -m node_jax info`.

    Example:
        >>> import node_jax as nj
        >>> nj.info().versions["node-jax"] == nj.__version__
        True
    """
    on_cpu = jax.default_backend() == "cpu"
    off = cpu.why_not() if on_cpu else f"for CPUs only, the default backend is {jax.default_backend()}"
    return Info(
        {name: _version(name) for name in PACKAGES},
        platform.python_version(),
        platform.platform(),
        [f"{device.platform} {device.id} ({device.device_kind})" for device in jax.devices()],
        bool(jax.config.jax_enable_x64),  # pyright: ignore[reportAttributeAccessIssue]
        f"off: {off}" if off else "on",
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # node_jax run from a source tree
        return "not installed"
