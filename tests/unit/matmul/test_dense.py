"""DenseLinear by hand, and what it refuses."""

import numpy as np
import pytest
from helpers.assertions import assert_same_bits, frozen

from awq_ref.errors import DtypeError, ShapeError
from awq_ref.matmul.dense import DenseLinear

WEIGHT = np.array([[1.0, 2.0, 3.0], [-1.0, 0.0, 0.5]], dtype=np.float32)
BIAS = np.array([0.25, -4.0], dtype=np.float32)


def test_by_hand():
    x = np.array([[[1.0, 1.0, 1.0]], [[2.0, 0.0, 4.0]]], dtype=np.float32)
    expected = np.array([[[6.25, -4.5]], [[14.25, -4.0]]], dtype=np.float32)
    assert_same_bits(DenseLinear(frozen(WEIGHT), frozen(BIAS))(frozen(x)), expected)
    assert_same_bits(DenseLinear(WEIGHT)(x), expected - BIAS)


def test_what_it_holds():
    linear = DenseLinear(WEIGHT, BIAS)
    assert (linear.in_features, linear.out_features, linear.residency) == (3, 2, "dense")
    assert linear.resident_bytes == 2 * 3 * 4 + 2 * 4
    assert DenseLinear(WEIGHT).resident_bytes == 2 * 3 * 4


def test_an_empty_batch():
    assert DenseLinear(WEIGHT)(np.zeros((0, 3), dtype=np.float32)).shape == (0, 2)


def test_refuses():
    with pytest.raises(ShapeError, match=r"DenseLinear: weight must have shape \(any, any\)"):
        DenseLinear(BIAS)
    with pytest.raises(DtypeError, match="DenseLinear: weight must be float32; got float64"):
        DenseLinear(WEIGHT.astype(np.float64))
    with pytest.raises(ShapeError, match=r"DenseLinear: bias must have shape \(2\)"):
        DenseLinear(WEIGHT, BIAS[:1])
    with pytest.raises(DtypeError, match="DenseLinear: bias must be float32"):
        DenseLinear(WEIGHT, BIAS.astype(np.float16))
    with pytest.raises(DtypeError, match="DenseLinear: x must be float32"):
        DenseLinear(WEIGHT)(np.zeros((1, 3), dtype=np.float64))
    with pytest.raises(ShapeError, match=r"DenseLinear: x must have shape \(1, 3\)"):
        DenseLinear(WEIGHT)(np.zeros((1, 2), dtype=np.float32))
