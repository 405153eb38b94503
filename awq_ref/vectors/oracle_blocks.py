"""Oracle of level 0 for GGUF's blocks: byte by byte, in plain loops over plain integers.

    BLOCKS          name -> bits of a code, and whether a float16 to add stands behind the scale
    pack_blocks     Linear -> name -> (dtype, rows of bytes)
    unpack_blocks   the bytes -> Linear

Source: docs/layouts_of_others.md.
"""

import struct

from awq_ref.vectors.draws import Codes, Table
from awq_ref.vectors.oracle_bits import Linear, Tensors, offsets_of

BLOCKS = {"q4_0": (4, False), "q4_1": (4, True), "q8_0": (8, False)}
SIZE = 32  # weights of a block


def _half(value: float) -> list[int]:
    return list(struct.pack("<e", value))


def _codes(codes: list[int], bits: int) -> list[int]:
    """Return the bytes of the codes of a block: an int8 each, or two to a byte, 16 apart."""
    if bits == 8:
        return [(code - 128) % 256 for code in codes]
    return [codes[e] + 16 * codes[e + 16] for e in range(16)]


def pack_blocks(linear: Linear, name: str) -> Tensors:
    """Return the rows of blocks of a linear."""
    bits, has_offset = BLOCKS[name]
    offsets = offsets_of(linear) if has_offset else None
    rows = []
    for o, codes in enumerate(linear.codes):
        row: list[int] = []
        for start in range(0, linear.inputs, SIZE):
            group = start // linear.group
            row += _half(linear.scales[o][group])
            if offsets is not None:
                row += _half(offsets[o][group])
            row += _codes(codes[start : start + SIZE], bits)
        rows.append(row)
    return {"weight": ("uint8", rows)}


def _take_codes(stored: list[int], bits: int) -> list[int]:
    if bits == 8:
        return [(byte + 128) % 256 for byte in stored]
    return [byte % 16 for byte in stored] + [byte // 16 for byte in stored]


def _take_half(stored: list[int]) -> float:
    return float(struct.unpack("<e", bytes(stored))[0])


def unpack_blocks(tensors: Tensors, name: str, *, inputs: int, group_size: int) -> Linear:
    """Return the linear that rows of blocks hold."""
    bits, has_offset = BLOCKS[name]
    head = 4 if has_offset else 2
    length = head + SIZE * bits // 8
    group = inputs if group_size == -1 else group_size
    codes: Codes = []
    scales: Table = []
    offsets: Table = []
    for row in tensors["weight"][1]:
        blocks = [row[start : start + length] for start in range(0, len(row), length)]
        codes.append([code for block in blocks for code in _take_codes(block[head:], bits)])
        firsts = blocks[:: group // SIZE]  # of each group
        scales.append([_take_half(block[:2]) for block in firsts])
        offsets.append([_take_half(block[2:4]) for block in firsts] if has_offset else [])
    zeros = [[2 ** (bits - 1)] * len(row) for row in scales]
    if has_offset:
        return Linear(codes, scales, None, offsets, bits, group_size)
    return Linear(codes, scales, zeros, None, bits, group_size, symmetric=True)
