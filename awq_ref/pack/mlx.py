"""MLX's affine layout: words along the inputs, a scale and a bias for every group.

    tensor_names, obstacle, pack, unpack   the functions of its row in `awq_ref.pack.layouts`

    weight  uint32 (out_features, in_features * bits / 32)   row o a dense bit stream of q[o, 0], q[o, 1], ...
    scales  float  (out_features, n_groups)                  of either sign
    biases  float  (out_features, n_groups)                  w = scales * q + biases: the offset

Sources: MLX, mlx/ops.cpp and backend/cpu/quantized.cpp (mode "affine").
"""

from collections.abc import Mapping

import numpy as np

from awq_ref.dtypes import AnyArray
from awq_ref.errors import FormatError
from awq_ref.pack.bitstream import WORD_BITS, pack_bitstream, unpack_bitstream
from awq_ref.pack.offsets import offset_of
from awq_ref.pack.tensor_checks import groups_of, require_finite_scales, require_tensor
from awq_ref.spec import QuantizedLinear, QuantSpec

GROUP_SIZES = (32, 64, 128)


def tensor_names(spec: QuantSpec) -> tuple[str, ...]:
    """Return the ends of the tensors' names."""
    return ("weight", "scales", "biases")


def obstacle(out_features: int, in_features: int, spec: QuantSpec) -> str | None:
    """Return why the layout cannot hold a linear of this size, or None."""
    if spec.group_size not in GROUP_SIZES:
        return f"mlx has groups of {', '.join(map(str, GROUP_SIZES))}, not of {spec.group_size}"
    return None


def pack(linear: QuantizedLinear) -> dict[str, AnyArray]:
    """Return weight, scales and biases."""
    return {
        "weight": pack_bitstream(linear.int_weight, bits=linear.spec.bits).view(np.uint32),
        "scales": linear.scales.copy(),
        "biases": offset_of(linear).copy(),
    }


def unpack(tensors: Mapping[str, AnyArray], spec: QuantSpec) -> QuantizedLinear:
    """Return the linear that the tensors hold, with the biases as its offset."""
    weight, scales, biases = tensors["weight"], tensors["scales"], tensors["biases"]
    require_tensor("mlx", "weight", weight, "uint32", (None, None))
    out_features, words = weight.shape
    if words * WORD_BITS % spec.bits:
        raise FormatError(
            f"mlx: weight must hold whole {spec.bits}-bit codes; got {weight.shape}. Check the bits in config.json."
        )
    in_features = words * WORD_BITS // spec.bits
    n_groups = groups_of("mlx", in_features, spec)
    for name, array in (("scales", scales), ("biases", biases)):
        require_tensor("mlx", name, array, spec.scale_dtype, (out_features, n_groups))
        require_finite_scales("mlx", name, array)
    codes = unpack_bitstream(weight.view(np.int32), bits=spec.bits, n_codes=in_features)
    zero_point = np.zeros((out_features, n_groups), dtype=np.uint8)
    return QuantizedLinear(codes, scales.copy(), zero_point, spec, offset=biases.copy())
