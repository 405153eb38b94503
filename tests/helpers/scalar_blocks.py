"""A writer of GGUF's blocks, one block at a time, from the definition of its struct: no awq_ref.

block_rows        codes, scales, offsets or None, and the group of every input -> rows of Q4_0 or Q4_1
int8_block_rows   the same of Q8_0
"""

import struct

import numpy as np


def block_rows(codes, scales, offsets, groups):
    """Return the rows of Q4_0, or with offsets of Q4_1: floats, then 16 bytes of codes i and i + 16."""
    rows = []
    for o, row in enumerate(codes.tolist()):
        data = b""
        for start in range(0, len(row), 32):
            block, group = row[start : start + 32], groups[start]
            data += struct.pack("<e", scales[o, group])
            if offsets is not None:
                data += struct.pack("<e", offsets[o, group])
            data += bytes(low | high << 4 for low, high in zip(block[:16], block[16:], strict=True))
        rows.append(list(data))
    return np.array(rows, dtype=np.uint8)


def int8_block_rows(codes, scales, groups):
    """Return the rows of Q8_0: a scale and 32 signed bytes."""
    rows = []
    for o, row in enumerate(codes.tolist()):
        data = b""
        for start in range(0, len(row), 32):
            signed = [code - 128 for code in row[start : start + 32]]
            data += struct.pack("<e32b", scales[o, groups[start]], *signed)
        rows.append(list(data))
    return np.array(rows, dtype=np.uint8)
