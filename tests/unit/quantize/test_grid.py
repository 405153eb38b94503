"""The grid of a group, worked by hand: [AWQ-1] and [AWQ-2]."""

import numpy as np
import pytest
from helpers.assertions import assert_same_bits

from awq_ref.errors import DtypeError, RangeError, ShapeError
from awq_ref.quantize import choose_grid, grid_of_range, group_range
from awq_ref.spec import BITS, QuantSpec


def row(*values: float) -> np.ndarray:
    return np.array([values], dtype=np.float32)


def spec_of(group_size: int = -1, **fields) -> QuantSpec:
    return QuantSpec(group_size=group_size, **fields)


def test_a_range_is_that_of_each_group():
    low, high = group_range(row(-1, 2, -3, 4), spec=spec_of(2))
    assert_same_bits(low, [[-1, -3]], dtype=np.float32)
    assert_same_bits(high, [[2, 4]], dtype=np.float32)


def test_a_range_is_widened_to_zero():
    low, high = group_range(row(10, 11, -3, -2), spec=spec_of(2))
    assert_same_bits(low, [[0, -3]], dtype=np.float32)
    assert_same_bits(high, [[11, 0]], dtype=np.float32)


def test_minmax_leaves_a_one_sided_range_alone():
    low, high = group_range(row(10, 11, -3, -2), spec=spec_of(2, range_rule="minmax"))
    assert_same_bits(low, [[10, -3]], dtype=np.float32)
    assert_same_bits(high, [[11, -2]], dtype=np.float32)


@pytest.mark.parametrize("rule, expected", [("zero", (0, 9, -1, 1, -2, 3)), ("minmax", (9, 9, -1, 1, -2, 3))])
def test_clip_comes_before_the_range_rule(rule, expected):
    clip = np.array([[9, 1, np.inf]], dtype=np.float32)
    low, high = group_range(row(10, 11, -4, 1, -2, 3), spec=spec_of(2, range_rule=rule), clip=clip)
    assert_same_bits(low, [expected[0::2]], dtype=np.float32)
    assert_same_bits(high, [expected[1::2]], dtype=np.float32)


@pytest.mark.parametrize(
    "bits, scale, zero_point",
    # 1.875 / 15 = 0.125 and -rint(-1 / 0.125) = 8; 1.875 / 7 = 0.267857.. -> float16 1097 * 2**-12
    [(4, 0.125, 8), (3, 1097 / 4096, 4), (2, 0.625, 2)],
)
def test_worked_example(bits, scale, zero_point):
    scales, zeros = choose_grid(row(-1, -0.5, 0.25, 0.875), spec=spec_of(bits=bits))
    assert_same_bits(scales, [[scale]], dtype=np.float16)
    assert_same_bits(zeros, [[zero_point]], dtype=np.uint8)


def test_worked_example_with_a_float32_scale():
    scales, zeros = choose_grid(row(-1, -0.5, 0.25, 0.875), spec=spec_of(bits=3, scale_dtype="float32"))
    assert_same_bits(scales, [[0.2678571343421936]], dtype=np.float32)  # 1.875 / 7, 24 bits
    assert_same_bits(zeros, [[4]], dtype=np.uint8)


def test_symmetric_reaches_the_largest_magnitude():
    weight = row(-1.75, -0.5, 0.25, 0.875)  # 1.75 / 7 = 0.25
    scales, zeros = choose_grid(weight, spec=spec_of(symmetric=True))
    assert_same_bits(scales, [[0.25]], dtype=np.float16)
    assert_same_bits(zeros, [[8]], dtype=np.uint8)


