"""Codes and back, worked by hand: [AWQ-3] and [AWQ-4], and the layer that carries them."""

import numpy as np
import pytest
from helpers.assertions import assert_same_bits, frozen

from awq_ref.errors import DtypeError, RangeError, ShapeError
from awq_ref.quantize import dequantize, dequantize_linear, quantize, quantize_linear
from awq_ref.spec import QuantizedLinear, QuantSpec

WEIGHT = np.array([[-1.0, -0.5, 0.25, 0.875]], dtype=np.float32)
SCALE = np.array([[0.125]], dtype=np.float16)
EIGHT = np.array([[8]], dtype=np.uint8)
SPEC = QuantSpec(bits=4, group_size=4)


def one(value, dtype) -> np.ndarray:
    return np.array([[value]], dtype=dtype)


def test_worked_example():
    codes = quantize(WEIGHT, SCALE, EIGHT, spec=SPEC)
    assert_same_bits(codes, [[0, 4, 10, 15]], dtype=np.uint8)
    assert_same_bits(dequantize(codes, SCALE, EIGHT), WEIGHT)


@pytest.mark.parametrize("z, expected", [(0, [0, 2, 2, 4]), (1, [1, 3, 3, 5]), (2, [2, 4, 4, 6])])
def test_ties_go_to_even_before_the_zero_point_is_added(z, expected):
    weight = np.array([[0.5, 1.5, 2.5, 3.5]], dtype=np.float32)
    codes = quantize(weight, one(1.0, np.float16), one(z, np.uint8), spec=SPEC)
    assert_same_bits(codes, [expected], dtype=np.uint8)


def test_each_group_has_its_own_grid():
    weight = np.array([[1, 2, 10, 20], [-1, -2, -10, -20]], dtype=np.float32)
    scales = np.array([[1, 10], [1, 10]], dtype=np.float16)
    zero_point = np.array([[0, 1], [2, 3]], dtype=np.uint8)
    codes = quantize(weight, scales, zero_point, spec=QuantSpec(bits=2, group_size=2))
    assert_same_bits(codes, [[1, 2, 2, 3], [1, 0, 2, 1]], dtype=np.uint8)
    assert_same_bits(dequantize(codes, scales, zero_point), weight)


def test_a_weight_beyond_the_grid_takes_its_end():
    weight = np.array([[-3e38, -2.0, 2.0, 3e38]], dtype=np.float32)
    assert_same_bits(quantize(weight, SCALE, EIGHT, spec=SPEC), [[0, 0, 15, 15]], dtype=np.uint8)
    smallest = one(2.0**-24, np.float16)  # 3e38 / 2**-24 is beyond float32
    assert_same_bits(quantize(weight, smallest, EIGHT, spec=SPEC), [[0, 0, 15, 15]], dtype=np.uint8)


def test_the_difference_of_codes_does_not_wrap():
    weight = dequantize(one(3, np.uint8), one(1.0, np.float16), EIGHT)
    assert_same_bits(weight, [[-5.0]], dtype=np.float32)  # 251 in uint8


def test_an_offset_is_added_to_the_product():
    codes = np.array([[0, 3, 15, 1]], dtype=np.uint8)
    scales, offset = np.array([[0.5, -2]], dtype=np.float16), np.array([[-1.25, 7]], dtype=np.float16)
    zeros = np.zeros((1, 2), dtype=np.uint8)
    weight = dequantize(codes, scales, zeros, offset)
    assert_same_bits(weight, [[-1.25, 0.25, -23.0, 5.0]], dtype=np.float32)


def test_an_offset_that_does_not_fit_is_an_error():
    zeros = one(0, np.uint8)
    with pytest.raises(ShapeError, match=r"offset must have shape \(1, 1\); got \(1, 2\)"):
        dequantize(one(3, np.uint8), SCALE, zeros, np.zeros((1, 2), dtype=np.float16))
    with pytest.raises(DtypeError, match="offset must be float16 or float32; got float64"):
        dequantize(one(3, np.uint8), SCALE, zeros, np.zeros((1, 1), dtype=np.float64))


def test_columns_come_back_in_the_order_of_the_inputs():
    codes, scales = np.array([[0, 1, 2, 3]], dtype=np.uint8), np.array([[1, 10]], dtype=np.float16)
    order = np.array([2, 0, 3, 1], dtype=np.int64)  # input 2 has code 0, input 0 code 1, ...
    zeros = np.zeros((1, 2), dtype=np.uint8)
    linear = QuantizedLinear(codes, scales, zeros, QuantSpec(group_size=2), input_order=order)
    assert_same_bits(dequantize_linear(linear), [[1.0, 30.0, 0.0, 20.0]], dtype=np.float32)


