"""Where every bit of a code lies: one formula for each layout, and nothing else.

    CodePlace     layout's formulas: weight codes, zero points, word width
    PLACES        layout -> CodePlace
    WIDTHS        dtype of words -> their bits
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


def _along_bytes(o: int, k: int, b: int, bits: int) -> Address:
    p = k * bits + b
    return o, p // 8, p % 8


def _marlin_weight(o: int, i: int, b: int, bits: int) -> Address:
    thread = 4 * (o % 8) + (i % 8) // 2
    in_tile = 4 * ((o % 16) // 8) + 2 * ((i % 16) // 8) + i % 2
    return i // 16, 128 * (o // 64) + 4 * thread + (o % 64) // 16, 4 * AWQ_RANK[in_tile] + b


def _marlin_scale(o: int, groups: int) -> int:
    if groups > 1:
        return 64 * (o // 64) + 8 * (o % 8) + (o % 64) // 8
    return 32 * (o // 32) + 8 * ((o % 8) // 2) + 2 * ((o % 32) // 8) + o % 2


def _pairs(distance: int) -> Place:
    """Return the formula of bytes that hold codes so far from each other."""

    def place(o: int, i: int, b: int, bits: int) -> Address:
        block, k = i // (2 * distance), i % (2 * distance)
        return o, distance * block + k % distance, 4 * (k // distance) + b

    return place


@dataclass(frozen=True)
class CodePlace:
    """Where a layout's codes lie.

    weight    : name and formula of the weight's codes
    zero      : name and formula of the zero points' codes, or None where they are floats
    offset    : name of the tensor of floats instead, or None
    scales    : name of the scales
    by_group  : scales (and offsets) are (groups, outputs), not (outputs, groups)
    padded    : groups are padded to what a kernel reads
    word      : dtype of the words; zero_word: of those of zero points
    less      : zero points are stored less so much
    index     : name of the index of groups
    implied   : zero points of a symmetric linear are not stored
    behind    : the zero point that stands in padding
    constant  : name, dtype and value of a tensor of one number that is the same in every file
    turned    : output, number of groups -> where its scale stands in a row of scales
    blocks    : the words of a row are cut by groups, into a third axis
    """

    weight: tuple[str, Place]
    zero: tuple[str, Place] | None
    offset: str | None
    scales: str
    by_group: bool
    padded: bool = False
    word: str = "int32"
    zero_word: str = "int32"
    less: int = 0
    index: str = "g_idx"
    implied: bool = False
    behind: int = 0
    constant: tuple[str, str, float] | None = None
    turned: Callable[[int, int], int] | None = None
    blocks: bool = False


def _gptq(less: int) -> CodePlace:
    return CodePlace(
        ("qweight", _gptq_weight), ("qzeros", _gptq_zero), None, "scales", by_group=True, less=less
    )


def _fast(offset: str) -> CodePlace:
    return CodePlace(
        ("qweight", _fast_weight), None, offset, "scales", by_group=True, padded=True, word="int16"
    )


def _gemv() -> CodePlace:
    return CodePlace(
        ("qweight", _along_row), ("qzeros", _along_row), None, "scales", by_group=False, padded=True
    )


def _qm(distance: int) -> CodePlace:
    return CodePlace(
        ("weight_int4", _pairs(distance)),
        None,
        None,
        "scaling_factor_int4",
        by_group=False,
        word="uint8",
        constant=("zero_point_int4", "float32", 8.0),
    )


PLACES: dict[str, CodePlace] = {
    "gemm": CodePlace(("qweight", _gemm_weight), ("qzeros", _gemm_zero), None, "scales", by_group=True),
    "gemv": _gemv(),
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
        implied=True,
    ),
    "mlx": CodePlace(("weight", _along_row), None, "biases", "scales", by_group=False, word="uint32"),
    "llm-awq-v1": _gemv(),
    "marlin": CodePlace(
        ("qweight", _marlin_weight), None, None, "scales", by_group=True, turned=_marlin_scale
    ),
    "qm_arm": _qm(16),
    "qm_x86": _qm(32),
    "qm_metal": _qm(4),
    "qm_cuda": CodePlace(
        ("weight_int4", _along_row),
        ("zero_point_int4", _along_row),
        None,
        "scaling_factor_int4",
        by_group=False,
        padded=True,
        behind=8,
    ),
    "matmulnbits": CodePlace(
        ("B", _along_bytes),
        ("zero_points", _along_bytes),
        None,
        "scales",
        by_group=False,
        word="uint8",
        zero_word="uint8",
        implied=True,
        blocks=True,
    ),
}
WIDTHS = {"uint8": 8, "int16": 16, "int32": 32, "uint32": 32}  # bits of a word


def padded_groups(groups: int, group_size: int) -> int:
    """Return how many groups a padded layout stores: a multiple of 8; of 16 for groups of 64, 32 for groups of 32."""
    multiple = {32: 32, 64: 16}.get(group_size, 8)
    return (groups + multiple - 1) // multiple * multiple
