"""The comparisons themselves: what they let pass, what they refuse, and what they say."""

import re

import numpy as np
import pytest
from helpers.assertions import assert_close, assert_same_bits, frozen


def array(*values, dtype=np.float32):
    return np.array(values, dtype=dtype)


def test_same_bits_passes_equal_arrays_and_lists():
    assert_same_bits(array(1.0, -2.5), array(1.0, -2.5))
    assert_same_bits(array(3, 4, dtype=np.uint8), [3, 4])
    assert_same_bits(np.zeros((0, 3), dtype=np.int32), np.zeros((0, 3), dtype=np.int32))
    assert_same_bits(np.array(7, dtype=np.int32), np.array(7, dtype=np.int32))


def test_same_bits_sees_a_nan_as_equal_to_itself():
    assert_same_bits(array(np.nan), array(np.nan))


def test_same_bits_reads_strided_arrays_by_value():
    whole = np.arange(12, dtype=np.int32).reshape(3, 4)
    assert_same_bits(whole.T[::2], [[0, 4, 8], [2, 6, 10]])


@pytest.mark.parametrize(
    ("actual", "expected", "message"),
    [
        (array(1.0), array(1.0, dtype=np.float64), "dtype float32, expected float64"),
        (array(1.0), array(1.0, 2.0), r"shape \(1,\), expected \(2,\)"),
        (array(0.0), array(-0.0), "not the same bits: 1 of 1"),
        (array(1, 2, 9, 4, dtype=np.uint8), array(1, 2, 3, 4, dtype=np.uint8), r"1 of 4 elements \(25.0%\)"),
    ],
)
def test_same_bits_refuses(actual, expected, message):
    with pytest.raises(AssertionError, match=message):
        assert_same_bits(actual, expected)


def test_same_bits_refuses_a_list_read_in_another_dtype():
    with pytest.raises(AssertionError, match="dtype float32, expected float16"):
        assert_same_bits(array(1.0), [1.0], dtype=np.float16)


def test_close_passes_up_to_the_bound_itself():
    assert_close(array(1.5, 2.0), [1.0, 2.0], atol=0.5)
    assert_close(array(110.0), [100.0], rtol=0.1)
    assert_close(array(1.5, 3.0), [1.0, 2.0], atol=array(0.5, 1.0))
    assert_close(array(np.inf), [np.inf])


def test_close_names_first_and_worst():
    actual, expected = array(0.0, 1.5, 0.0, 9.0), [0.0, 1.0, 0.0, 2.0]
    with pytest.raises(AssertionError) as failure:
        assert_close(actual, expected, atol=0.25)
    text = str(failure.value)
    assert "2 of 4 elements (50.0%)" in text
    assert re.search(r"first at \(1,\): got .*1\.5.* apart by 5\.000e-01, allowed 2\.500e-01", text)
    assert re.search(r"worst at \(3,\): got .*9\.0.* apart by 7\.000e\+00", text)


@pytest.mark.parametrize("actual", [array(np.nan), array(np.inf)])
def test_close_refuses_nan_and_infinity_at_any_bound(actual):
    with pytest.raises(AssertionError, match="not close"):
        assert_close(actual, [1.0], atol=1e30)


def test_close_refuses_a_nan_that_was_expected():
    with pytest.raises(AssertionError, match="not close"):
        assert_close(array(np.nan), [np.nan], atol=1.0)


def test_close_refuses_another_shape():
    with pytest.raises(AssertionError, match="shape"):
        assert_close(array(1.0, 1.0), [1.0], atol=1.0)


def test_frozen_is_a_copy_that_cannot_be_written():
    original = array(1.0, 2.0)
    copy = frozen(original)
    original[0] = 5.0
    assert copy[0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        copy[0] = 3.0
