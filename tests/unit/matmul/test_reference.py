"""The two readable products: numbers worked by hand, and the factored one against its bound."""

import numpy as np
import pytest
from helpers.assertions import assert_close, assert_same_bits
from helpers.matmul_bounds import exact_product, factored_bound, random_linear

from awq_ref.errors import DtypeError, ShapeError
from awq_ref.matmul.planes import pack_planes
from awq_ref.matmul.reference import matmul_reference, packed_matmul_reference
from awq_ref.spec import QuantizedLinear, QuantSpec


def by_hand():
    """Weights (q - z) s = [-2, 1, 3] * 0.5 and [1, 0, -1] * 2, each row one group."""
    return QuantizedLinear(
        int_weight=np.array([[6, 9, 11], [3, 2, 1]], dtype=np.uint8),
        scales=np.array([[0.5], [2.0]], dtype=np.float16),
        zero_point=np.array([[8], [2]], dtype=np.uint8),
        spec=QuantSpec(bits=4, group_size=-1),
        bias=np.array([10.0, -1.0], dtype=np.float32),
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reference_by_hand(dtype):
    x = np.array([[1.0, 2.0, 4.0]], dtype=np.float32)
    y = matmul_reference(x, by_hand(), dtype=dtype)
    # -1 + 1 + 6 + 10;  2 + 0 - 8 - 1
    assert_same_bits(y, np.array([[16.0, -7.0]], dtype=dtype))


def test_reference_keeps_leading_axes_and_takes_no_bias():
    x = np.zeros((2, 0, 5, 64), dtype=np.float32)
    linear = random_linear(QuantSpec(group_size=32), out_features=3, n_groups=2)
    assert matmul_reference(x, linear).shape == (2, 0, 5, 3)


def test_reference_refuses():
    with pytest.raises(DtypeError, match="matmul_reference: x must be float32; got float64"):
        matmul_reference(np.zeros((1, 3), dtype=np.float64), by_hand())
    with pytest.raises(ShapeError, match=r"matmul_reference: x must have shape \(1, 3\); got \(1, 4\)"):
        matmul_reference(np.zeros((1, 4), dtype=np.float32), by_hand())


def test_factored_by_hand():
    # Row: codes 0..15 twice, s = 0.5, z = 8, x = 1: 0.5 * (240 - 8 * 32) = -8. With x = 1 for the first weight
    # and 2 for the last alone: 0.5 * (0 - 8 + 2 * (15 - 8)) = 3.
    int_weight = np.tile(np.arange(16, dtype=np.uint8), 2)[None]
    x = np.zeros((2, 32), dtype=np.float32)
    x[0], x[1, 0], x[1, 31] = 1.0, 1.0, 2.0
    scales, zero_point = np.array([[0.5]], dtype=np.float16), np.array([[8]], dtype=np.uint8)
    y = packed_matmul_reference(x, pack_planes(int_weight, 4), scales, zero_point, 4)
    assert_same_bits(y, np.array([[-8.0], [3.0]], dtype=np.float32))


@pytest.mark.parametrize("scale_dtype", ["float16", "float32"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_factored_within_its_bound(bits, scale_dtype):
    spec = QuantSpec(bits=bits, group_size=128, scale_dtype=scale_dtype)
    linear = random_linear(spec, out_features=7, n_groups=3)
    x = np.random.default_rng(1).normal(0, 1, (4, 384)).astype(np.float32)
    planes = pack_planes(linear.int_weight, bits)
    y = packed_matmul_reference(x, planes, linear.scales, linear.zero_point, bits)
    assert y.dtype == np.float32
    assert_close(y, exact_product(x, linear), atol=factored_bound(x, linear, nested=False))


def test_factored_refuses():
    linear = random_linear(QuantSpec(group_size=32), out_features=3, n_groups=1)
    arguments = pack_planes(linear.int_weight, 4), linear.scales, linear.zero_point, 4
    with pytest.raises(DtypeError, match="packed_matmul_reference: x must be float32; got float16"):
        packed_matmul_reference(np.zeros((1, 32), dtype=np.float16), *arguments)
    with pytest.raises(ShapeError, match=r"packed_matmul_reference: x must have shape \(any, any\)"):
        packed_matmul_reference(np.zeros(32, dtype=np.float32), *arguments)