@pytest.mark.parametrize(
    "fields, error, match",
    [
        ({"offset": np.zeros((1, 2), dtype=np.float16)}, ShapeError, "offset must have shape"),
        ({"offset": np.zeros((1, 1), dtype=np.float32)}, DtypeError, "offset must be float16"),
        (
            {"offset": np.zeros((1, 1), dtype=np.float16)},
            RangeError,
            "zero_point must be 0 everywhere beside an offset; got 8",
        ),
        ({"input_order": np.arange(3, dtype=np.int64)}, ShapeError, r"input_order must have shape \(4\)"),
        ({"input_order": np.arange(4, dtype=np.int32)}, DtypeError, "input_order must be int64"),
        ({"input_order": np.array([0, 1, 1, 3], dtype=np.int64)}, RangeError, "each of 0 to 3 once"),
    ],
)
def test_what_a_linear_cannot_be(fields, error, match):
    with pytest.raises(error, match=f"QuantizedLinear: .*{match}"):
        QuantizedLinear(np.zeros((1, 4), dtype=np.uint8), SCALE, EIGHT, SPEC, **fields)


def test_a_code_equal_to_the_zero_point_is_plus_zero():
    codes = quantize(np.array([[-0.01, -0.0]], dtype=np.float32), SCALE, EIGHT, spec=QuantSpec(group_size=2))
    assert_same_bits(dequantize(codes, SCALE, EIGHT), [[0.0, 0.0]], dtype=np.float32)


def test_a_float32_scale_is_rounded_once():
    third = one(1 / 3, np.float32)  # 11184811 * 2**-25
    weight = dequantize(one(255, np.uint8), third, one(0, np.uint8))
    # 255 * 11184811 = 2852126805, 32 bits: in steps of 2**8 it is nearest to 11141120 * 2**8
    assert_same_bits(weight, [[85.0]], dtype=np.float32)


def test_a_weight_larger_than_a_tile_is_quantized_whole():
    weight = np.tile(WEIGHT, (300, 100))  # 120000 weights, two tiles
    scales, zeros = np.tile(SCALE, (300, 100)), np.tile(EIGHT, (300, 100))
    codes = quantize(weight, scales, zeros, spec=SPEC)
    assert_same_bits(codes, np.tile(np.array([[0, 4, 10, 15]], dtype=np.uint8), (300, 100)))
    assert_same_bits(dequantize(codes, scales, zeros), weight)


def test_a_layer_keeps_its_bias_and_its_spec():
    bias = np.array([0.5], dtype=np.float32)
    linear = quantize_linear(WEIGHT, spec=SPEC, bias=bias)
    assert linear.bias is bias
    assert linear.spec is SPEC
    assert_same_bits(linear.int_weight, [[0, 4, 10, 15]], dtype=np.uint8)
    assert_same_bits(linear.scales, SCALE)
    assert_same_bits(linear.zero_point, EIGHT)
    assert_same_bits(dequantize_linear(linear), WEIGHT)


def test_a_clip_clamps_the_weights_and_does_not_only_narrow_the_grid():
    weight = np.array([[-1.9, -0.5, 0.25, 0.875]], dtype=np.float32)
    clip = one(0.875, np.float32)
    linear = quantize_linear(weight, spec=QuantSpec(group_size=4, symmetric=True), clip=clip)
    assert_same_bits(linear.scales, SCALE)  # 0.875 / 7
    # -0.875 has the code 1; -1.9 on the same grid would have saturated at 0, which stands for -1
    assert_same_bits(linear.int_weight, [[1, 4, 10, 15]], dtype=np.uint8)


def test_an_infinite_clip_changes_nothing():
    linear = quantize_linear(WEIGHT, spec=SPEC, clip=one(np.inf, np.float32))
    assert_same_bits(linear.int_weight, [[0, 4, 10, 15]], dtype=np.uint8)


def test_a_clip_of_zero_removes_the_group():
    linear = quantize_linear(WEIGHT, spec=SPEC, clip=one(0.0, np.float32))
    assert_same_bits(dequantize_linear(linear), np.zeros((1, 4), dtype=np.float32))


