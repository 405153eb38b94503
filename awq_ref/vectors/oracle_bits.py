"""Oracle of level 0: packing and unpacking bit by bit, in plain loops over plain integers.

    Linear     codes, scales, zero points as nested lists
    pack       -> name -> (dtype, rows of numbers)
    unpack     the tensors -> Linear

Source: docs/layouts.md, through `awq_ref.vectors.addresses`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from awq_ref.vectors.addresses import PLACES, WIDTHS, Place, padded_groups
from awq_ref.vectors.draws import Codes, Table
from awq_ref.vectors.rounding import FORMATS

Tensors = dict[str, tuple[str, list]]  # type: ignore[type-arg]


@dataclass(frozen=True)
class Linear:
    """A linear as nested lists: codes (O, I), scales (O, G), and zero points or offsets (O, G)."""

    codes: Codes
    scales: Table
    zeros: Codes | None
    offsets: Table | None
    bits: int
    group_size: int
    scale_dtype: str = "float16"
    index: list[int] | None = None
    symmetric: bool = False

    @property
    def outputs(self) -> int:
        return len(self.codes)

    @property
    def inputs(self) -> int:
        return len(self.codes[0])

    @property
    def groups(self) -> int:
        return len(self.scales[0])

    @property
    def group(self) -> int:
        """The number of inputs in a group, also where group_size says -1."""
        return self.inputs if self.group_size == -1 else self.group_size

    def group_of(self, i: int) -> int:
        return i // self.group if self.index is None else self.index[i]


def signed(word: int, dtype: str) -> int:
    """Return a word's bits as the integer of a dtype."""
    width = WIDTHS[dtype]
    return word - 2**width if dtype.startswith("int") and word >= 2 ** (width - 1) else word


def put_codes(codes: Codes, place: Place, bits: int, rows: int, columns: int) -> Codes:
    """Return rows x columns words, unsigned, with every code at its place."""
    words = [[0] * columns for _ in range(rows)]
    for o, row in enumerate(codes):
        for k, code in enumerate(row):
            for b in range(bits):
                r, c, bit = place(o, k, b, bits)
                words[r][c] |= (code >> b & 1) << bit
    return words


def take_codes(words: Codes, place: Place, bits: int, outputs: int, others: int) -> Codes:
    """Return the codes (outputs, others) that lie in words."""
    codes = [[0] * others for _ in range(outputs)]
    for o in range(outputs):
        for k in range(others):
            for b in range(bits):
                r, c, bit = place(o, k, b, bits)
                codes[o][k] |= (words[r][c] >> bit & 1) << b
    return codes


def _size(place: Place, bits: int, outputs: int, others: int) -> tuple[int, int]:
    """Return rows and columns of the words: the last address that occurs, plus one."""
    last = [place(o, k, bits - 1, bits) for o in range(outputs) for k in range(others)]
    return max(row for row, _, _ in last) + 1, max(column for _, column, _ in last) + 1


def _less(words: Codes, bits: int, less: int) -> Codes:
    """Subtract `less` in every field: of whole words where fields fill them, field by field at 3 bits elsewhere."""
    ones = sum(1 << p for p in range(0, 32, bits))
    return [[(word - less * ones) % 2**32 for word in row] for row in words]


def _pad(rows: list[list[Fraction]] | Table | Codes, columns: int, behind: int = 0) -> list:  # type: ignore[type-arg]
    return [list(row) + [behind] * (columns - len(row)) for row in rows]


