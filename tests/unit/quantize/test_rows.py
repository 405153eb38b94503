from dataclasses import replace

import numpy as np
import pytest
from helpers.assertions import assert_same_bits

from awq_ref.errors import ShapeError, UnsupportedError
from awq_ref.quantize import dequantize_linear, join_rows, quantize_linear, take_rows
from awq_ref.spec import QuantSpec

SPEC = QuantSpec(group_size=4)


def drawn(rng, rows):
    return quantize_linear(rng.normal(0, 1, (rows, 8)).astype(np.float32), spec=SPEC)


def test_joined_linears_are_taken_apart_again(rng):
    parts = [drawn(rng, rows) for rows in (3, 1, 2)]
    joined = join_rows(parts)
    assert joined.int_weight.shape == (6, 8)
    assert joined.scales.shape == joined.zero_point.shape == (6, 2)
    for part, rows in zip(parts, (slice(0, 3), slice(3, 4), slice(4, 6)), strict=True):
        again = take_rows(joined, rows)
        assert_same_bits(again.int_weight, part.int_weight)
        assert_same_bits(again.scales, part.scales)
        assert_same_bits(again.zero_point, part.zero_point)


def test_the_rows_of_a_fused_weight_have_the_integers_of_its_parts(rng):
    weight = rng.normal(0, 1, (5, 8)).astype(np.float32)
    whole = quantize_linear(weight, spec=SPEC)
    parts = [quantize_linear(weight[rows], spec=SPEC) for rows in (slice(0, 2), slice(2, 5))]
    assert_same_bits(dequantize_linear(join_rows(parts)), dequantize_linear(whole))


def test_one_linear_is_itself(rng):
    linear = drawn(rng, 2)
    assert join_rows([linear]) is linear


def test_linears_of_different_inputs_are_refused(rng):
    other = quantize_linear(np.ones((2, 4), dtype=np.float32), spec=SPEC)
    with pytest.raises(ShapeError, match="the same in_features and spec; got 8 .*, 4 "):
        join_rows([drawn(rng, 2), other])


def test_rows_may_be_taken_in_another_order(rng):
    linear = drawn(rng, 4)
    order = np.array([2, 0, 3, 1], dtype=np.int64)
    turned = take_rows(linear, order)
    assert_same_bits(dequantize_linear(turned), dequantize_linear(linear)[order])
    again = take_rows(turned, np.argsort(order))
    assert_same_bits(again.int_weight, linear.int_weight)


def test_rows_keep_their_offsets_and_the_order_of_the_inputs(rng):
    linear = drawn(rng, 3)
    order = rng.permutation(8).astype(np.int64)
    offset = replace(
        linear, zero_point=np.zeros_like(linear.zero_point), offset=linear.scales, input_order=order
    )
    assert_same_bits(dequantize_linear(take_rows(offset, slice(1, 3))), dequantize_linear(offset)[1:])
    with pytest.raises(UnsupportedError, match="must have zero points, and their inputs in order"):
        join_rows([linear, offset])
