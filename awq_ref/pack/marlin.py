"""AutoAWQ's layout "marlin": tiles of 16 x 16 codes, in the order in which a GPU's threads multiply them.

    tensor_names, obstacle, pack, unpack   the functions of its row in `awq_ref.pack.layouts`

    qweight  int32   (in_features / 16, 2 * out_features)
    scales   float16 (n_groups, out_features)               scales transposed, and permuted in runs

Write an output as o = 64 a + 16 j + 8 b + c and an input as i = 16 r + 8 h + 2 t + l. Its code is nibble 4 l + 2 b + h
of word 128 a + 16 c + 4 t + j of row r: the published permutation of 1024 places is this exchange of axes. The scale of
output 64 a + 8 m + n stands at 64 a + 8 n + m; with one group for a whole row that of 32 a + 8 m + 2 n + l at
32 a + 8 n + 2 m + l.
There are no zero points: they are 8. Groups are of 128 inputs, or whole rows.
Sources: AutoAWQ, awq/modules/linear/marlin.py.
"""

from collections.abc import Mapping

import numpy as np

from awq_ref.dtypes import U8, AnyArray, AnyFloat
from awq_ref.pack.nibbles import PER_WORD, pack_nibbles, unpack_nibbles
from awq_ref.pack.tensor_checks import groups_of, require_finite_scales, require_possible, require_tensor
from awq_ref.spec import QuantizedLinear, QuantSpec

TILE = 16  # inputs of a row of words
OUTPUTS = 64  # four tiles side by side
GROUP_SIZE = 128
OUTPUT_AXES, INPUT_AXES = (4, 2, 8), (2, 4, 2)  # j, b, c of outputs; h, t, l of inputs
TO_WORDS = (4, 0, 3, 6, 1, 7, 2, 5)  # r, a, c, t, j, then the nibble: l, b, h
TO_CODES = (1, 4, 6, 2, 0, 7, 3, 5)  # its inverse: a, j, b, c, r, h, t, l


def tensor_names(spec: QuantSpec) -> tuple[str, ...]:
    """Return the ends of the tensors' names."""
    return ("qweight", "scales")


def obstacle(out_features: int, in_features: int, spec: QuantSpec) -> str | None:
    """Return why the layout cannot hold a linear of this size, or None."""
    if spec.group_size not in (-1, GROUP_SIZE):
        return f"marlin has groups of {GROUP_SIZE}, or whole rows, not of {spec.group_size}"
    for what, size, tile in (("out_features", out_features, OUTPUTS), ("in_features", in_features, TILE)):
        if size % tile:
            return f"marlin needs a multiple of {tile}, not {what}={size}"
    return None


def _permuted(scales: AnyFloat) -> AnyFloat:
    """Return scales (n_groups, out_features) in the order of the file, or back: it is its own inverse."""
    if len(scales) > 1:
        return scales.reshape(len(scales), -1, 8, 8).swapaxes(2, 3).reshape(scales.shape)
    return scales.reshape(1, -1, 4, 4, 2).swapaxes(2, 3).reshape(scales.shape)


def pack(linear: QuantizedLinear) -> dict[str, AnyArray]:
    """Return qweight and scales."""
    rows = linear.in_features // TILE
    axes = (linear.out_features // OUTPUTS, *OUTPUT_AXES, rows, *INPUT_AXES)
    codes = linear.int_weight.reshape(axes).transpose(TO_WORDS)
    words = pack_nibbles(np.ascontiguousarray(codes).reshape(rows, -1))
    return {"qweight": words, "scales": np.ascontiguousarray(_permuted(linear.scales.T))}


def _codes(words: AnyArray) -> U8:
    rows, columns = words.shape
    axes = unpack_nibbles(words).reshape(rows, -1, 8, 4, 4, 2, 2, 2).transpose(TO_CODES)
    return np.ascontiguousarray(axes).reshape(columns * PER_WORD // TILE, rows * TILE)


def unpack(tensors: Mapping[str, AnyArray], spec: QuantSpec) -> QuantizedLinear:
    """Return the linear that qweight and scales hold."""
    qweight, scales = tensors["qweight"], tensors["scales"]
    require_tensor("marlin", "qweight", qweight, "int32", (None, None))
    out_features, in_features = qweight.shape[1] // 2, qweight.shape[0] * TILE
    n_groups = groups_of("marlin", in_features, spec)
    require_possible("marlin", obstacle(out_features, in_features, spec), spec)
    require_tensor("marlin", "qweight", qweight, "int32", (None, 2 * out_features))
    require_tensor("marlin", "scales", scales, spec.scale_dtype, (n_groups, out_features))
    require_finite_scales("marlin", "scales", scales)
    zero_point = np.full((out_features, n_groups), spec.symmetric_zero_point, dtype=np.uint8)
    by_output = np.ascontiguousarray(_permuted(scales).T)
    return QuantizedLinear(_codes(np.ascontiguousarray(qweight)), by_output, zero_point, spec)