def _turned(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    return [list(column) for column in zip(*rows, strict=True)]


def offsets_of(linear: Linear) -> Table:
    """Return -(scale * zero), rounded once to the dtype of the scales; the linear's own offsets if it has them."""
    if linear.offsets is not None:
        return linear.offsets
    assert linear.zeros is not None
    to_stored: Callable[[Fraction], Fraction] = FORMATS[linear.scale_dtype]
    return [
        [float(to_stored(-Fraction(s) * z)) for s, z in zip(scales, zeros, strict=True)]
        for scales, zeros in zip(linear.scales, linear.zeros, strict=True)
    ]


def _turned_scales(rows: Sequence[Sequence[float]], turned: Callable[[int, int], int]) -> Table:
    """Return rows of scales, one for each group, with every output's at the place that the layout gives it."""
    result = [[0.0] * len(row) for row in rows]
    for g, row in enumerate(rows):
        for o, scale in enumerate(row):
            result[g][turned(o, len(rows))] = scale
    return result


def _scales_back(rows: Sequence[Sequence[float]], turned: Callable[[int, int], int]) -> Table:
    return [[row[turned(o, len(rows))] for o in range(len(row))] for row in rows]


def _pack_zeros(linear: Linear, place: Place, less: int, columns: int, behind: int) -> Codes:
    """Return the words of the zero points (unsigned), padded to `columns` groups."""
    assert linear.zeros is not None
    bits, zeros = linear.bits, linear.zeros
    if less and bits == 3:  # codes straddle words: field by field, modulo 8
        zeros, less = [[(z - less) % 8 for z in row] for row in zeros], 0
    zeros = _pad(zeros, columns, behind)
    words = put_codes(zeros, place, bits, *_size(place, bits, linear.outputs, columns))
    return _less(words, bits, less) if less else words


def pack(linear: Linear, layout: str) -> Tensors:
    """Return the tensors of a layout."""
    place, bits = PLACES[layout], linear.bits
    groups = padded_groups(linear.groups, linear.group) if place.padded else linear.groups
    name, where = place.weight
    words = put_codes(linear.codes, where, bits, *_size(where, bits, linear.outputs, linear.inputs))
    tensors: Tensors = {name: (place.word, [[signed(w, place.word) for w in row] for row in words])}
    if place.blocks:
        size = len(words[0]) // linear.groups
        cut = [[row[k : k + size] for k in range(0, len(row), size)] for row in words]
        tensors[name] = (place.word, cut)
    floats = {place.scales: linear.scales}
    if place.offset is not None:
        floats[place.offset] = offsets_of(linear)
    for name, rows in floats.items():
        padded = _pad(rows, groups)
        stored = _turned(padded) if place.by_group else padded
        if place.turned is not None:
            stored = _turned_scales(stored, place.turned)
        tensors[name] = (linear.scale_dtype, stored)
    stores_zeros = not (linear.symmetric and place.implied)
    if place.zero is not None and stores_zeros:
        name, where = place.zero
        words = _pack_zeros(linear, where, place.less, groups, place.behind)
        dtype = place.zero_word
        tensors[name] = (dtype, [[signed(w, dtype) for w in row] for row in words])
    if place.constant is not None:
        name, dtype, value = place.constant
        tensors[name] = (dtype, [value])
    if layout == "pack-quantized":
        tensors["weight_shape"] = ("int64", [linear.outputs, linear.inputs])
    if linear.index is not None:
        tensors[place.index] = ("int32", linear.index)
    return tensors


def _take_floats(rows: Sequence[Sequence[float]], by_group: bool, groups: int) -> Table:
    by_output = _turned(rows) if by_group else rows
    return [list(row[:groups]) for row in by_output]


def _take_zeros(words: Codes, layout: str, bits: int, outputs: int, groups: int) -> Codes:
    place = PLACES[layout]
    assert place.zero is not None
    unsigned = [[w % 2 ** WIDTHS[place.zero_word] for w in row] for row in words]
    if place.less and bits != 3:
        unsigned = _less(unsigned, bits, -place.less)
    zeros = take_codes(unsigned, place.zero[1], bits, outputs, groups)
    if place.less and bits == 3:
        zeros = [[(z + place.less) % 8 for z in row] for row in zeros]
    return zeros


def unpack(
    tensors: Tensors, layout: str, *, outputs: int, inputs: int, bits: int, group_size: int, symmetric: bool
) -> Linear:
    """Return the linear that the tensors of a layout hold: the formulas read backwards."""
    place = PLACES[layout]
    group = inputs if group_size == -1 else group_size
    groups = (inputs + group - 1) // group
    name, where = place.weight
    rows = tensors[name][1]
    if place.blocks:
        rows = [[word for block in row for word in block] for row in rows]
    words = [[w % 2 ** WIDTHS[place.word] for w in row] for row in rows]
    codes = take_codes(words, where, bits, outputs, inputs)
    scale_dtype, scales = tensors[place.scales]
    if place.turned is not None:
        scales = _scales_back(scales, place.turned)
    zeros, offsets = None, None
    if place.offset is not None:
        offsets = _take_floats(tensors[place.offset][1], place.by_group, groups)
    elif place.zero is not None and place.zero[0] in tensors:
        zeros = _take_zeros(tensors[place.zero[0]][1], layout, bits, outputs, groups)
    else:
        zeros = [[2 ** (bits - 1)] * groups for _ in range(outputs)]
    scales = _take_floats(scales, place.by_group, groups)
    index = tensors[place.index][1] if place.index in tensors else None
    return Linear(codes, scales, zeros, offsets, bits, group_size, scale_dtype, index, symmetric)
