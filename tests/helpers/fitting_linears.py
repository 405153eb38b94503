"""A linear that each layout can hold.

FITTING     layout -> a spec that it holds, and in_features
linear_of   spec and sizes -> a linear of random integers
fitting     layout -> a linear that it holds
"""

from dataclasses import replace

import numpy as np

from awq_ref.spec import QuantizedLinear, QuantSpec

OUT, IN = 16, 12
SPEC = QuantSpec(bits=4, group_size=4)
THREE = QuantSpec(bits=3, group_size=4)
SYMMETRIC = QuantSpec(bits=4, group_size=4, symmetric=True)
KERNEL = QuantSpec(bits=4, group_size=64)
MARLIN = QuantSpec(bits=4, group_size=128, symmetric=True)
ENGINE = QuantSpec(bits=4, group_size=32, symmetric=True, scale_dtype="float32")
BLOCKS = QuantSpec(bits=4, group_size=64, symmetric=True)
BYTES = QuantSpec(bits=8, group_size=64, symmetric=True)
# layout: a spec that it holds, and in_features; gptq fills words of 32 bits with outputs too
FITTING = {
    "gemm": (SPEC, 12), "gemv": (KERNEL, 128), "gemv_fast": (KERNEL, 128), "llm-awq": (KERNEL, 128),
    "gptq": (SPEC, 16), "gptq_v2": (SPEC, 16), "pack-quantized": (SPEC, 12), "mlx": (KERNEL, 128),
    "llm-awq-v1": (KERNEL, 128), "marlin": (MARLIN, 256), "qm_cuda": (MARLIN, 256), "matmulnbits": (KERNEL, 128),
    "qm_arm": (ENGINE, 96), "qm_x86": (ENGINE, 128), "qm_metal": (ENGINE, 96),
    "q4_0": (BLOCKS, 128), "q4_1": (KERNEL, 128), "q8_0": (BYTES, 128),
}  # fmt: skip


def linear_of(spec: QuantSpec, out_features: int = OUT, in_features: int = IN) -> QuantizedLinear:
    rng = np.random.default_rng(7)
    codes = rng.integers(0, spec.qmax + 1, (out_features, in_features), dtype=np.uint8)
    shape = (out_features, in_features // spec.group_size)
    zeros = rng.integers(0, spec.qmax + 1, shape, dtype=np.uint8)
    if spec.symmetric:
        zeros[:] = spec.symmetric_zero_point
    scales = rng.uniform(0.5, 2, zeros.shape).astype(spec.scale_dtype)
    return QuantizedLinear(codes, scales, zeros, spec, np.ones(out_features, dtype=np.float32))


def fitting(layout: str, **changes) -> QuantizedLinear:
    """A linear that a layout holds."""
    spec, in_features = FITTING[layout]
    out_features = 64 if layout == "marlin" else OUT
    return linear_of(replace(spec, **changes), out_features, in_features)
