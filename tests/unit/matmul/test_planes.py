"""Bit planes against literals and against a reader that follows the layout's definition bit by bit."""

import numpy as np
import pytest
from helpers.assertions import assert_same_bits, frozen

from awq_ref.errors import DtypeError, RangeError, ShapeError
from awq_ref.matmul.planes import block_size, pack_planes, split_activations, unpack_planes


def read_bit(plane, row, weight, bit, *, field_bits):
    """Bit `bit` of the field of one weight, found as the layout's definition says."""
    block, inside = divmod(weight, 16 * 8 // field_bits)
    k, j = divmod(inside, 16)
    return int(plane[row, 16 * block + j]) >> (field_bits * k + bit) & 1


def codes(bits, *, rows=3, blocks=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**bits, (rows, blocks * max(block_size(bits), 16)), dtype=np.uint8)


@pytest.mark.parametrize(("bits", "block"), [(2, 64), (3, 128), (4, 32), (8, 1)])
def test_block_size(bits, block):
    assert block_size(bits) == block


def test_block_size_of_other_widths():
    with pytest.raises(RangeError, match="block_size: bits must be one of 2, 3, 4, 8; got 5"):
        block_size(5)


def test_four_bits_two_weights_to_a_byte():
    int_weight = np.zeros((1, 64), dtype=np.uint8)
    int_weight[0, [0, 16, 1, 17, 32, 63]] = [3, 10, 15, 1, 7, 9]
    (plane,) = pack_planes(int_weight, 4)
    expected = np.zeros((1, 32), dtype=np.uint8)
    expected[0, [0, 1, 16, 31]] = [0xA3, 0x1F, 0x07, 0x90]
    assert_same_bits(plane, expected)


def test_two_bits_four_weights_to_a_byte():
    int_weight = np.zeros((1, 64), dtype=np.uint8)
    int_weight[0, [5, 21, 37, 53]] = [1, 2, 3, 0]
    (plane,) = pack_planes(int_weight, 2)
    assert plane.dtype == np.uint8
    assert plane.shape == (1, 16)
    assert plane[0].tolist() == [0] * 5 + [0b00_11_10_01] + [0] * 10


def test_three_bits_are_two_low_bits_and_the_high_bit():
    int_weight = np.zeros((1, 128), dtype=np.uint8)
    int_weight[0, [0, 16, 112]] = [0b101, 0b110, 0b100]
    low, high = pack_planes(int_weight, 3)
    assert (low.shape, high.shape) == ((1, 32), (1, 16))
    assert low[0].tolist() == [0b1001] + [0] * 31
    assert high[0].tolist() == [0b10000011] + [0] * 15


def test_eight_bits_are_the_codes_copied():
    int_weight = codes(8)[:, :5]
    (plane,) = pack_planes(int_weight, 8)
    assert_same_bits(plane, int_weight)
    assert not np.shares_memory(plane, int_weight)
    assert not np.shares_memory(unpack_planes((plane,), 8, 5), plane)


@pytest.mark.parametrize(("bits", "fields"), [(2, [(2, 0)]), (3, [(2, 0), (1, 2)]), (4, [(4, 0)])])
def test_every_bit_stands_where_the_definition_says(bits, fields):
    int_weight = codes(bits)
    planes = pack_planes(frozen(int_weight), bits)
    for (row, column), code in np.ndenumerate(int_weight):
        read = sum(
            read_bit(plane, row, column, bit, field_bits=width) << (place + bit)
            for plane, (width, place) in zip(planes, fields, strict=True)
            for bit in range(width)
        )
        assert read == code, f"row {row}, weight {column}"


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_unpack_is_the_inverse(bits):
    int_weight = codes(bits)
    planes = tuple(frozen(plane) for plane in pack_planes(int_weight, bits))
    assert_same_bits(unpack_planes(planes, bits, int_weight.shape[1]), int_weight)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_no_rows(bits):
    empty = np.zeros((0, 128), dtype=np.uint8)
    assert_same_bits(unpack_planes(pack_planes(empty, bits), bits, 128), empty)


def test_activations_meet_the_field_they_belong_to():
    x = np.arange(2 * 64, dtype=np.float32).reshape(2, 64)
    split = split_activations(frozen(x), 4)
    assert split.dtype == np.float32
    assert split.shape == (2, 2, 16, 2)  # fields, blocks, lanes, tokens
    assert split[1, 0, 3].tolist() == [19.0, 64.0 + 19.0]
    assert split[0, 1, 0].tolist() == [32.0, 64.0 + 32.0]
    assert split_activations(x, 8).shape == (1, 1, 64, 2)


def test_pack_refuses():
    good = codes(4)
    with pytest.raises(RangeError, match="pack_planes: bits must be one of"):
        pack_planes(good, 6)
    with pytest.raises(ShapeError, match=r"pack_planes: int_weight must have shape \(any, any\)"):
        pack_planes(good[0], 4)
    with pytest.raises(DtypeError, match="pack_planes: int_weight must be uint8"):
        pack_planes(good.astype(np.int32), 4)
    with pytest.raises(ShapeError, match="pack_planes: 4-bit planes hold blocks of 32 weights"):
        pack_planes(good[:, :40], 4)
    with pytest.raises(RangeError, match="pack_planes: codes must be at most 3; got 15"):
        pack_planes(np.full((1, 64), 15, dtype=np.uint8), 2)


def test_unpack_refuses():
    planes = pack_planes(codes(4), 4)
    with pytest.raises(RangeError, match="unpack_planes: bits must be one of"):
        unpack_planes(planes, 5, 64)
    with pytest.raises(ShapeError, match="unpack_planes: 3 bits need 2 planes; got 1"):
        unpack_planes(planes, 3, 64)
    with pytest.raises(ShapeError, match=r"unpack_planes: plane must have shape \(any, 16\)"):
        unpack_planes(planes, 4, 32)
