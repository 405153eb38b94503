"""ONNX's layout "matmulnbits": the inputs of the operator com.microsoft.MatMulNBits.

    tensor_names, obstacle, pack, unpack   the functions of its row in `awq_ref.pack.layouts`

    B            uint8 (out_features, n_groups, group_size * bits / 8)   a bit stream along the inputs
    scales       float (out_features, n_groups)
    zero_points  uint8 (out_features, ceil(n_groups * bits / 8))         a bit stream along the groups

Without zero_points they are 2**(bits-1). In a byte the first code has the lowest bits; every output begins a new byte,
filled up with zeros.
Sources: onnxruntime, its page of contributed operators (com.microsoft.MatMulNBits).
"""

from collections.abc import Mapping

import numpy as np

from awq_ref.dtypes import U8, AnyArray
from awq_ref.pack.tensor_checks import groups_of, require_finite_scales, require_possible, require_tensor
from awq_ref.spec import QuantizedLinear, QuantSpec

LEAST_GROUP = 16
BYTE = 8


def tensor_names(spec: QuantSpec) -> tuple[str, ...]:
    """Return the names of the operator's inputs."""
    return ("B", "scales") if spec.symmetric else ("B", "scales", "zero_points")


def obstacle(out_features: int, in_features: int, spec: QuantSpec) -> str | None:
    """Return why the layout cannot hold a linear of this size, or None."""
    size = in_features if spec.group_size == -1 else spec.group_size
    if size < LEAST_GROUP or size & (size - 1):
        return f"matmulnbits has groups of a power of 2 from {LEAST_GROUP} on, not of {size}"
    return None


def _to_bytes(codes: U8, bits: int) -> U8:
    """Pack rows of codes (rows, n) into bytes (rows, ceil(n bits / 8)); bits divides 8."""
    per_byte = BYTE // bits
    n_bytes = -(-codes.shape[1] // per_byte)
    full = np.zeros((len(codes), n_bytes * per_byte), dtype=np.uint8)
    full[:, : codes.shape[1]] = codes
    shifts = np.arange(0, BYTE, bits, dtype=np.uint8)
    packed: U8 = np.bitwise_or.reduce(full.reshape(len(codes), n_bytes, per_byte) << shifts, axis=2)
    return packed


def _from_bytes(packed: U8, bits: int, n_codes: int) -> U8:
    shifts = np.arange(0, BYTE, bits, dtype=np.uint8)
    codes = packed[:, :, None] >> shifts & np.uint8(2**bits - 1)
    return codes.reshape(len(packed), -1)[:, :n_codes].copy()


def pack(linear: QuantizedLinear) -> dict[str, AnyArray]:
    """Return B, scales and, unless they are the middle, zero_points."""
    bits = linear.spec.bits
    packed = _to_bytes(linear.int_weight, bits)
    tensors: dict[str, AnyArray] = {
        "B": packed.reshape(linear.out_features, linear.n_groups, -1),
        "scales": linear.scales.copy(),
    }
    if not linear.spec.symmetric:
        tensors["zero_points"] = _to_bytes(linear.zero_point, bits)
    return tensors


def unpack(tensors: Mapping[str, AnyArray], spec: QuantSpec) -> QuantizedLinear:
    """Return the linear that the tensors hold."""
    name, packed, scales = "matmulnbits", tensors["B"], tensors["scales"]
    require_tensor(name, "B", packed, "uint8", (None, None, None))
    out_features, in_features = packed.shape[0], packed.shape[1] * packed.shape[2] * BYTE // spec.bits
    n_groups = groups_of(name, in_features, spec)
    require_possible(name, obstacle(out_features, in_features, spec), spec)
    size = in_features // n_groups
    require_tensor(name, "B", packed, "uint8", (out_features, n_groups, size * spec.bits // BYTE))
    require_tensor(name, "scales", scales, spec.scale_dtype, (out_features, n_groups))
    require_finite_scales(name, "scales", scales)
    zero_point = np.full((out_features, n_groups), spec.symmetric_zero_point, dtype=np.uint8)
    if not spec.symmetric:
        stored = tensors["zero_points"]
        require_tensor(name, "zero_points", stored, "uint8", (out_features, -(-n_groups * spec.bits // BYTE)))
        zero_point = _from_bytes(stored, spec.bits, n_groups)
    codes = _from_bytes(packed.reshape(out_features, -1), spec.bits, in_features)
    return QuantizedLinear(codes, scales.copy(), zero_point, spec)
