"""DenseLinear by hand, and what it refuses."""

import numpy as np
import pytest
from helpers.assertions import assert_close, assert_same_bits, frozen
from helpers.matmul_bounds import gamma

from awq_ref.errors import DtypeError, ShapeError
from awq_ref.matmul import dense
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


def with_threads(monkeypatch, linear, x, numbers):
    found = []
    for n_threads in numbers:
        monkeypatch.setattr(dense, "default_threads", lambda n=n_threads: n)
        found.append(linear(x))
    return found


@pytest.mark.parametrize("n_tokens", [1, 5, 1152])  # a vector; outputs are shared; tokens are
def test_the_number_of_threads_does_not_change_the_sums(monkeypatch, n_tokens):
    # Shares of 576 and 384, multiples of 192 (every width at which a BLAS kernel ends divides them) and too large for
    # the kernels of small products.
    rng = np.random.default_rng(0)
    linear = DenseLinear(rng.normal(0, 1, (1152, 1824)).astype(np.float32))
    x = rng.normal(0, 1, (n_tokens, 1824)).astype(np.float32)
    one, *others = with_threads(monkeypatch, linear, x, (1, 2, 3))
    for y in others:
        assert_same_bits(y, one)


@pytest.mark.parametrize(("out_features", "n_tokens"), [(739, 2), (95, 33), (1440, 8)])
def test_small_shares_stay_within_the_bound(monkeypatch, out_features, n_tokens):
    """BLAS may add a share's sums in another order than the whole's: n - 1 additions and a product, in any order.

    With one more unit for the float64 product, as in helpers/matmul_bounds.py, k = n + 1.
    """
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 1, (out_features, 1439)).astype(np.float32)
    x = rng.normal(0, 1, (n_tokens, 1439)).astype(np.float32)
    exact = x.astype(np.float64) @ weight.T.astype(np.float64)
    bound = gamma(1439 + 1) * (np.abs(x).astype(np.float64) @ np.abs(weight.T).astype(np.float64))
    for y in with_threads(monkeypatch, DenseLinear(weight), x, (1, 3, 8)):
        assert_close(y, exact, atol=bound)
