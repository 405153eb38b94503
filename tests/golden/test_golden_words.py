"""Words and numbers that other projects produce, as literals: whoever changes a layout changes these lines.

The words of AutoAWQ (gemm), compressed-tensors (pack-quantized) and of the dense 3-bit stream were printed by those
projects' own packers; the quantizer's numbers are worked by hand from the published formula.
"""

import numpy as np
import pytest
from helpers.assertions import assert_same_bits

from awq_ref.pack import pack_bitstream, pack_linear, unpack_bitstream, unpack_linear
from awq_ref.quantize import dequantize_linear, quantize_linear
from awq_ref.spec import QuantizedLinear, QuantSpec

UP = [0, 1, 2, 3, 4, 5, 6, 7]
DOWN = [15, 14, 13, 12, 11, 10, 9, 8]
ONE_GROUP = QuantSpec(bits=4, group_size=-1)


def signed(word: int) -> int:
    """Read the word's 32 bits as two's complement."""
    return word - 2**32 if word >= 2**31 else word


def linear_of(codes, zeros, spec=ONE_GROUP) -> QuantizedLinear:
    codes, zeros = np.array(codes, dtype=np.uint8), np.array(zeros, dtype=np.uint8)
    scales = np.arange(1, 1 + zeros.size, dtype=np.float16).reshape(zeros.shape)
    return QuantizedLinear(codes, scales, zeros, spec)


# --- AutoAWQ "gemm": column k of eight outputs sits in nibble 0 4 1 5 2 6 3 7 of its word -----------------------


def test_gemm_words():
    linear = linear_of(np.array([UP, DOWN, [8] * 8]).T, [[8]] * 8)  # eight outputs, three inputs
    tensors = pack_linear(linear, "gemm")
    assert_same_bits(tensors["qweight"], [[1966171168], [-1966171169], [-2004318072]], dtype=np.int32)
    assert [1966171168, -1966171169, -2004318072] == [signed(w) for w in (0x75316420, 0x8ACE9BDF, 0x88888888)]
    assert_same_bits(tensors["qzeros"], [[-2004318072]], dtype=np.int32)
    assert_same_bits(tensors["scales"], [[1, 2, 3, 4, 5, 6, 7, 8]], dtype=np.float16)


def test_gemm_zero_points_are_packed_like_codes():
    tensors = pack_linear(linear_of([[0]] * 8, [[z] for z in UP]), "gemm")
    assert_same_bits(tensors["qzeros"], [[0x75316420]], dtype=np.int32)


def test_gemm_words_are_read():
    tensors = {
        "qweight": np.array([[0x75316420], [signed(0x8ACE9BDF)]], dtype=np.int32),
        "qzeros": np.array([[signed(0x88888888)]], dtype=np.int32),
        "scales": np.ones((1, 8), dtype=np.float16),
    }
    linear = unpack_linear(tensors, ONE_GROUP, "gemm")
    assert_same_bits(linear.int_weight, np.array([UP, DOWN]).T.tolist(), dtype=np.uint8)
    assert_same_bits(linear.zero_point, [[8]] * 8, dtype=np.uint8)


# --- compressed-tensors "pack-quantized": signed code + 8, nibble i of a row in nibble i % 8 --------------------


def test_pack_quantized_words():
    signed_codes = np.array([[-8, -7, -6, -5, -4, -3, -2, -1], [0, 1, 2, 3, 4, 5, 6, 7]])
    linear = linear_of(signed_codes + 8, [[1], [2]])
    tensors = pack_linear(linear, "pack-quantized")
    assert_same_bits(tensors["weight_packed"], [[0x76543210], [signed(0xFEDCBA98)]], dtype=np.int32)
    assert_same_bits(tensors["weight_zero_point"], [[0x21]], dtype=np.int32)  # along the outputs
    assert_same_bits(tensors["weight_scale"], [[1], [2]], dtype=np.float16)
    assert_same_bits(tensors["weight_shape"], [2, 8], dtype=np.int64)


def test_pack_quantized_words_are_read():
    tensors = {
        "weight_packed": np.array([[0x76543210], [signed(0xFEDCBA98)]], dtype=np.int32),
        "weight_zero_point": np.array([[0x21]], dtype=np.int32),
        "weight_scale": np.ones((2, 1), dtype=np.float16),
        "weight_shape": np.array([2, 8], dtype=np.int64),
    }
    linear = unpack_linear(tensors, ONE_GROUP, "pack-quantized")
    assert_same_bits(linear.int_weight, [UP, [8, 9, 10, 11, 12, 13, 14, 15]], dtype=np.uint8)
    assert_same_bits(linear.zero_point, [[1], [2]], dtype=np.uint8)


