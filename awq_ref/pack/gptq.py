"""The layouts "gptq" and "gptq_v2" of AutoGPTQ and GPTQModel: words along the inputs, outputs side by side.

    tensor_names, obstacle, pack, unpack   the functions of their rows in `awq_ref.pack.layouts`

    qweight  int32   (in_features * bits / 32, out_features)   column o a dense bit stream of q[o, 0], q[o, 1], ...
    qzeros   int32   (n_groups, out_features * bits / 32)      row g a dense bit stream of z[0, g], z[1, g], ...
    scales   float16 (n_groups, out_features)                  scales transposed
    g_idx    int32   (in_features,)                            the group of each input; may be left out

"gptq" (v1) stores z - 1, "gptq_v2" z. For 2, 4 and 8 bits the 1 is subtracted from all fields of a word at once, so a
z of 0 borrows from the fields above it; adding it word by word, as is done here, gives every z back. Of 3 bits, whose
fields straddle words, each field is taken modulo 8. Where in_features is no multiple of group_size the last group is
smaller.
Sources: IST-DASLab/gptq, quant.py; AutoGPTQ; GPTQModel, utils/model.py (the conversion of v1 and v2).
"""

from collections.abc import Mapping

import numpy as np

from awq_ref.dtypes import I32, U8, AnyArray
from awq_ref.errors import FormatError
from awq_ref.pack.bitstream import WORD_BITS, pack_bitstream, unpack_bitstream
from awq_ref.pack.group_index import index_of, regroup
from awq_ref.pack.tensor_checks import require_finite_scales, require_symmetric, require_tensor
from awq_ref.spec import QuantizedLinear, QuantSpec

# A 1 in every field of a word
ONES = {2: np.uint32(0x55555555), 4: np.uint32(0x11111111), 8: np.uint32(0x01010101)}


def tensor_names(spec: QuantSpec) -> tuple[str, ...]:
    """Return the ends of the names of the tensors that must be there."""
    return ("qweight", "qzeros", "scales")


def obstacle(out_features: int, in_features: int, spec: QuantSpec, *, name: str) -> str | None:
    """Return why the layout cannot hold a linear of this size, or None."""
    for what, size in (("in_features", in_features), ("out_features", out_features)):
        if size * spec.bits % WORD_BITS:
            return f"{name} fills words of {WORD_BITS} bits, which {what}={size} codes of {spec.bits} bits do not"
    return None


def _pack_zeros(zero_point: U8, bits: int, stored_less: int) -> I32:
    """Pack (out_features, n_groups); stored_less is 1 for v1."""
    codes = np.ascontiguousarray(zero_point.T)  # (n_groups, out_features)
    if bits not in ONES:
        return pack_bitstream((codes - np.uint8(stored_less)) & np.uint8(2**bits - 1), bits=bits)
    words = pack_bitstream(codes, bits=bits).view(np.uint32)
    return (words - ONES[bits] * np.uint32(stored_less)).view(np.int32)


def _unpack_zeros(words: I32, bits: int, n_codes: int, stored_less: int) -> U8:
    if bits in ONES:
        words = (words.view(np.uint32) + ONES[bits] * np.uint32(stored_less)).view(np.int32)
        stored_less = 0
    codes = unpack_bitstream(words, bits=bits, n_codes=n_codes)  # (n_groups, out_features)
    codes = (codes + np.uint8(stored_less)) & np.uint8(2**bits - 1)
    return np.ascontiguousarray(codes.T)


def pack(linear: QuantizedLinear, *, stored_less: int) -> dict[str, AnyArray]:
    """Return qweight, qzeros, scales and g_idx."""
    bits, codes = linear.spec.bits, linear.int_weight
    if linear.input_order is not None:
        codes = np.empty_like(codes)
        codes[:, linear.input_order] = linear.int_weight
    return {
        "qweight": np.ascontiguousarray(pack_bitstream(codes, bits=bits).T),
        "qzeros": _pack_zeros(linear.zero_point, bits, stored_less),
        "scales": linear.scales.T.copy(),
        "g_idx": index_of(linear),
    }


def unpack(
    tensors: Mapping[str, AnyArray], spec: QuantSpec, *, name: str, stored_less: int
) -> QuantizedLinear:
    """Return the linear that the tensors hold."""
    bits, qweight, qzeros, scales = spec.bits, tensors["qweight"], tensors["qzeros"], tensors["scales"]
    require_tensor(name, "qweight", qweight, "int32", (None, None))
    words, out_features = qweight.shape
    if words * WORD_BITS % bits or out_features * bits % WORD_BITS:
        raise FormatError(
            f"{name}: qweight must hold whole words of {bits}-bit codes; got {qweight.shape}. Check the "
            "configuration's bits."
        )
    in_features = words * WORD_BITS // bits
    n_groups = 1 if spec.group_size == -1 else -(-in_features // spec.group_size)
    require_tensor(name, "qzeros", qzeros, "int32", (n_groups, out_features * bits // WORD_BITS))
    require_tensor(name, "scales", scales, spec.scale_dtype, (n_groups, out_features))
    require_finite_scales(name, "scales", scales)
    codes = unpack_bitstream(np.ascontiguousarray(qweight.T), bits=bits, n_codes=in_features)
    zero_point = _unpack_zeros(qzeros, bits, out_features, stored_less)
    require_symmetric(name, "qzeros", zero_point, spec)
    index = tensors.get("g_idx")
    return regroup(codes, scales.T.copy(), zero_point, spec, index=index, layout=name, name="g_idx")
