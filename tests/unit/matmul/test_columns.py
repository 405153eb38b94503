"""Packed columns against literals and against a reader that follows the layout's definition byte by byte."""

import numpy as np
import pytest
from helpers.assertions import assert_same_bits, frozen
from helpers.matmul_bounds import random_linear

from awq_ref.errors import RangeError
from awq_ref.matmul.columns import (
    Columns,
    fits,
    in_tiles,
    nest_activations,
    pack_columns,
    shift_of,
    unpack_columns,
)
from awq_ref.matmul.packed import PackedLinear
from awq_ref.matmul.planes import FIELDS
from awq_ref.spec import QuantSpec


def test_four_bits_two_halves_of_a_group_to_a_byte():
    codes = np.array([[1, 2, 3, 4, 5, 6, 7, 8], [9, 10, 11, 12, 13, 14, 15, 0]], dtype=np.uint8)
    (plane,) = pack_columns(frozen(codes), 4, n_groups=2, n_tiles=1)
    assert plane.shape == (1, 2, 2, 2)  # tiles, groups, bytes, outputs
    # output 0: 1 with 3, 2 with 4; 5 with 7, 6 with 8. Output 1: 9 with 11, 10 with 12; 13 with 15, 14 with 0
    assert plane[0, ..., 0].tolist() == [[0x31, 0x42], [0x75, 0x86]]
    assert plane[0, ..., 1].tolist() == [[0xB9, 0xCA], [0xFD, 0x0E]]


@pytest.mark.parametrize(("bits", "n_tiles"), [(2, 1), (3, 2), (4, 3), (8, 1)])
def test_every_code_stands_where_the_definition_says(bits, n_tiles):
    rng = np.random.default_rng(bits)
    codes = rng.integers(0, 2**bits, (7, 48), dtype=np.uint8)  # two groups of 24
    planes = pack_columns(frozen(codes), bits, n_groups=2, n_tiles=n_tiles)
    width = -(-7 // n_tiles)
    for (output, column), code in np.ndenumerate(codes):
        group, inside = divmod(column, 24)
        read = 0
        for plane, (field_bits, place) in zip(planes, FIELDS[bits], strict=True):
            field, byte = divmod(inside, 24 * field_bits // 8)
            value = int(plane[output // width, group, byte, output % width]) >> field_bits * field
            read |= (value & (2**field_bits - 1)) << place
        assert read == code


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_unpack_is_the_inverse(bits):
    linear = random_linear(QuantSpec(bits=bits, group_size=24), out_features=9, n_groups=3)
    planes = pack_columns(linear.int_weight, bits, n_groups=3, n_tiles=2)
    scales, zero_point = in_tiles(linear.scales.T.astype(np.float32), 2), in_tiles(linear.zero_point.T, 2)
    weight = Columns(planes, scales, zero_point, shift_of(scales, zero_point, None), bits)
    assert (weight.n_tiles, weight.n_groups, weight.width, weight.group_size) == (2, 3, 5, 24)
    fields = np.empty((len(planes), 2, 24, 5), dtype=np.uint8)
    codes = unpack_columns(weight, 1, slice(1, 3), fields)
    assert_same_bits(codes.reshape(48, 5)[:, :4].T.copy(), linear.int_weight[5:, 24:])
    assert not codes[..., 4].any()  # what fills the tile up


def test_outputs_in_tiles():
    values = np.arange(1, 11, dtype=np.float32).reshape(2, 5)
    assert in_tiles(values, 2).tolist() == [[[1, 2, 3], [6, 7, 8]], [[4, 5, 0], [9, 10, 0]]]
    assert in_tiles(values, 4).tolist() == [
        [[1, 2], [6, 7]],
        [[3, 4], [8, 9]],
        [[5, 0], [10, 0]],
        [[0, 0], [0, 0]],
    ]


def test_nested_factors_by_hand():
    # One group of four inputs, 2-bit codes 1, 2, 3, 0 in one byte: 1 + 4 * 2 + 16 * 3 + 64 * 0 = 57 = 0b00_11_10_01.
    linear = random_linear(QuantSpec(bits=2, group_size=4), out_features=1, n_groups=1)
    linear.int_weight[:] = [[1, 2, 3, 0]]
    weight = PackedLinear.from_quantized(linear).weight
    assert weight.planes[0].ravel().tolist() == [57]
    x = np.array([[5.0, -4.0, 16.0, 64.0]], dtype=np.float32)
    (factors,) = nest_activations(frozen(x), weight)
    # 5 + 4/4, -4/4 - 16/16, 16/16 - 64/64, 64/64
    assert factors.ravel().tolist() == [6.0, -2.0, 0.0, 1.0]
    # v = 57 mod 4, mod 16, mod 64, 57: 1, 9, 57, 57; and 1 * 5 - 2 * 4 + 3 * 16 + 0 * 64 = 45
    assert 6 * 1 - 2 * 9 + 0 * 57 + 1 * 57 == 45


def test_the_high_bit_of_three_counts_four():
    linear = random_linear(QuantSpec(bits=3, group_size=8), out_features=1, n_groups=1)
    weight = PackedLinear.from_quantized(linear).weight
    x = np.zeros((1, 8), dtype=np.float32)
    x[0, 7] = 128.0
    low, high = nest_activations(x, weight)
    # The low plane has fields of inputs (0 2 4 6), (1 3 5 7): input 7 is the last field of byte 1, 128 / 4**3.
    assert low.ravel().tolist() == [0, 0, 0, 0, 0, -2.0, 0, 2.0]
    # The high plane: input 7 is field 7 of the one byte, 4 * 128 / 2**7.
    assert high.ravel().tolist() == [0, 0, 0, 0, 0, 0, -4.0, 4.0]


def test_what_a_group_adds_for_its_sum():
    scales = np.array([[0.5, 3.0]], dtype=np.float32)
    zero_point = np.array([[8, 255]], dtype=np.uint8)
    offset = np.array([[1.0, 0.25]], dtype=np.float32)
    assert shift_of(scales, zero_point, None).tolist() == [[-4.0, -765.0]]
    assert shift_of(scales, zero_point, offset).tolist() == [[-3.0, -764.75]]


def test_fits_says_why_not():
    assert fits(256, 128, 4) is None
    assert fits(96, 48, 3) is None
    assert fits(100, 50, 8) is None
    assert "hold 2 of a group, which do not fill a group of 5" in str(fits(10, 5, 4))
    assert "hold 8 of a group, which do not fill a group of 12" in str(fits(24, 12, 3))
    assert "does not divide in_features=100" in str(fits(100, 64, 4))
    with pytest.raises(RangeError, match="fits: bits must be one of 2, 3, 4, 8; got 5"):
        fits(64, 32, 5)
