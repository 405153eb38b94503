"""The layout "pack-quantized" of compressed-tensors: any bit width, any shape.

    tensor_names, obstacle, pack, unpack   the functions of its row in `awq_ref.pack.layouts`

    weight_packed      int32 (out_features, ceil(in_features * bits / 32))   each row a dense bit stream
    weight_scale       float (out_features, n_groups)
    weight_zero_point  int32 (ceil(out_features * bits / 32), n_groups)      each column a dense bit stream
    weight_shape       int64 (2,) = out_features, in_features
    weight_g_idx       int32 (in_features,)                                  the group of each input, if not neighbours

The format thinks in signed codes, -2**(bits-1) to 2**(bits-1) - 1, and stores code + 2**(bits-1): exactly our
unsigned codes and zero points. A symmetric linear has the signed zero point 0 and no weight_zero_point.
Sources: compressed-tensors, compressors/pack_quantized.
"""

from collections.abc import Mapping

import numpy as np

from awq_ref.dtypes import I32, U8, AnyArray
from awq_ref.errors import FormatError
from awq_ref.pack.bitstream import pack_bitstream, unpack_bitstream, words_for
from awq_ref.pack.group_index import index_of, regroup
from awq_ref.pack.tensor_checks import groups_of, require_finite_scales, require_tensor
from awq_ref.spec import QuantizedLinear, QuantSpec

NAME = "pack-quantized"


def tensor_names(spec: QuantSpec) -> tuple[str, ...]:
    """Return the ends of the tensors' names; a symmetric linear stores no zero points."""
    zeros = () if spec.symmetric else ("weight_zero_point",)
    return ("weight_packed", "weight_scale", *zeros, "weight_shape")


def obstacle(out_features: int, in_features: int, spec: QuantSpec) -> str | None:
    """Return None: the layout holds every linear that the groups divide."""
    return None


def _pack_columns(codes: U8, bits: int) -> I32:
    words = pack_bitstream(np.ascontiguousarray(codes.T), bits=bits)  # (n_groups, words)
    return np.ascontiguousarray(words.T)  # (words, n_groups)


def _unpack_columns(words: I32, bits: int, n_codes: int) -> U8:
    codes = unpack_bitstream(np.ascontiguousarray(words.T), bits=bits, n_codes=n_codes)  # (n_groups, out)
    return np.ascontiguousarray(codes.T)  # (out, n_groups)


def pack(linear: QuantizedLinear) -> dict[str, AnyArray]:
    """Return weight_packed, weight_scale, weight_shape; weight_zero_point unless symmetric, weight_g_idx if ordered."""
    bits, codes = linear.spec.bits, linear.int_weight
    if linear.input_order is not None:
        codes = np.empty_like(codes)
        codes[:, linear.input_order] = linear.int_weight
    tensors: dict[str, AnyArray] = {
        "weight_packed": pack_bitstream(codes, bits=bits),
        "weight_scale": linear.scales.copy(),
    }
    if not linear.spec.symmetric:
        tensors["weight_zero_point"] = _pack_columns(linear.zero_point, bits)
    tensors["weight_shape"] = np.array([linear.out_features, linear.in_features], dtype=np.int64)
    if linear.input_order is not None:
        tensors["weight_g_idx"] = index_of(linear)
    return tensors


def _read_shape(tensors: Mapping[str, AnyArray]) -> tuple[int, int]:
    shape = tensors["weight_shape"]
    require_tensor(NAME, "weight_shape", shape, "int64", (2,))
    out_features, in_features = int(shape[0]), int(shape[1])
    if out_features < 1 or in_features < 1:
        raise FormatError(f"{NAME}: weight_shape must be positive; got {out_features}, {in_features}.")
    return out_features, in_features


def unpack(tensors: Mapping[str, AnyArray], spec: QuantSpec) -> QuantizedLinear:
    """Return the linear that the tensors hold."""
    out_features, in_features = _read_shape(tensors)
    n_groups = groups_of(NAME, in_features, spec)
    packed, scales = tensors["weight_packed"], tensors["weight_scale"]
    require_tensor(NAME, "weight_packed", packed, "int32", (out_features, words_for(in_features, spec.bits)))
    require_tensor(NAME, "weight_scale", scales, spec.scale_dtype, (out_features, n_groups))
    require_finite_scales(NAME, "weight_scale", scales)
    if spec.symmetric:
        zero_point = np.full((out_features, n_groups), spec.symmetric_zero_point, dtype=np.uint8)
    else:
        words = tensors["weight_zero_point"]
        require_tensor(
            NAME, "weight_zero_point", words, "int32", (words_for(out_features, spec.bits), n_groups)
        )
        zero_point = _unpack_columns(words, spec.bits, out_features)
    int_weight = unpack_bitstream(packed, bits=spec.bits, n_codes=in_features)
    index = tensors.get("weight_g_idx")
    return regroup(int_weight, scales.copy(), zero_point, spec, index=index, layout=NAME, name="weight_g_idx")