@pytest.mark.parametrize("rule", ["zero", "minmax"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_symmetric_ignores_the_range_rule(rule, sign):
    scales, _ = choose_grid(row(7 * sign, 3.5 * sign), spec=spec_of(symmetric=True, range_rule=rule))
    assert_same_bits(scales, [[1.0]], dtype=np.float16)


def test_the_scale_of_zeros_is_the_floor():
    scales, zeros = choose_grid(np.zeros((1, 4), dtype=np.float32), spec=spec_of())
    assert_same_bits(scales, [[11 * 2.0**-24]], dtype=np.float16)  # 1e-5 / 15 = 11.18 * 2**-24: subnormal
    assert_same_bits(zeros, [[0]], dtype=np.uint8)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", BITS)
def test_no_scale_is_stored_as_zero(bits, symmetric):
    scales, _ = choose_grid(np.zeros((1, 4), dtype=np.float32), spec=spec_of(bits=bits, symmetric=symmetric))
    assert (scales >= 2.0**-24).all()


def test_the_zero_point_comes_from_the_scale_as_stored():
    # The exact scale 1 + 2**-12 is stored as 1: numbers above 1 lie 2**-10 apart. 100.51 / 1 rounds to 101,
    # 100.51 / (1 + 2**-12) = 100.4855 would round to 100.
    scales, zeros = grid_of_range(row(-100.51), row(255 * (1 + 2.0**-12) - 100.51), spec=spec_of(bits=8))
    assert_same_bits(scales, [[1.0]], dtype=np.float16)
    assert_same_bits(zeros, [[101]], dtype=np.uint8)


def test_a_constant_group_under_minmax_saturates_as_published():
    scales, zeros = choose_grid(row(0.3, 0.3), spec=spec_of(range_rule="minmax"))
    assert_same_bits(scales, [[11 * 2.0**-24]], dtype=np.float16)
    assert_same_bits(zeros, [[0]], dtype=np.uint8)
    _, zeros = choose_grid(row(-0.3, -0.3), spec=spec_of(range_rule="minmax"))
    assert_same_bits(zeros, [[15]], dtype=np.uint8)


def test_a_far_constant_group_under_minmax_does_not_overflow():
    spec = spec_of(range_rule="minmax")
    _, zeros = choose_grid(row(-3e38, -3e38), spec=spec)  # lo / delta is beyond float32
    assert_same_bits(zeros, [[15]], dtype=np.uint8)


def test_the_largest_float16_scale_is_stored_and_the_next_is_an_error():
    weight = np.zeros((3, 8), dtype=np.float32)
    weight[1, 6] = 65504 * 15.0
    scales, _ = choose_grid(weight, spec=spec_of(4))
    assert float(scales[1, 1]) == 65504.0
    weight[1, 6] = 65520 * 15.0  # half way to the number after the largest: rounds to infinity
    with pytest.raises(RangeError, match=r"choose_grid: a scale must fit float16.*65520 in row 1, group 1"):
        choose_grid(weight, spec=spec_of(4))
    scales, _ = choose_grid(weight, spec=spec_of(4, scale_dtype="float32"))
    assert_same_bits(scales[1, 1:], [65520], dtype=np.float32)


def test_a_range_wider_than_float32_is_an_error():
    with pytest.raises(RangeError, match=r"must fit float32.*inf in row 0, group 0"):
        choose_grid(row(-3e38, 3e38), spec=spec_of(scale_dtype="float32"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_an_error(bad):
    weight = np.zeros((3, 8), dtype=np.float32)
    weight[2, 5] = bad
    with pytest.raises(RangeError, match=rf"group_range: weight must be finite; got {bad} in row 2, group 1"):
        group_range(weight, spec=spec_of(4))


@pytest.mark.parametrize("bad", [np.nan, -0.5])
def test_a_clip_that_is_no_limit_is_an_error(bad):
    clip = np.array([[1.0, bad]], dtype=np.float32)
    with pytest.raises(RangeError, match=rf"clip must be at least 0; got {bad} in row 0, group 1"):
        group_range(row(1, 2, 3, 4), spec=spec_of(2), clip=clip)


def test_wrong_dtypes_are_errors():
    with pytest.raises(DtypeError, match="weight must be float32; got float64"):
        group_range(np.zeros((1, 4), dtype=np.float64), spec=spec_of())
    with pytest.raises(DtypeError, match="clip must be float32; got float64"):
        group_range(row(1, 2), spec=spec_of(), clip=np.ones((1, 1), dtype=np.float64))


def test_wrong_shapes_are_errors():
    with pytest.raises(ShapeError, match=r"weight must have shape \(any, any\); got \(4,\)"):
        group_range(np.zeros(4, dtype=np.float32), spec=spec_of())
    with pytest.raises(ShapeError, match="at least one row and one column"):
        group_range(np.zeros((2, 0), dtype=np.float32), spec=spec_of())
    with pytest.raises(ShapeError, match="group_size must divide in_features.*group_size=3, in_features=4"):
        group_range(row(1, 2, 3, 4), spec=spec_of(3))
    with pytest.raises(ShapeError, match=r"clip must have shape \(1, 2\); got \(1, 1\)"):
        group_range(row(1, 2, 3, 4), spec=spec_of(2), clip=np.ones((1, 1), dtype=np.float32))
