"""Mutants of the layouts that no folder of Hugging Face's holds."""

import numpy as np
from mutants.mutant import mutant, original

U8 = np.uint8


def neighbours_packed(self, codes, distance):
    return self.byte_of(codes[:, ::2], codes[:, 1::2])


def neighbours_read(self, packed, distance):
    return np.stack(self.codes_of(packed), axis=2).reshape(len(packed), -1)


def rows_for_columns(self, o, i):
    column, row = i % 16, o % 16  # the tile is not turned
    thread = 4 * (column % 8) + row % 8 // 2
    number = 4 * (column // 8) + row % 2 + 2 * (row // 8)
    return i // 16, 128 * (o // 64) + 4 * thread + o % 64 // 16, self.marlin_nibble(number)


def tiles_in_turn(self, o, i):
    row, word, nibble = original("marlin_place")(self, o, i)
    return row, 128 * (word // 128) + 32 * (word % 4) + word % 128 // 4, nibble


def scales_of_groups(self, outputs, groups):
    return original("marlin_order")(self, outputs, 2)


def high_nibble_first(self, codes, bits):
    packed = original("to_bytes")(self, codes, bits)
    return packed << U8(4) | packed >> U8(4) if bits == 4 else packed


def high_nibble_first_read(self, packed, bits, n):
    swapped = packed << U8(4) | packed >> U8(4) if bits == 4 else packed
    return original("from_bytes")(self, swapped, bits, n)


def zeros_in_one_stream(self, params, codes, scales, zeros, padded):
    tensors = original("pack_other")(self, params, codes, scales, zeros, padded)
    if "zero_points" in tensors:
        rows = tensors["zero_points"]
        stream = self.to_bytes(zeros.reshape(1, -1), params["bits"])
        tensors["zero_points"] = np.resize(np.pad(stream, ((0, 0), (0, rows.size - stream.size))), rows.shape)
    return tensors


def gemv_in_awq_order(self, layout, words, bits, n_in):
    codes = original("unpack_codes")(self, layout, words, bits, n_in)
    return self.eights_back(codes) if layout == "llm-awq-v1" else codes


def groups_not_padded(self, groups, group):
    return groups if group == 128 else original("padded")(self, groups, group)


BITS_OTHERS = [
    mutant("pairs-of-neighbours", "a byte holds two neighbours when packing", to_pairs=neighbours_packed),
    mutant("pairs-read-as-neighbours", "a byte is read as two neighbours", from_pairs=neighbours_read),
    mutant(
        "pairs-high-first",
        "the first code of a pair in the high nibble",
        byte_of=lambda self, first, second: second | first << U8(4),
    ),
    mutant(
        "pairs-high-first-read",
        "the high nibble is read as the first code",
        codes_of=lambda self, byte: (byte >> U8(4), byte & U8(15)),
    ),
    mutant(
        "x86-as-arm",
        "x86's codes taken 16 apart",
        distance=lambda self, layout: 16 if layout == "qm_x86" else original("distance")(self, layout),
    ),
    mutant(
        "arm-as-x86",
        "ARM's codes taken 32 apart, where rows allow it",
        distance=lambda self, layout: 32 if layout == "qm_arm" else original("distance")(self, layout),
    ),
    mutant(
        "metal-as-arm",
        "Metal's codes taken 16 apart",
        distance=lambda self, layout: 16 if layout == "qm_metal" else original("distance")(self, layout),
    ),
    mutant(
        "scale-sign-lost",
        "TinyChatEngine's scales lose their sign",
        stored_scales=lambda self, scales: np.abs(scales),
    ),
    mutant(
        "eights-padded-with-0",
        "CUDA's words of eights are 0 behind the groups",
        eights=lambda self, zeros, padded: self.pad(zeros, padded),
    ),
    mutant("groups-not-padded", "groups of 128 are not padded", padded=groups_not_padded),
    mutant(
        "constant-unread",
        "a zero point of 0 in the file is taken for 8",
        check_constant=lambda self, zeros: None,
    ),
    mutant(
        "v1-in-gemm-order", "llm-awq v1 read in the order 0 2 4 6 1 3 5 7", unpack_codes=gemv_in_awq_order
    ),
    mutant(
        "marlin-nibbles-in-sequence",
        "marlin's eight codes without their interleaving",
        marlin_nibble=lambda self, number: number,
    ),
    mutant(
        "marlin-tile-not-turned",
        "rows and columns of marlin's tiles change places",
        marlin_place=rows_for_columns,
    ),
    mutant(
        "marlin-tiles-in-turn", "a thread's four tiles stand one after the other", marlin_place=tiles_in_turn
    ),
    mutant(
        "marlin-scales-as-they-are",
        "marlin's scales are not permuted",
        marlin_order=lambda self, outputs, groups: list(range(outputs)),
    ),
    mutant(
        "marlin-scales-of-groups",
        "the scales of whole rows permuted like those of groups",
        marlin_order=scales_of_groups,
    ),
    mutant("bytes-high-first", "MatMulNBits' first code in the high nibble", to_bytes=high_nibble_first),
    mutant("bytes-high-first-read", "MatMulNBits' high nibble read first", from_bytes=high_nibble_first_read),
    mutant(
        "zeros-run-on",
        "MatMulNBits' outputs do not begin a new byte of zero points",
        pack_other=zeros_in_one_stream,
    ),
    mutant("blocks-flat", "MatMulNBits' B has two axes", blocks=lambda self, packed, groups: packed),
]