def test_three_bit_words():
    codes = np.array([UP * 4], dtype=np.uint8)
    words = np.array([[signed(w) for w in (0x88FAC688, 0xC688FAC6, 0xFAC688FA)]], dtype=np.int32)
    assert_same_bits(pack_bitstream(codes, bits=3), words)
    assert_same_bits(unpack_bitstream(words, bits=3, n_codes=32), codes)


# --- The published quantizer ------------------------------------------------------------------------------------


def quantized(*values: float, **fields) -> QuantizedLinear:
    return quantize_linear(np.array([values], dtype=np.float32), spec=QuantSpec(group_size=-1, **fields))


@pytest.mark.parametrize("rule", ["zero", "minmax"])
@pytest.mark.parametrize("scale_dtype", ["float16", "float32"])
def test_four_bits(rule, scale_dtype):
    linear = quantized(-1, -0.5, 0.25, 0.875, range_rule=rule, scale_dtype=scale_dtype)
    assert_same_bits(linear.scales, [[0.125]], dtype=scale_dtype)
    assert_same_bits(linear.zero_point, [[8]], dtype=np.uint8)
    assert_same_bits(linear.int_weight, [[0, 4, 10, 15]], dtype=np.uint8)
    assert_same_bits(dequantize_linear(linear), [[-1, -0.5, 0.25, 0.875]], dtype=np.float32)


def test_three_bits():
    linear = quantized(-1, -0.5, 0.25, 0.875, bits=3, scale_dtype="float32")
    assert_same_bits(linear.scales, [[1.875 / 7]], dtype=np.float32)
    assert_same_bits(linear.zero_point, [[4]], dtype=np.uint8)
    assert_same_bits(linear.int_weight, [[0, 2, 5, 7]], dtype=np.uint8)
    # -4, -2, 1, 3 times 8987567 * 2**-25 = 0.26785713; three times it is 26962701, 25 bits: the tie goes to even
    expected = [[-1.0714285373687744, -0.5357142686843872, 0.2678571343421936, 0.803571403026581]]
    assert_same_bits(dequantize_linear(linear), expected, dtype=np.float32)


def test_symmetric_by_the_rule_of_autoawq():
    linear = quantized(-1, -0.5, 0.25, 0.875, symmetric=True, scale_dtype="float32")
    assert_same_bits(linear.scales, [[1 / 7]], dtype=np.float32)
    assert_same_bits(
        linear.int_weight, [[1, 5, 10, 14]], dtype=np.uint8
    )  # -7, -3, 2, 6: -3.5 / 1 ties off 0.5


# --- Degenerate groups ------------------------------------------------------------------------------------------

FLOOR = 11 * 2.0**-24  # 1e-5 / 15 in float16, subnormal


def test_all_zeros():
    linear = quantized(0, 0, 0, 0)
    assert_same_bits(linear.scales, [[FLOOR]], dtype=np.float16)
    assert_same_bits(linear.int_weight, [[0, 0, 0, 0]], dtype=np.uint8)
    assert_same_bits(dequantize_linear(linear), [[0, 0, 0, 0]], dtype=np.float32)


def test_a_range_below_the_floor():
    linear = quantized(0, 2e-6, 5e-6, 8e-6)
    assert_same_bits(linear.scales, [[FLOOR]], dtype=np.float16)
    assert_same_bits(linear.int_weight, [[0, 3, 8, 12]], dtype=np.uint8)


@pytest.mark.parametrize("value, code, zero_point", [(0.3, 15, 0), (-0.3, 0, 15)])
def test_a_constant_group_is_destroyed_by_minmax_and_kept_by_zero(value, code, zero_point):
    published = quantized(value, value, range_rule="minmax")
    ours = quantized(value, value)
    for linear in (published, ours):
        assert_same_bits(linear.int_weight, [[code, code]], dtype=np.uint8)
        assert_same_bits(linear.zero_point, [[zero_point]], dtype=np.uint8)
    assert_same_bits(published.scales, [[FLOOR]], dtype=np.float16)
    assert_same_bits(ours.scales, [[1311 * 2.0**-16]], dtype=np.float16)  # 0.3 / 15 = 0.02 = 1310.7 * 2**-16


def test_a_positive_group_saturates_under_minmax_alone():
    published = quantized(1, 1.25, 1.5, 2, range_rule="minmax", scale_dtype="float32")
    assert_same_bits(dequantize_linear(published), [[1, 1, 1, 1]], dtype=np.float32)
    ours = quantized(1, 1.25, 1.5, 1.875)  # 1.875 / 15 = 0.125
    assert_same_bits(ours.int_weight, [[8, 10, 12, 15]], dtype=np.uint8)
    assert_same_bits(dequantize_linear(ours), [[1, 1.25, 1.5, 1.875]], dtype=np.float32)
