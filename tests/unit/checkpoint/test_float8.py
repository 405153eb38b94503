"""float8: every byte against its definition, and the scales of blocks."""

import math

import numpy as np
import pytest
from helpers.assertions import assert_same_bits

from awq_ref.checkpoint import float8_e4m3_to_float32, spread_scales
from awq_ref.errors import FormatError


def decoded(byte: int) -> float:
    """One byte, from the definition."""
    sign = -1.0 if byte >= 128 else 1.0
    exponent, mantissa = byte // 8 % 16, byte % 8
    if exponent == 15 and mantissa == 7:
        return math.nan
    if exponent == 0:
        return sign * mantissa / 8 * 2.0**-6
    return sign * (1 + mantissa / 8) * 2.0 ** (exponent - 7)


def test_every_byte():
    values = float8_e4m3_to_float32(np.arange(256, dtype=np.uint8))
    assert values.dtype == np.float32
    expected = np.array([decoded(byte) for byte in range(256)], dtype=np.float32)
    assert np.isnan(values[[0x7F, 0xFF]]).all()
    numbers = ~np.isnan(expected)
    assert_same_bits(values[numbers], expected[numbers])  # -0.0 among them


def test_into_an_array_that_is_there():
    out = np.empty((2, 2), dtype=np.float32)
    assert float8_e4m3_to_float32(np.array([[0x38, 0x40], [0x01, 0x7E]], dtype=np.uint8), out=out) is out
    assert_same_bits(out, [[1.0, 2.0], [2.0**-9, 448.0]], dtype=np.float32)


WEIGHT = np.arange(1, 16, dtype=np.float32).reshape(3, 5)


@pytest.mark.parametrize(
    "block, scales, rows",
    [
        ((0, 0), 2.0, [[2] * 5] * 3),
        ((0, 0), [2.0], [[2] * 5] * 3),
        ((1, 0), [[1.0], [2.0], [4.0]], [[1] * 5, [2] * 5, [4] * 5]),
        (
            (2, 2),
            [[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]],
            [[1, 1, 2, 2, 4], [1, 1, 2, 2, 4], [8, 8, 16, 16, 32]],
        ),
    ],
)
def test_scales_of_blocks(block, scales, rows):
    found = spread_scales("w.scale", WEIGHT.copy(), np.array(scales, dtype=np.float32), block)
    assert_same_bits(found, WEIGHT * np.array(rows, dtype=np.float32))


@pytest.mark.parametrize(
    "block, shape, wanted", [((1, 0), (5, 1), r"\(3, 1\)"), ((2, 2), (3, 2), r"\(2, 3\)")]
)
def test_scales_of_another_shape(block, shape, wanted):
    with pytest.raises(FormatError, match=rf"w\.scale: must have shape {wanted}"):
        spread_scales("w.scale", WEIGHT.copy(), np.ones(shape, dtype=np.float32), block)
