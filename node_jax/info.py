"""What a report of a problem or of a time should say of the machine."""

import importlib.metadata
import platform
from typing import NamedTuple

import jax

from node_jax.backends import cpu

PACKAGES = ("node-jax", "jax", "jaxlib", "equinox", "optax")


class Info(NamedTuple):
    """Versions and devices, and which fast paths of node_jax are on; `print` shows it line by line."""

    versions: dict[str, str]
    python: str
    platform: str
    devices: list[str]
    x64: bool
    compiled_loops: str  # "on", or why small loops run kernel by kernel

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
    """Return versions, devices, and which fast paths are on, and why not.

    On a CPU small solves run as one compiled function, several times faster than kernel by kernel, with versions of
    jaxlib that this was tried with; `NODE_JAX_FUSED=0` in the environment switches that off.

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