def test_inputs_may_be_read_only_and_strided():
    weight = frozen(np.repeat(WEIGHT, 2, axis=1))[:, ::2]
    assert_same_bits(
        quantize(weight, frozen(SCALE), frozen(EIGHT), spec=SPEC), [[0, 4, 10, 15]], dtype=np.uint8
    )


def test_quantize_names_a_wrong_dtype():
    with pytest.raises(DtypeError, match="quantize: weight must be float32; got float64"):
        quantize(WEIGHT.astype(np.float64), SCALE, EIGHT, spec=SPEC)
    with pytest.raises(DtypeError, match="scales must be float16; got float32"):
        quantize(WEIGHT, SCALE.astype(np.float32), EIGHT, spec=SPEC)
    with pytest.raises(DtypeError, match="zero_point must be uint8; got int32"):
        quantize(WEIGHT, SCALE, EIGHT.astype(np.int32), spec=SPEC)


def test_quantize_names_a_wrong_shape():
    with pytest.raises(ShapeError, match=r"weight must have shape \(any, any\)"):
        quantize(WEIGHT[0], SCALE, EIGHT, spec=SPEC)
    with pytest.raises(ShapeError, match="at least one row"):
        quantize(WEIGHT[:0], SCALE, EIGHT, spec=SPEC)
    with pytest.raises(ShapeError, match="group_size must divide in_features"):
        quantize(WEIGHT, SCALE, EIGHT, spec=QuantSpec(group_size=3))
    with pytest.raises(ShapeError, match=r"scales must have shape \(1, 1\); got \(1, 2\)"):
        quantize(WEIGHT, np.repeat(SCALE, 2, axis=1), EIGHT, spec=SPEC)


def test_quantize_names_a_wrong_value():
    nan = np.full((1, 4), np.nan, dtype=np.float32)
    with pytest.raises(RangeError, match=r"weight must be finite; got nan at index \(0, 0\)"):
        quantize(nan, SCALE, EIGHT, spec=SPEC)
    with pytest.raises(RangeError, match="scales must be finite; got inf"):
        quantize(WEIGHT, one(np.inf, np.float16), EIGHT, spec=SPEC)
    with pytest.raises(RangeError, match=r"scales must be positive; got 0\.0"):
        quantize(WEIGHT, one(0, np.float16), EIGHT, spec=SPEC)
    with pytest.raises(RangeError, match="zero_point must be at most 15; got 16"):
        quantize(WEIGHT, SCALE, one(16, np.uint8), spec=SPEC)


def test_dequantize_names_a_wrong_dtype():
    codes = np.zeros((1, 4), dtype=np.uint8)
    with pytest.raises(DtypeError, match="int_weight must be uint8; got int8"):
        dequantize(codes.astype(np.int8), SCALE, EIGHT)
    with pytest.raises(DtypeError, match="zero_point must be uint8; got int8"):
        dequantize(codes, SCALE, EIGHT.astype(np.int8))
    with pytest.raises(DtypeError, match="scales must be float16 or float32; got float64"):
        dequantize(codes, SCALE.astype(np.float64), EIGHT)


def test_dequantize_names_a_wrong_shape():
    codes = np.zeros((1, 4), dtype=np.uint8)
    with pytest.raises(ShapeError, match=r"int_weight must have shape \(any, any\)"):
        dequantize(codes[0], SCALE, EIGHT)
    with pytest.raises(ShapeError, match=r"zero_point must have shape \(1, 1\); got \(1, 2\)"):
        dequantize(codes, SCALE, np.repeat(EIGHT, 2, axis=1))
    with pytest.raises(
        ShapeError, match="number of groups must divide in_features; got 3 columns of scales for 4"
    ):
        dequantize(codes, np.repeat(SCALE, 3, axis=1), np.repeat(EIGHT, 3, axis=1))


def test_quantize_linear_names_the_row_and_the_group():
    weight = np.zeros((2, 8), dtype=np.float32)
    weight[1, 4] = np.nan
    with pytest.raises(RangeError, match="quantize_linear: weight must be finite; got nan in row 1, group 1"):
        quantize_linear(weight, spec=SPEC)
    with pytest.raises(DtypeError, match="quantize_linear: weight must be float32"):
        quantize_linear(weight.astype(np.float16), spec=SPEC)
    with pytest.raises(ShapeError, match=r"quantize_linear: clip must have shape \(2, 2\)"):
        quantize_linear(np.zeros((2, 8), dtype=np.float32), spec=SPEC, clip=one(1, np.float32))
