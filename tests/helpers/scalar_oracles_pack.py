"""Readers of packed layouts, one code at a time, from the layouts' definitions: no shifts of arrays, no awq_ref.

    bit_of_row              bit p of a row of 32-bit words
    read_code               code i of a row's dense bit stream
    read_gemm               AutoAWQ "gemm": (codes, zero points, scales) as lists of rows
    read_pack_quantized     compressed-tensors "pack-quantized": the same, codes and zero points unsigned

A word is an integer, negative or not: Python's >> on a negative integer is that of two's complement.
"""

from collections.abc import Mapping, Sequence
from typing import Any


def bit_of_row(words: Sequence[int], position: int) -> int:
    """Return bit `position` of the stream: bit position % 32 of word position // 32."""
    return (int(words[position // 32]) >> (position % 32)) & 1


def read_code(words: Sequence[int], index: int, bits: int) -> int:
    """Return code `index` of a row whose codes of `bits` bits follow each other without gaps, lowest bit first."""
    return sum(bit_of_row(words, index * bits + k) << k for k in range(bits))


def _nibble(word: int, j: int) -> int:
    return (int(word) >> (4 * j)) & 15


# AutoAWQ: the code of column 8 c + k sits in this nibble of word c.
GEMM_NIBBLE_OF_COLUMN = (0, 4, 1, 5, 2, 6, 3, 7)


def read_gemm(tensors: Mapping[str, Any]) -> tuple[list[list[int]], list[list[int]], list[list[float]]]:
    """Return (codes[out][in], zero points[out][group], scales[out][group])."""
    qweight, qzeros, scales = (tensors[name].tolist() for name in ("qweight", "qzeros", "scales"))
    outputs = range(8 * len(qweight[0]))
    codes = [[_nibble(row[o // 8], GEMM_NIBBLE_OF_COLUMN[o % 8]) for row in qweight] for o in outputs]
    zeros = [[_nibble(row[o // 8], GEMM_NIBBLE_OF_COLUMN[o % 8]) for row in qzeros] for o in outputs]
    return codes, zeros, [[row[o] for row in scales] for o in outputs]


def read_pack_quantized(
    tensors: Mapping[str, Any], bits: int
) -> tuple[list[list[int]], list[list[int]], list[list[float]]]:
    """Return (codes[out][in], zero points[out][group], scales[out][group]).

    The file holds signed codes plus 2**(bits-1); so do we. No weight_zero_point: the signed zero point 0 everywhere.
    """
    rows, columns = tensors["weight_shape"].tolist()
    packed, scales = tensors["weight_packed"].tolist(), tensors["weight_scale"].tolist()
    codes = [[read_code(packed[o], i, bits) for i in range(columns)] for o in range(rows)]
    groups = range(len(scales[0]))
    if "weight_zero_point" not in tensors:
        return codes, [[2 ** (bits - 1) for _ in groups] for _ in range(rows)], scales
    by_group = tensors["weight_zero_point"].T.tolist()  # one bit stream per group, along the outputs
    zeros = [[read_code(by_group[g], o, bits) for g in groups] for o in range(rows)]
    return codes, zeros, scales
