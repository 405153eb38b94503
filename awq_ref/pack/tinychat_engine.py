"""TinyChatEngine's layouts: two codes to a byte, as far from each other as a processor's registers like it.

    tensor_names, obstacle, pack, unpack   the functions of the rows qm_arm, qm_x86, qm_metal in `awq_ref.pack.layouts`
    obstacle_cuda, pack_cuda, unpack_cuda  those of the row qm_cuda

    weight_int4          uint8   (out_features, in_features / 2)   byte e of a block = q[e] + 16 q[e + distance]
    scaling_factor_int4  float32 (out_features, n_groups)          of either sign
    zero_point_int4      float32 (1,)                              8

A block is twice `distance` codes: 32, 64 and 8 for distances of 16 (ARM), 32 (x86) and 4 (Metal). On CUDA
weight_int4 are gemv's words, scaling_factor_int4 is float16 and padded as gemv's, zero_point_int4 are words of eights.
Sources: TinyChatEngine, llm/tools/quantize_methods.py (q4_4, q4_3, q4_2, q4_6).
"""

from collections.abc import Mapping

import numpy as np

from awq_ref.dtypes import U8, AnyArray
from awq_ref.errors import FormatError
from awq_ref.pack.gemv import padded_groups
from awq_ref.pack.nibbles import PER_WORD, pack_nibbles, unpack_nibbles
from awq_ref.pack.tensor_checks import (
    groups_of,
    require_finite_scales,
    require_possible,
    require_symmetric,
    require_tensor,
)
from awq_ref.spec import QuantizedLinear, QuantSpec

GROUP_SIZE, GROUP_SIZE_CUDA = 32, 128
WEIGHT, SCALES, ZEROS = "weight_int4", "scaling_factor_int4", "zero_point_int4"


def tensor_names(spec: QuantSpec) -> tuple[str, ...]:
    """Return the ends of the tensors' names: those of TinyChatEngine's files, without .bin."""
    return (WEIGHT, SCALES, ZEROS)


def obstacle(out_features: int, in_features: int, spec: QuantSpec, *, name: str, distance: int) -> str | None:
    """Return why the layout cannot hold a linear of this size, or None."""
    if spec.group_size != GROUP_SIZE:
        return f"{name} has groups of {GROUP_SIZE}, not of {spec.group_size}"
    if in_features % (2 * distance):
        return f"{name} packs {2 * distance} inputs together, which does not divide in_features={in_features}"
    return None


def pack(linear: QuantizedLinear, *, distance: int) -> dict[str, AnyArray]:
    """Return the bytes, the scales and the zero point."""
    pairs = linear.int_weight.reshape(linear.out_features, -1, 2, distance)
    packed = pairs[:, :, 0] | pairs[:, :, 1] << np.uint8(4)  # (out, blocks, distance)
    return {
        WEIGHT: packed.reshape(linear.out_features, -1),
        SCALES: linear.scales.copy(),
        ZEROS: np.full(1, linear.spec.symmetric_zero_point, dtype=np.float32),
    }


def _codes(packed: U8, distance: int) -> U8:
    halves = packed.reshape(len(packed), -1, 1, distance)
    pairs = np.concatenate([halves & np.uint8(15), halves >> np.uint8(4)], axis=2)
    return pairs.reshape(len(packed), -1)


def unpack(tensors: Mapping[str, AnyArray], spec: QuantSpec, *, name: str, distance: int) -> QuantizedLinear:
    """Return the linear that the tensors hold."""
    packed, scales, zeros = (tensors[end] for end in tensor_names(spec))
    require_tensor(name, WEIGHT, packed, "uint8", (None, None))
    out_features, in_features = packed.shape[0], packed.shape[1] * 2
    n_groups = groups_of(name, in_features, spec)
    require_possible(name, obstacle(out_features, in_features, spec, name=name, distance=distance), spec)
    require_tensor(name, SCALES, scales, spec.scale_dtype, (out_features, n_groups))
    require_tensor(name, ZEROS, zeros, "float32", (1,))
    require_finite_scales(name, SCALES, scales)
    middle = spec.symmetric_zero_point
    if zeros[0] != middle:
        raise FormatError(f"{name}: {ZEROS} must be {middle}; got {zeros[0]}. The file is of another kind.")
    zero_point = np.full((out_features, n_groups), middle, dtype=np.uint8)
    return QuantizedLinear(_codes(packed, distance), scales.copy(), zero_point, spec)


def obstacle_cuda(out_features: int, in_features: int, spec: QuantSpec) -> str | None:
    """Return why qm_cuda cannot hold a linear of this size, or None."""
    if spec.group_size != GROUP_SIZE_CUDA:
        return f"qm_cuda has groups of {GROUP_SIZE_CUDA}, not of {spec.group_size}"
    return None


def pack_cuda(linear: QuantizedLinear) -> dict[str, AnyArray]:
    """Return the words, the scales and the words of eights, which have no padding of zeros."""
    shape = (linear.out_features, padded_groups(linear.in_features, linear.spec))
    scales = np.zeros(shape, dtype=np.float16)
    scales[:, : linear.n_groups] = linear.scales
    eights = np.full(shape, linear.spec.symmetric_zero_point, dtype=np.uint8)
    return {WEIGHT: pack_nibbles(linear.int_weight), SCALES: scales, ZEROS: pack_nibbles(eights)}


def unpack_cuda(tensors: Mapping[str, AnyArray], spec: QuantSpec) -> QuantizedLinear:
    """Return the linear that the tensors hold."""
    name = "qm_cuda"
    packed, scales, zeros = (tensors[end] for end in tensor_names(spec))
    require_tensor(name, WEIGHT, packed, "int32", (None, None))
    out_features, in_features = packed.shape[0], packed.shape[1] * PER_WORD
    n_groups = groups_of(name, in_features, spec)
    require_possible(name, obstacle_cuda(out_features, in_features, spec), spec)
    padded = padded_groups(in_features, spec)
    require_tensor(name, SCALES, scales, spec.scale_dtype, (out_features, padded))
    require_tensor(name, ZEROS, zeros, "int32", (out_features, padded // PER_WORD))
    scales = scales[:, :n_groups].copy()
    require_finite_scales(name, SCALES, scales)
    zero_point = unpack_nibbles(zeros)[:, :n_groups].copy()
    require_symmetric(name, ZEROS, zero_point, spec)
    return QuantizedLinear(unpack_nibbles(packed), scales, zero_point, spec)
