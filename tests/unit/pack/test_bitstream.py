"""The dense bit stream, worked by hand."""

import numpy as np
import pytest
from helpers.assertions import assert_same_bits, frozen

from awq_ref.errors import DtypeError, RangeError, ShapeError
from awq_ref.pack import pack_bitstream, unpack_bitstream, words_for


def codes_of(*values: int) -> np.ndarray:
    return np.array([values], dtype=np.uint8)


@pytest.mark.parametrize(
    "n, bits, words", [(0, 4, 0), (1, 2, 1), (8, 4, 1), (9, 4, 2), (11, 3, 2), (32, 3, 3)]
)
def test_number_of_words(n, bits, words):
    assert words_for(n, bits) == words


@pytest.mark.parametrize("bits, word", [(2, 0b11_10_01), (3, 0b011_010_001), (4, 0x321), (8, 0x030201)])
def test_the_first_code_is_lowest(bits, word):
    words = pack_bitstream(frozen(codes_of(1, 2, 3)), bits=bits)
    assert_same_bits(words, [[word]], dtype=np.int32)
    assert_same_bits(unpack_bitstream(frozen(words), bits=bits, n_codes=3), codes_of(1, 2, 3))


def test_a_three_bit_code_straddles_two_words():
    words = pack_bitstream(codes_of(*[0] * 10, 7), bits=3)  # bits 30, 31 and 32
    assert_same_bits(words, [[-(2**30), 1]], dtype=np.int32)  # 0xC0000000, 0x00000001
    assert_same_bits(unpack_bitstream(words, bits=3, n_codes=11), codes_of(*[0] * 10, 7))


def test_bit_31_makes_a_word_negative():
    words = pack_bitstream(codes_of(0, 0, 0, 128), bits=8)
    assert_same_bits(words, [[-(2**31)]], dtype=np.int32)


def test_rows_do_not_mix():
    words = pack_bitstream(np.array([[1, 0], [0, 1]], dtype=np.uint8), bits=4)
    assert_same_bits(words, [[1], [16]], dtype=np.int32)


def test_no_codes_are_no_words():
    words = pack_bitstream(np.zeros((2, 0), dtype=np.uint8), bits=3)
    assert_same_bits(words, np.zeros((2, 0), dtype=np.int32))
    assert_same_bits(unpack_bitstream(words, bits=3, n_codes=0), np.zeros((2, 0), dtype=np.uint8))


def test_bits_behind_the_last_code_are_not_looked_at():
    words = np.array([[-1]], dtype=np.int32)
    assert_same_bits(unpack_bitstream(words, bits=3, n_codes=2), codes_of(7, 7))


def test_bits_outside_one_to_eight_are_errors():
    with pytest.raises(RangeError, match=r"pack_bitstream: bits must lie in \[1, 8\]; got 9"):
        pack_bitstream(codes_of(1), bits=9)
    with pytest.raises(RangeError, match=r"unpack_bitstream: bits must lie in \[1, 8\]; got 0"):
        unpack_bitstream(np.zeros((1, 1), dtype=np.int32), bits=0, n_codes=1)


def test_a_code_that_does_not_fit_is_an_error():
    with pytest.raises(RangeError, match="codes must be at most 7, for 3 bits; got 8"):
        pack_bitstream(codes_of(7, 8), bits=3)


def test_wrong_arrays_are_errors():
    with pytest.raises(DtypeError, match="codes must be uint8; got int64"):
        pack_bitstream(codes_of(1).astype(np.int64), bits=4)
    with pytest.raises(ShapeError, match=r"codes must have shape \(any, any\); got \(1,\)"):
        pack_bitstream(codes_of(1)[0], bits=4)
    with pytest.raises(DtypeError, match="words must be int32; got uint32"):
        unpack_bitstream(np.zeros((1, 1), dtype=np.uint32), bits=4, n_codes=8)
    with pytest.raises(ShapeError, match=r"words must have shape \(any, 2\); got \(1, 1\)"):
        unpack_bitstream(np.zeros((1, 1), dtype=np.int32), bits=4, n_codes=9)
