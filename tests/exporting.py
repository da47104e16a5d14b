"""Lowering for backends that are not here."""

import re

import jax
from jax import export


def check_export(fn, *args):
    """Lower for every platform in float32, see that the program needs nothing that a device has not; return it."""
    lowered = export.export(jax.jit(fn), platforms=("cpu", "cuda", "tpu"))(*args)
    text = lowered.mlir_module()
    assert set(lowered.platforms) == {"cpu", "cuda", "tpu"}
    assert "f32" in text
    assert not re.findall(r"\bf64\b|xf64\b|complex<f64>", text)
    assert not re.findall(r"custom_call @?(?!shape_assertion)\w+|stablehlo\.(?:infeed|outfeed|send|recv)\b", text)
    return lowered
