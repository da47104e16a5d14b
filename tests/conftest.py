"""What every test runs under: the CPU, 64-bit floats, strict shapes, and annotations that are checked."""

# ruff: noqa: E402  (XLA reads its flags when JAX is imported)

import gc
import os
import pathlib
import subprocess
import sys

os.environ["JAX_PLATFORMS"] = "cpu"  # subprocesses of tests inherit these
os.environ["MPLBACKEND"] = "agg"
# compilation dominates the tests: leave out what only makes the compiled code faster (half of the time)
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
# jaxlib 0.12 does not know the last of these; of its other flags none saved a tenth of the time (how code is split, no
# metadata of aliases, narrow vectors, an older instruction set, another scheduler, no analysis of copies)
LAZY = f"{QUICK} --xla_cpu_use_fusion_emitters=false"


def understood(flags):
    """Whether XLA knows these flags: it ends the process if it does not."""
    program = [sys.executable, "-c", "import jax; jax.devices()"]
    return subprocess.run(program, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True).returncode == 0


if "XLA_FLAGS" not in os.environ:  # workers inherit it
    os.environ["XLA_FLAGS"] = next(filter(understood, (LAZY, QUICK)), "")

import annotations
import jax
import pytest

# what is traced lives long: to look through it again and again takes a twentieth of the time
gc.set_threshold(200_000, 50, 1000)

collect_ignore = ["caching.py", "sharded.py", "distributed.py", "next.py"]  # programs, which tests or `make` run

jax.config.update("jax_enable_x64", True)
# what took long to compile is read from disk by the next run, in a third of the time; `make clean` removes it
jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(__file__).parent.parent / ".pytest_cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.25)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
jax.config.update("jax_numpy_rank_promotion", "raise")
annotations.check("node_jax")


MAPS = pathlib.Path("/proc/self/maps")


@pytest.fixture(autouse=True, scope="module")
def memory_maps():
    """Forget what is compiled before the maps of memory run out: Linux gives a process 65,530, and XLA needs more."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > 30_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def float32():
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", True)
