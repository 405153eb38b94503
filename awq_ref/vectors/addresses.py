"""Where every bit of a code lies: one formula for each layout, and nothing else.

    CodePlace     layout's formulas: weight codes, zero points, word width
    PLACES        layout -> CodePlace
    AWQ_RANK      position among eight outputs -> nibble

An address is (row, column, bit) of a word in a tensor, for bit b of the code of output o, input i (or output o, group
g). Oracles pack and unpack by these formulas, bit by bit, and `awq-ref explain-layout` draws them.
Source: docs/layouts.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

Address: TypeAlias = tuple[int, int, int]
Place: TypeAlias = Callable[[int, int, int, int], Address]

# gemm puts the outputs 0 2 4 6 1 3 5 7 into nibbles 0 to 7: output k stands in nibble AWQ_RANK[k]
AWQ_RANK = (0, 4, 1, 5, 2, 6, 3, 7)


def _gemm_weight(o: int, i: int, b: int, bits: int) -> Address:
    return i, o // 8, 4 * AWQ_RANK[o % 8] + b


def _gemm_zero(o: int, g: int, b: int, bits: int) -> Address:
    return g, o // 8, 4 * AWQ_RANK[o % 8] + b


def _along_row(o: int, i: int, b: int, bits: int) -> Address:
    p = i * bits + b
    return o, p // 32, p % 32


def _fast_weight(o: int, i: int, b: int, bits: int) -> Address:
    word = 64 * (i // 64) + 16 * (o % 4) + 8 * ((i % 64) // 32) + i % 8
    return o // 4, word, 4 * ((i % 32) // 8) + b


def _gptq_weight(o: int, i: int, b: int, bits: int) -> Address:
    p = i * bits + b
    return p // 32, o, p % 32


def _gptq_zero(o: int, g: int, b: int, bits: int) -> Address:
    p = o * bits + b
    return g, p // 32, p % 32


def _down_column(o: int, g: int, b: int, bits: int) -> Address:
    p = o * bits + b
    return p // 32, g, p % 32


@dataclass(frozen=True)
class CodePlace:
    """Where a layout's codes lie.

    weight    : name and formula of the weight's codes
    zero      : name and formula of the zero points' codes, or None where they are floats
    offset    : name of the tensor of floats instead, or None
    scales    : name of the scales
    by_group  : scales (and offsets) are (groups, outputs), not (outputs, groups)
    padded    : groups are padded to what a kernel reads
    word      : dtype of the words
    less      : zero points are stored less so much
    index     : name of the index of groups
    """

    weight: tuple[str, Place]
    zero: tuple[str, Place] | None
    offset: str | None
    scales: str
    by_group: bool
    padded: bool = False
    word: str = "int32"
    less: int = 0
    index: str = "g_idx"


def _gptq(less: int) -> CodePlace:
    return CodePlace(
        ("qweight", _gptq_weight), ("qzeros", _gptq_zero), None, "scales", by_group=True, less=less
    )


def _fast(offset: str) -> CodePlace:
    return CodePlace(
        ("qweight", _fast_weight), None, offset, "scales", by_group=True, padded=True, word="int16"
    )


PLACES: dict[str, CodePlace] = {
    "gemm": CodePlace(("qweight", _gemm_weight), ("qzeros", _gemm_zero), None, "scales", by_group=True),
    "gemv": CodePlace(
        ("qweight", _along_row), ("qzeros", _along_row), None, "scales", by_group=False, padded=True
    ),
    "gemv_fast": _fast("qzeros"),
    "llm-awq": _fast("scaled_zeros"),
    "gptq": _gptq(1),
    "gptq_v2": _gptq(0),
    "pack-quantized": CodePlace(
        ("weight_packed", _along_row),
        ("weight_zero_point", _down_column),
        None,
        "weight_scale",
        by_group=False,
        index="weight_g_idx",
    ),
    "mlx": CodePlace(("weight", _along_row), None, "biases", "scales", by_group=False, word="uint32"),
}


def padded_groups(groups: int, group_size: int) -> int:
    """Return how many groups a padded layout stores: a multiple of 8; of 16 for groups of 64, 32 for groups of 32."""
    multiple = {32: 32, 64: 16}.get(group_size, 8)
    return (groups + multiple - 1) // multiple * multiple
