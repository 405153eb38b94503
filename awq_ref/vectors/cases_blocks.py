"""Level 0 of GGUF's blocks: scales and codes in one tensor of bytes.

SHAPES        one row for each linear that is packed and unpacked
block_cases   all of them
"""

from collections.abc import Iterator

import numpy as np

from awq_ref.dtypes import AnyArray
from awq_ref.vectors.case import Case, Expected
from awq_ref.vectors.draws import Draws
from awq_ref.vectors.linears import Shape, draw_linear, layout_params, linear_inputs, tensor_inputs
from awq_ref.vectors.oracle_bits import Linear
from awq_ref.vectors.oracle_blocks import BLOCKS, pack_blocks, unpack_blocks

SOURCE = "vectors/oracle_blocks.py"

# (layout, name, shape, flags)
SHAPES: tuple[tuple[str, str, Shape, tuple[str, ...]], ...] = (
    ("q4_0", "plain", Shape(5, 96, symmetric=True), ("Blocks", "PairedBytes", "OddRows")),
    ("q4_0", "group-128", Shape(3, 256, group_size=128, symmetric=True), ("Blocks", "ManyGroups")),
    ("q4_1", "plain", Shape(5, 96), ("Blocks", "PairedBytes", "FloatZeros", "ZeroPointMax")),
    ("q4_1", "offset", Shape(3, 64, offset=True), ("Blocks", "FloatZeros")),
    ("q4_1", "whole-row", Shape(2, 128, group_size=-1), ("Blocks", "WholeRow", "FloatZeros")),
    ("q8_0", "plain", Shape(4, 96, bits=8, symmetric=True), ("Blocks", "Symmetric")),
)


def _outputs(arrays: dict[str, AnyArray]) -> dict[str, Expected]:
    return {name: Expected(array) for name, array in arrays.items()}


def _case(
    name: str, layout: str, linear: Linear, inputs: dict[str, AnyArray], outputs: dict[str, AnyArray],
    comment: str, *flags: str,
) -> Case:  # fmt: skip
    params = layout_params(layout, linear)
    return Case(f"L0/{name}", params, inputs, _outputs(outputs), comment, SOURCE, flags)


def _pair(layout: str, name: str, shape: Shape, flags: tuple[str, ...]) -> Iterator[Case]:
    """Yield the two directions of one linear."""
    linear = draw_linear(Draws(f"blocks {layout} {name}"), shape)
    packed = pack_blocks(linear, layout)
    back = unpack_blocks(packed, layout, inputs=shape.inputs, group_size=shape.group_size)
    tensors = tensor_inputs(packed)
    where = f"{shape.outputs} x {shape.inputs}, {shape.bits} bits, group size {shape.group_size}"
    into, out = f"Codes to blocks: {where}.", f"Blocks to codes: {where}."
    yield _case(f"pack/{layout}-{name}", layout, linear, linear_inputs(linear), tensors, into, *flags)
    yield _case(f"unpack/{layout}-{name}", layout, linear, tensors, linear_inputs(back), out, *flags)


def _finite(draws: Draws) -> list[int]:
    """Return the bytes of any float16 that is a number: of either sign, subnormal ones among them."""
    return [draws.below(256), draws.below(124) + 128 * draws.below(2)]


def _random_bytes(layout: str) -> Case:
    """Return blocks of random bytes, of which only scales that are no numbers are left out."""
    bits, has_offset = BLOCKS[layout]
    name = f"unpack/{layout}-random-bytes"
    draws = Draws(f"L0/{name}")
    rows = []
    for _ in range(4):
        row: list[int] = []
        for _ in range(3):
            row += _finite(draws) + (_finite(draws) if has_offset else [])
            row += [draws.below(256) for _ in range(32 * bits // 8)]
        rows.append(row)
    tensors = {"weight": ("uint8", rows)}
    linear = unpack_blocks(tensors, layout, inputs=96, group_size=32)
    comment = "Random bytes: each block whose scale is a number is valid and has one meaning."
    flags = ("Blocks", "RandomWords", "NegativeScale")
    return _case(name, layout, linear, tensor_inputs(tensors), linear_inputs(linear), comment, *flags)


def _invalid(layout: str) -> Iterator[Case]:
    """Yield inputs that must be refused."""
    bits, has_offset = BLOCKS[layout]
    shape = Shape(2, 64, bits=bits, group_size=64, symmetric=not has_offset)
    linear = draw_linear(Draws(f"invalid {layout}"), shape)
    weight = tensor_inputs(pack_blocks(linear, layout))["weight"]
    second = weight.shape[1] // 2  # the first byte of a row's second block
    nan, differing = weight.copy(), weight.copy()
    nan[:, [1, second + 1]] = 0x7E
    differing[1, second] ^= 1
    rows = [
        ("nan-scale", nan, "Scales that are NaN.", "NotFinite"),
        ("short-block", weight[:, :-1], "The last byte of each row is missing.", "BadShape"),
        ("unequal-blocks", differing, "Two blocks of one group have different scales.", "BadShape"),
    ]
    for name, array, comment, flag in rows:
        inputs: dict[str, AnyArray] = {"weight": np.ascontiguousarray(array)}
        yield _case(f"unpack/{layout}-invalid-{name}", layout, linear, inputs, {}, comment, "Blocks", flag)


def block_cases() -> Iterator[Case]:
    """Yield every case of GGUF's blocks."""
    for row in SHAPES:
        yield from _pair(*row)
    for layout in BLOCKS:
        yield _random_bytes(layout)
        yield from _invalid(layout)
