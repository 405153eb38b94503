"""AutoAWQ's layout "gemm": what transformers, vLLM and SGLang call AWQ.

    tensor_names, obstacle, pack, unpack   the functions of its row in `awq_ref.pack.layouts`

    qweight  int32   (in_features, out_features / 8)   nibble j of word (i, c) = q[8 c + order[j], i]
    qzeros   int32   (n_groups, out_features / 8)      nibble j of word (g, c) = z[8 c + order[j], g]
    scales   float16 (n_groups, out_features)          scales transposed
    order = 0 2 4 6 1 3 5 7

Eight neighbouring *outputs* share a word, so out_features is a multiple of 8. A symmetric linear is stored
with z = 8 everywhere.
Sources: AutoAWQ, awq/modules/linear/gemm.py.
"""

from collections.abc import Mapping

import numpy as np

from awq_ref.dtypes import AnyArray
from awq_ref.pack.nibbles import AWQ_ORDER, PER_WORD, pack_nibbles, unpack_nibbles
from awq_ref.pack.tensor_checks import (
    groups_of,
    require_finite_scales,
    require_symmetric,
    require_tensor,
)
from awq_ref.spec import QuantizedLinear, QuantSpec


def tensor_names(spec: QuantSpec) -> tuple[str, ...]:
    """Return the ends of the tensors' names."""
    return ("qweight", "qzeros", "scales")


def obstacle(out_features: int, in_features: int, spec: QuantSpec) -> str | None:
    """Return why the layout cannot hold a linear of this size, or None."""
    if out_features % PER_WORD:
        return f"gemm packs {PER_WORD} outputs to a word, which does not divide out_features={out_features}"
    return None


def pack(linear: QuantizedLinear) -> dict[str, AnyArray]:
    """Return qweight, qzeros and scales."""
    return {
        "qweight": pack_nibbles(np.ascontiguousarray(linear.int_weight.T), order=AWQ_ORDER),  # (in, out / 8)
        "qzeros": pack_nibbles(
            np.ascontiguousarray(linear.zero_point.T), order=AWQ_ORDER
        ),  # (n_groups, out / 8)
        "scales": linear.scales.T.copy(),  # (n_groups, out)
    }


def unpack(tensors: Mapping[str, AnyArray], spec: QuantSpec) -> QuantizedLinear:
    """Return the linear that qweight, qzeros and scales hold."""
    qweight, qzeros, scales = tensors["qweight"], tensors["qzeros"], tensors["scales"]
    require_tensor("gemm", "qweight", qweight, "int32", (None, None))
    in_features, words = qweight.shape
    n_groups = groups_of("gemm", in_features, spec)
    require_tensor("gemm", "qzeros", qzeros, "int32", (n_groups, words))
    require_tensor("gemm", "scales", scales, spec.scale_dtype, (n_groups, words * PER_WORD))
    require_finite_scales("gemm", "scales", scales)
    int_weight = np.ascontiguousarray(unpack_nibbles(qweight, order=AWQ_ORDER).T)  # (out, in)
    zero_point = np.ascontiguousarray(unpack_nibbles(qzeros, order=AWQ_ORDER).T)  # (out, n_groups)
    require_symmetric("gemm", "qzeros", zero_point, spec)
    return QuantizedLinear(int_weight, scales.T.copy(), zero_point, spec)
