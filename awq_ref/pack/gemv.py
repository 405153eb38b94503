"""AutoAWQ's layout "gemv", llm-awq's first ("v1"): words along the inputs, the rest padded to what kernels read.

    tensor_names, obstacle, pack, unpack   the functions of its two rows in `awq_ref.pack.layouts`
    padded_groups, kernel_obstacle         what gemv_fast shares

    qweight  int32   (out_features, in_features / 8)    nibble j of word (o, c) = q[o, 8 c + j]
    qzeros   int32   (out_features, padded / 8)         nibble j of word (o, c) = z[o, 8 c + j]
    scales   float16 (out_features, padded)

padded is the number of groups, rounded up to a multiple of 8 (of 16 for groups of 64, of 32 for groups of 32); what
lies behind the groups is 0. The kernels have groups of 32, of 64, and of 128 or more.
Sources: AutoAWQ, awq/modules/linear/gemv.py; llm-awq, awq/quantize/qmodule.py before "v2".
"""

from collections.abc import Mapping

import numpy as np

from awq_ref.dtypes import AnyArray
from awq_ref.pack.nibbles import PER_WORD, pack_nibbles, unpack_nibbles
from awq_ref.pack.tensor_checks import (
    groups_of,
    require_finite_scales,
    require_possible,
    require_symmetric,
    require_tensor,
)
from awq_ref.spec import QuantizedLinear, QuantSpec


def padded_groups(in_features: int, spec: QuantSpec) -> int:
    """Return how many columns of scales a file has: the groups, rounded up to what the kernel reads at once."""
    group_size = in_features if spec.group_size == -1 else spec.group_size
    multiple = PER_WORD * {64: 2, 32: 4}.get(group_size, 1)
    return -(-(in_features // group_size) // multiple) * multiple


def kernel_obstacle(name: str, out_features: int, in_features: int, spec: QuantSpec) -> str | None:
    """Return why AutoAWQ's matrix-vector kernels cannot take a linear of this size, or None."""
    group_size = in_features if spec.group_size == -1 else spec.group_size
    if group_size not in (32, 64) and group_size < 128:
        return f"{name} has groups of 32, 64, and 128 or more, not of {group_size}"
    if out_features % PER_WORD or in_features % PER_WORD:
        return f"{name} needs multiples of {PER_WORD}, not out_features={out_features}, in_features={in_features}"
    return None


def tensor_names(spec: QuantSpec) -> tuple[str, ...]:
    """Return the ends of the tensors' names."""
    return ("qweight", "qzeros", "scales")


def obstacle(out_features: int, in_features: int, spec: QuantSpec, *, name: str) -> str | None:
    """Return why the layout cannot hold a linear of this size, or None."""
    return kernel_obstacle(name, out_features, in_features, spec)


def pack(linear: QuantizedLinear) -> dict[str, AnyArray]:
    """Return qweight, qzeros and scales."""
    shape = (linear.out_features, padded_groups(linear.in_features, linear.spec))
    zeros, scales = np.zeros(shape, dtype=np.uint8), np.zeros(shape, dtype=np.float16)
    zeros[:, : linear.n_groups] = linear.zero_point
    scales[:, : linear.n_groups] = linear.scales
    return {"qweight": pack_nibbles(linear.int_weight), "qzeros": pack_nibbles(zeros), "scales": scales}


def unpack(tensors: Mapping[str, AnyArray], spec: QuantSpec, *, name: str) -> QuantizedLinear:
    """Return the linear that qweight, qzeros and scales hold."""
    qweight, qzeros, scales = tensors["qweight"], tensors["qzeros"], tensors["scales"]
    require_tensor(name, "qweight", qweight, "int32", (None, None))
    out_features, in_features = qweight.shape[0], qweight.shape[1] * PER_WORD
    n_groups = groups_of(name, in_features, spec)
    require_possible(name, kernel_obstacle(name, out_features, in_features, spec), spec)
    padded = padded_groups(in_features, spec)
    require_tensor(name, "qzeros", qzeros, "int32", (out_features, padded // PER_WORD))
    require_tensor(name, "scales", scales, spec.scale_dtype, (out_features, padded))
    scales = scales[:, :n_groups].copy()
    require_finite_scales(name, "scales", scales)
    zero_point = unpack_nibbles(qzeros)[:, :n_groups].copy()
    require_symmetric(name, "qzeros", zero_point, spec)
    return QuantizedLinear(unpack_nibbles(qweight), scales, zero_point, spec)
