"""AutoAWQ's layout "gemv_fast", which is TinyChat's of llm-awq ("v2"): 16-bit words, and floats for zero points.

    tensor_names, obstacle, pack, unpack   the functions of its two rows in `awq_ref.pack.layouts`

    qweight  int16   (out_features / 4, in_features)
    scales   float16 (padded, out_features)              scales transposed
    zeros    float16 (padded, out_features)              -(scales * zero_point), rounded to float16: the offset

The code of output n, input k is nibble (k % 32) / 8 of word
64 (k / 64) + 16 (n % 4) + 8 (k % 64 / 32) + k % 8 of row n / 4, quotients rounded down: four outputs take turns, 64
inputs each, and a word holds inputs that are 8 apart. The third tensor is called "qzeros" by AutoAWQ and "scaled_zeros"
by llm-awq. It is what their kernels add, and it is what is read here: docs/decisions.md#stored-offsets.
Sources: AutoAWQ, awq/modules/linear/gemv_fast.py; llm-awq, awq/quantize/qmodule.py.
"""

from collections.abc import Mapping

import numpy as np

from awq_ref.dtypes import I16, U8, AnyArray
from awq_ref.errors import FormatError
from awq_ref.pack.gemv import kernel_obstacle, padded_groups
from awq_ref.pack.offsets import offset_of
from awq_ref.pack.tensor_checks import groups_of, require_finite_scales, require_possible, require_tensor
from awq_ref.spec import QuantizedLinear, QuantSpec

ROWS, COLUMNS = 4, 64  # outputs that share a row of the file, and inputs after which they take turns
# axes of the codes: row, output in it, block of 64 inputs, half of it, nibble, lane
CODE_AXES = (ROWS, -1, 2, 4, 8)
TO_WORDS = (0, 2, 1, 3, 5, 4)  # and back: the same exchange of two pairs
SHIFTS = np.array([0, 4, 8, 12], dtype=np.uint16)


def tensor_names(spec: QuantSpec, *, zeros: str) -> tuple[str, ...]:
    """Return the ends of the tensors' names."""
    return ("qweight", "scales", zeros)


def obstacle(out_features: int, in_features: int, spec: QuantSpec, *, name: str) -> str | None:
    """Return why the layout cannot hold a linear of this size, or None."""
    if in_features % COLUMNS:
        return f"{name} packs {COLUMNS} inputs together, which does not divide in_features={in_features}"
    return kernel_obstacle(name, out_features, in_features, spec)


def _to_words(codes: U8) -> I16:
    axes = codes.reshape(len(codes) // ROWS, *CODE_AXES).transpose(TO_WORDS).astype(np.uint16)
    words = np.bitwise_or.reduce(axes << SHIFTS, axis=-1)  # (rows, blocks, 4, 2, 8)
    words = words.reshape(len(codes) // ROWS, -1)
    return np.asarray(words.view(np.int16))


def _to_codes(words: I16) -> U8:
    axes = words.view(np.uint16).reshape(len(words), -1, ROWS, 2, 8, 1) >> SHIFTS & 15
    codes: U8 = axes.transpose(TO_WORDS).astype(np.uint8).reshape(len(words) * ROWS, -1)
    return codes


def pack(linear: QuantizedLinear, *, zeros: str) -> dict[str, AnyArray]:
    """Return qweight, scales and the scaled zero points."""
    shape = (padded_groups(linear.in_features, linear.spec), linear.out_features)
    scales, offsets = np.zeros(shape, dtype=np.float16), np.zeros(shape, dtype=np.float16)
    scales[: linear.n_groups] = linear.scales.T
    offsets[: linear.n_groups] = offset_of(linear).T
    return {"qweight": _to_words(linear.int_weight), "scales": scales, zeros: offsets}


def unpack(tensors: Mapping[str, AnyArray], spec: QuantSpec, *, name: str, zeros: str) -> QuantizedLinear:
    """Return the linear that the tensors hold, with the stored products as its offset."""
    qweight, scales, offset = tensors["qweight"], tensors["scales"], tensors[zeros]
    require_tensor(name, "qweight", qweight, "int16", (None, None))
    out_features, in_features = qweight.shape[0] * ROWS, qweight.shape[1]
    n_groups = groups_of(name, in_features, spec)
    require_possible(name, obstacle(out_features, in_features, spec, name=name), spec)
    shape = (padded_groups(in_features, spec), out_features)
    for end, array in (("scales", scales), (zeros, offset)):
        require_tensor(name, end, array, spec.scale_dtype, shape)
        require_finite_scales(name, end, array[:n_groups])
    if spec.symmetric:
        raise FormatError(f"{name}: zero_point must be true: the layout stores {zeros}. Correct config.json.")
    codes = _to_codes(np.ascontiguousarray(qweight))
    zero_point = np.zeros((out_features, n_groups), dtype=np.uint8)
    scales, offset = scales[:n_groups].T.copy(), offset[:n_groups].T.copy()
    return QuantizedLinear(codes, scales, zero_point, spec, offset=offset)
