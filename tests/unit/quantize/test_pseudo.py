"""The float round trip, worked by hand; that it has the bits of the integer path is a law (tests/property)."""

import numpy as np
import pytest
from helpers.assertions import assert_same_bits, frozen

from awq_ref.errors import DtypeError, RangeError, ShapeError
from awq_ref.quantize import pseudo_quantize
from awq_ref.spec import QuantSpec

SPEC = QuantSpec(bits=4, group_size=4)
WEIGHT = np.array([[-1.0, -0.5, 0.3, 0.875]], dtype=np.float32)


def test_worked_example():
    result = pseudo_quantize(frozen(WEIGHT), spec=SPEC)
    assert_same_bits(result, [[-1.0, -0.5, 0.25, 0.875]], dtype=np.float32)  # step 0.125


def test_no_minus_zero_comes_back():
    weight = np.array([[-1.0, -0.01, -0.0, 0.875]], dtype=np.float32)
    assert_same_bits(pseudo_quantize(weight, spec=SPEC), [[-1.0, 0.0, 0.0, 0.875]], dtype=np.float32)


def test_a_clip_clamps_the_weights():
    weight = np.array([[-1.9, -0.5, 0.25, 0.875]], dtype=np.float32)
    spec = QuantSpec(group_size=4, symmetric=True)
    result = pseudo_quantize(weight, spec=spec, clip=np.array([[0.875]], dtype=np.float32))
    assert_same_bits(result, [[-0.875, -0.5, 0.25, 0.875]], dtype=np.float32)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_minmax_destroys_a_one_sided_group_as_published(sign):
    weight = np.array([[1, 1.25, 1.5, 2]], dtype=np.float32) * np.float32(sign)
    result = pseudo_quantize(weight, spec=QuantSpec(group_size=4, range_rule="minmax", scale_dtype="float32"))
    assert_same_bits(result, np.full((1, 4), sign, dtype=np.float32))  # 15 steps of (2 - 1) / 15


@pytest.mark.parametrize("far", [3e38, -3e38])
def test_minmax_holds_far_constant_groups_at_the_end_of_their_grid(far):
    weight = np.array([[far] * 4 + [-1.0, -0.5, 0.3, 0.875]], dtype=np.float32)  # quotients beyond float32
    result = pseudo_quantize(weight, spec=QuantSpec(group_size=4, range_rule="minmax"))
    end = 15 * 11 * 2.0**-24 * np.sign(far)  # the floor 1e-5 / 15 is stored as 11 * 2**-24
    assert_same_bits(result, [[end] * 4 + [-1.0, -0.5, 0.25, 0.875]], dtype=np.float32)


def test_errors_name_the_function_and_the_place():
    bad = WEIGHT.copy()
    bad[0, 2] = np.inf
    with pytest.raises(RangeError, match="pseudo_quantize: weight must be finite; got inf in row 0, group 0"):
        pseudo_quantize(bad, spec=SPEC)
    with pytest.raises(RangeError, match="pseudo_quantize: a scale must fit float16"):
        pseudo_quantize(WEIGHT * np.float32(1e7), spec=SPEC)
    with pytest.raises(DtypeError, match="pseudo_quantize: weight must be float32"):
        pseudo_quantize(WEIGHT.astype(np.float16), spec=SPEC)
    with pytest.raises(ShapeError, match="pseudo_quantize: group_size must divide"):
        pseudo_quantize(WEIGHT, spec=QuantSpec(group_size=3))
