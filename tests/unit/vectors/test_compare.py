"""The three rules of comparison, worked by hand."""

import numpy as np
import pytest

from awq_ref.vectors.case import Case, exact, within_bound, within_ulps
from awq_ref.vectors.compare import compare_outputs, ulps_between

F32 = np.float32


def judge(expected, answer):
    return compare_outputs({"y": answer}, Case("L0/t/c", {}, {}, {"y": expected}, "c", "s"))


def test_exact_is_every_value_dtype_and_shape():
    expected = exact([[1, 2], [3, 4]], "uint8")
    assert judge(expected, np.array([[1, 2], [3, 4]], dtype=np.uint8)) is None
    assert judge(expected, np.array([[1, 2], [3, 5]], dtype=np.uint8)) == (
        "y: 1 of 4 elements differ; first at [1, 1]: expected 4, got 5"
    )
    assert "dtype" in judge(expected, np.array([[1, 2], [3, 4]], dtype=np.int8))
    assert "shape" in judge(expected, np.array([1, 2, 3, 4], dtype=np.uint8))


def test_words_are_shown_in_hexadecimal():
    text = judge(exact([-1966171169], "int32"), np.array([1966171168], dtype=np.int32))
    assert "(0x8ace9bdf)" in text
    assert "(0x75316420)" in text


def test_the_sign_of_a_zero_is_not_compared_and_nan_never_passes():
    assert judge(exact([0.0], "float16"), np.array([-0.0], dtype=np.float16)) is None
    assert judge(exact([0.0], "float16"), np.array([np.nan], dtype=np.float16)) is not None
    assert judge(within_ulps([0.0], "float32", 5, "w"), np.array([np.nan], dtype=F32)) is not None
    assert judge(within_bound([0.0], [1.0], "w"), np.array([np.nan], dtype=F32)) is not None


def test_ulps_are_counted_across_zero():
    one, tiny = F32(1.0), np.finfo(F32).smallest_subnormal
    assert ulps_between(np.array([one]), np.array([np.nextafter(one, F32(2))])).tolist() == [1.0]
    assert ulps_between(np.array([tiny]), np.array([-tiny])).tolist() == [2.0]
    expected = within_ulps([1.0], "float32", 2, "w")
    assert judge(expected, np.array([1.0 + 2 * 2.0**-23], dtype=F32)) is None
    assert "allowed 2 ulps" in judge(expected, np.array([1.0 + 3 * 2.0**-23], dtype=F32))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_bound_takes_any_float(dtype):
    expected = within_bound([1.0, 2.0], [0.25, 0.5], "w")
    assert judge(expected, np.array([1.25, 1.5], dtype=dtype)) is None
    text = judge(expected, np.array([1.0, 3.0], dtype=dtype))
    assert "first at [1]: expected 2, got 3; allowed 0.5; worst 2 times the bound" in text
    assert judge(expected, np.array([np.inf, 2.0], dtype=dtype)) is not None


def test_outputs_must_be_those_that_are_asked_for():
    case = Case("L0/t/c", {}, {}, {"y": exact([1], "uint8")}, "c", "s")
    y = np.array([1], dtype=np.uint8)
    assert "missing: ['y']; unknown: ['z']" in compare_outputs({"z": y}, case)
    assert compare_outputs({"y": y}, case) is None
