"""Eight 4-bit codes in a word, in an order, worked by hand."""

import numpy as np
import pytest
from helpers.assertions import assert_same_bits, frozen

from awq_ref.errors import DtypeError, RangeError, ShapeError
from awq_ref.pack import AWQ_ORDER, SEQUENTIAL_ORDER, pack_nibbles, unpack_nibbles

COUNTING = np.arange(8, dtype=np.uint8)[None, :]


@pytest.mark.parametrize(
    "order, word",
    [(SEQUENTIAL_ORDER, 0x76543210), (AWQ_ORDER, 0x75316420), ((7, 6, 5, 4, 3, 2, 1, 0), 0x01234567)],
)
def test_nibble_j_holds_the_code_at_order_j(order, word):
    words = pack_nibbles(frozen(COUNTING), order=order)
    assert_same_bits(words, [[word]], dtype=np.int32)
    assert_same_bits(unpack_nibbles(frozen(words), order=order), COUNTING)


def test_words_follow_each_other():
    codes = np.zeros((2, 16), dtype=np.uint8)
    codes[0, 8], codes[1, 1] = 5, 3
    words = pack_nibbles(codes, order=AWQ_ORDER)
    assert_same_bits(words, [[0, 5], [3 << 16, 0]], dtype=np.int32)  # column 1 sits in nibble 4
    assert_same_bits(unpack_nibbles(words, order=AWQ_ORDER), codes)


def test_an_order_that_is_no_permutation_is_an_error():
    with pytest.raises(RangeError, match="pack_nibbles: order must hold each of 0 to 7 once"):
        pack_nibbles(COUNTING, order=(0, 0, 1, 2, 3, 4, 5, 6))
    with pytest.raises(RangeError, match="unpack_nibbles: order must hold each of 0 to 7 once"):
        unpack_nibbles(np.zeros((1, 1), dtype=np.int32), order=(0, 1))


def test_wrong_arrays_are_errors():
    with pytest.raises(ShapeError, match="must be a multiple of 8; got 7"):
        pack_nibbles(COUNTING[:, :7])
    with pytest.raises(ShapeError, match="codes must have shape"):
        pack_nibbles(COUNTING[0])
    with pytest.raises(DtypeError, match="codes must be uint8"):
        pack_nibbles(COUNTING.astype(np.int8))
    with pytest.raises(RangeError, match="codes must be at most 15"):
        pack_nibbles(COUNTING + np.uint8(9))
    with pytest.raises(ShapeError, match="words must have shape"):
        unpack_nibbles(np.zeros(1, dtype=np.int32))
    with pytest.raises(DtypeError, match="words must be int32"):
        unpack_nibbles(np.zeros((1, 1), dtype=np.int64))
