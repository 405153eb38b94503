"""Integers to packed words: the layouts that files use, each one row of a table.

pack_bitstream, unpack_bitstream, words_for   a dense bit stream in 32-bit words
pack_nibbles, unpack_nibbles                  4-bit codes in an order
LAYOUTS, FOLDER_LAYOUTS, Layout, why_not      the table
pack_linear, unpack_linear                    a quantized linear to and from a layout's tensors
"""

from awq_ref.pack.bitstream import pack_bitstream, unpack_bitstream, words_for
from awq_ref.pack.layout import Layout
from awq_ref.pack.layouts import FOLDER_LAYOUTS, LAYOUTS, pack_linear, unpack_linear, why_not
from awq_ref.pack.nibbles import AWQ_ORDER, SEQUENTIAL_ORDER, pack_nibbles, unpack_nibbles

__all__ = [
    "AWQ_ORDER",
    "FOLDER_LAYOUTS",
    "LAYOUTS",
    "SEQUENTIAL_ORDER",
    "Layout",
    "pack_bitstream",
    "pack_linear",
    "pack_nibbles",
    "unpack_bitstream",
    "unpack_linear",
    "unpack_nibbles",
    "why_not",
    "words_for",
]
