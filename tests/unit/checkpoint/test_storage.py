"""bfloat16 against a scalar formula, and the names of dtypes."""

import math
import struct

import numpy as np
import pytest
from helpers.assertions import assert_same_bits, frozen

from awq_ref.checkpoint.storage import (
    STORAGE,
    bfloat16_to_float32,
    encode,
    float32_to_bfloat16,
    storage_name,
)
from awq_ref.errors import DtypeError


def scalar_value(word: int) -> float:
    """bfloat16 from its definition: sign, 8 exponent bits (bias 127), 7 fraction bits."""
    sign = -1.0 if word >> 15 else 1.0
    exponent, fraction = (word >> 7) & 0xFF, word & 0x7F
    if exponent == 255:
        return math.nan if fraction else sign * math.inf
    if exponent == 0:
        return sign * fraction * 2.0**-133
    return sign * (1 + fraction / 128) * 2.0 ** (exponent - 127)


def scalar_nearest(value: float) -> int:
    """The word nearest to a float32, ties to even, by comparing exact distances to both neighbours."""
    low = struct.unpack("<I", struct.pack("<f", value))[0] >> 16  # towards zero
    if (
        math.isinf(value) or low & 0x7FFF == 0x7F7F
    ):  # the largest finite word: its upper neighbour is infinite
        limit = scalar_value(0x7F7F) + 2.0**119  # half a step above the largest
        return low + (not math.isinf(value) and abs(value) >= limit)
    below, above = abs(scalar_value(low)), abs(scalar_value(low + 1))
    down, up = (
        abs(value) - below,
        above - abs(value),
    )  # exact: all three are multiples of the float32's last bit
    return low + (up < down or (up == down and low & 1))


def test_every_bfloat16_widens_to_the_value_of_the_definition():
    words = frozen(np.arange(2**16, dtype=np.uint16))
    values = bfloat16_to_float32(words)
    assert values.dtype == np.float32
    assert values.shape == words.shape
    for word in range(0, 2**16, 7):
        expected = scalar_value(word)
        assert float(values[word]) == expected or (math.isnan(expected) and math.isnan(values[word]))


def test_widening_into_a_given_array_fills_that_one():
    out = np.empty((2, 2), dtype=np.float32)
    words = np.array([[0x3F80, 0x4000], [0xC040, 0x0000]], dtype=np.uint16)
    assert bfloat16_to_float32(words, out=out) is out
    assert_same_bits(out, [[1.0, 2.0], [-3.0, 0.0]], dtype=np.float32)


def test_narrowing_rounds_to_nearest_ties_to_even(rng):
    bits = rng.integers(0, 2**32, size=4000, dtype=np.uint32)
    ties = (rng.integers(0, 2**16, size=500, dtype=np.uint32) << 16) | 0x8000
    values = np.concatenate([bits, ties]).view(np.float32)
    values = frozen(values[~np.isnan(values)])
    words = float32_to_bfloat16(values)
    assert words.dtype == np.uint16
    assert words.tolist() == [scalar_nearest(float(value)) for value in values]


@pytest.mark.parametrize(
    "bits, word",
    [
        (0x7F800000, 0x7F80),  # infinity stays
        (0xFF800000, 0xFF80),
        (0x7F7FFFFF, 0x7F80),  # the largest float32 is nearer to infinity than to the largest bfloat16
        (0x80000000, 0x8000),  # -0
        (0x00008000, 0x0000),  # a subnormal tie, to even
        (0x00018000, 0x0002),
    ],
)
def test_narrowing_special_values(bits, word):
    assert float32_to_bfloat16(np.array([bits], dtype=np.uint32).view(np.float32)).tolist() == [word]


@pytest.mark.parametrize("bits", [0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000])
def test_a_nan_stays_a_nan(bits):
    words = float32_to_bfloat16(np.array([bits], dtype=np.uint32).view(np.float32))
    assert math.isnan(scalar_value(int(words[0])))


def test_bfloat16_to_float32_and_back_is_the_identity_for_all_but_signalling_nans():
    words = np.arange(2**16, dtype=np.uint16)
    back = float32_to_bfloat16(bfloat16_to_float32(words))
    is_nan = (words & 0x7FFF) > 0x7F80
    assert_same_bits(back, np.where(is_nan, words | 0x40, words).astype(np.uint16))


def test_a_scalar_array_keeps_its_shape():
    assert float32_to_bfloat16(np.array(1.0, dtype=np.float32)).shape == ()


@pytest.mark.parametrize("name", [name for name, row in STORAGE.items() if row.words and name != "BF16"])
def test_names_of_numpy_dtypes(name):
    words = STORAGE[name].words
    assert storage_name(words) == name
    assert storage_name(words.newbyteorder(">")) == name
    assert words.itemsize == STORAGE[name].itemsize


@pytest.mark.parametrize("dtype", [np.complex64, np.str_, np.object_])
def test_a_dtype_that_the_format_lacks(dtype):
    with pytest.raises(DtypeError, match="the dtype must be one of bool, uint8"):
        storage_name(np.dtype(dtype))


def test_encode_stores_little_endian_words():
    assert encode(np.array([1, 258], dtype=">i4"), "I32").tobytes() == b"\1\0\0\0\2\1\0\0"
    assert encode(np.array([1.0], dtype=np.float32), "BF16").tobytes() == b"\x80\x3f"


def test_encode_refuses_types_without_words():
    with pytest.raises(DtypeError, match="F8_E4M3 can be stored from raw bytes only"):
        encode(np.array([1.0], dtype=np.float32), "F8_E4M3")
