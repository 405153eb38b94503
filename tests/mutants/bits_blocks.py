"""Mutants of GGUF's blocks."""

import numpy as np
from mutants.mutant import mutant, original


def neighbours_share_a_byte(self, codes):
    return codes[..., ::2] | codes[..., 1::2] << np.uint8(4)


def neighbours_shared_a_byte(self, stored):
    return np.stack([stored & np.uint8(15), stored >> np.uint8(4)], axis=-1).reshape(*stored.shape[:-1], 32)


def high_nibble_first(self, stored):
    return np.concatenate([stored >> np.uint8(4), stored & np.uint8(15)], axis=-1)


def offset_first(self, scales, offset):
    return original("block_head")(self, scales, offset)[::-1]


def first_block_speaks_for_all(self, values, repeats):
    if not np.isfinite(values).all():
        raise ValueError("scale")
    return values[:, ::repeats]


def groups_not_repeated(self, values, repeats):
    padded = np.zeros((len(values), values.shape[1] * repeats), dtype=values.dtype)
    padded[:, ::repeats] = values
    return original("half")(self, padded, 1)


def unsigned_scales(self, stored):
    return np.abs(original("to_half")(self, stored))


BITS_BLOCKS = [
    mutant(
        "block-neighbours-packed", "Q4_0 and Q4_1 put neighbours into a byte", nibbles=neighbours_share_a_byte
    ),
    mutant("block-neighbours-read", "a byte read as two neighbours", from_nibbles=neighbours_shared_a_byte),
    mutant(
        "block-high-nibble-first", "the high nibble read as the first half", from_nibbles=high_nibble_first
    ),
    mutant("block-big-endian", "the scale's high byte first", byte_order=lambda self: ">f2"),
    mutant("block-offset-first", "Q4_1's m before its d", block_head=offset_first),
    mutant(
        "block-offset-sign",
        "Q4_1 stores + z d",
        block_offset=lambda self, scales, zeros: (scales.astype(np.float32) * zeros).astype(np.float16),
    ),
    mutant("block-unsigned-bytes", "Q8_0 stores codes from 0 to 255", to_int8=lambda self, codes: codes),
    mutant("block-bytes-not-signed", "Q8_0's int8 read as unsigned", from_int8=lambda self, stored: stored),
    mutant("block-scale-once", "a group's scale in its first block alone", half=groups_not_repeated),
    mutant("block-group-unchecked", "blocks of one group may differ", of_group=first_block_speaks_for_all),
    mutant("block-scale-unsigned", "a scale's sign is lost", to_half=unsigned_scales),
]
