"""The pieces of the fast loops that can be checked alone."""

import numpy as np
import pytest
from helpers.assertions import assert_same_bits
from helpers.matmul_bounds import random_linear

from awq_ref.matmul.packed import PackedLinear
from awq_ref.matmul.tiles import MASKS, POWERS, dequantize_rows, segment_bytes, unpack_rows
from awq_ref.quantize.affine import dequantize_linear
from awq_ref.spec import QuantSpec


@pytest.mark.parametrize(
    ("group_bytes", "segment"),
    [(64, 64), (128, 128), (256, 128), (192, 96), (131, 131), (262, 262), (1, 1), (5, 5), (1000, 125)],
)
def test_segment_bytes(group_bytes, segment):
    assert segment_bytes(group_bytes) == segment


def test_masks_and_powers_by_hand():
    assert MASKS[4].ravel().tolist() == [0x0F, 0xF0]
    assert MASKS[2].ravel().tolist() == [0x03, 0x0C, 0x30, 0xC0]
    assert MASKS[8].ravel().tolist() == [0xFF]
    assert_same_bits(POWERS[2].ravel(), np.array([1.0, 1 / 4, 1 / 16, 1 / 64], dtype=np.float32))
    for bits, masks in MASKS.items():
        lowest = masks.astype(np.float64) * POWERS[bits]
        assert (lowest == 2**bits - 1).all()


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_rows_of_the_codes_and_of_the_weight(bits):
    linear = random_linear(QuantSpec(bits=bits, group_size=128), out_features=10, n_groups=3)
    weight = PackedLinear.from_quantized(linear).weight
    assert_same_bits(unpack_rows(weight, 2, 7), linear.int_weight[2:7])
    steps = linear.int_weight.astype(np.float64) - np.repeat(linear.zero_point, 128, axis=1)
    exact = steps * np.repeat(linear.scales.astype(np.float64), 128, axis=1)
    tile = np.empty((5, 384), dtype=np.float32)
    dequantize_rows(weight, tile, 2, 7)
    assert_same_bits(tile, exact[2:7].astype(np.float32))  # float16 scales: no rounding


def test_dequantized_rows_are_those_of_quantize():
    spec = QuantSpec(group_size=128, scale_dtype="float32")
    linear = random_linear(spec, out_features=300, n_groups=4)  # more rows than are unpacked at a time
    tile = np.empty((300, 512), dtype=np.float32)
    dequantize_rows(PackedLinear.from_quantized(linear).weight, tile, 0, 300)
    assert_same_bits(tile, dequantize_linear(linear))
