import numpy as np
import pytest
from helpers.gptq_oracle import oracle_loss

from awq_ref.errors import RangeError, ShapeError
from awq_ref.quantize import dequantize_linear, descend_codes, quantize_linear
from awq_ref.spec import QuantizedLinear, QuantSpec


def by_loops(weight, gram, linear, order):
    """One pass of [GPTQ-4], weight by weight, the gradient formed anew each time, in float64."""
    w, c = weight.astype(np.float64), gram.astype(np.float64)
    codes = linear.int_weight.astype(int)
    for row in range(len(w)):
        for i in order:
            group = i // linear.group_size
            delta, z = float(linear.scales[row, group]), int(linear.zero_point[row, group])
            scales = np.repeat(linear.scales[row].astype(np.float64), linear.group_size)
            zeros = np.repeat(linear.zero_point[row].astype(int), linear.group_size)
            rounded = (codes[row] - zeros) * scales
            gradient = ((rounded - w[row]) * c[i]).sum()
            code = round((rounded[i] - gradient / c[i, i]) / delta) + z
            codes[row, i] = min(max(code, 0), linear.spec.qmax)
    return codes


def test_two_correlated_weights_by_hand():
    # w = (0.4, 0.4), step 1, C = [[1, 0.9], [0.9, 1]], from (0, 0). Column 1: 0 + 0.9 * 0.4 + 0.4 = 0.76 -> 1.
    # Column 2: the error of column 1 is now +0.6; 0 - (0.9 * 0.6 - 0.4) = -0.14 -> 0. Loss 0.608 -> 0.088.
    gram = np.array([[1.0, 0.9], [0.9, 1.0]], dtype=np.float32)
    linear = QuantizedLinear(
        np.zeros((1, 2), dtype=np.uint8),
        np.ones((1, 1), dtype=np.float16),
        np.zeros((1, 1), dtype=np.uint8),
        QuantSpec(bits=4, group_size=2),
    )
    codes = descend_codes(np.array([[0.4, 0.4]], dtype=np.float32), gram, np.arange(2), linear)
    assert codes.dtype == np.uint8
    assert codes.tolist() == [[1, 0]]


@pytest.mark.parametrize("in_features", [24, 160])
def test_it_is_the_loop(in_features):
    rng = np.random.default_rng(in_features)
    x = rng.normal(size=(4 * in_features, in_features)) @ rng.normal(size=(in_features, in_features))
    gram = (x.T @ x / len(x)).astype(np.float32)
    weight = rng.normal(size=(2, in_features)).astype(np.float32)
    linear = quantize_linear(weight, spec=QuantSpec(bits=3, group_size=8))
    order = rng.permutation(in_features)
    assert (descend_codes(weight, gram, order, linear) == by_loops(weight, gram, linear, order)).all()


def test_more_passes_go_on():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 32)) @ rng.normal(size=(32, 32))
    gram, weight = (x.T @ x / 200).astype(np.float32), rng.normal(size=(4, 32)).astype(np.float32)
    linear = quantize_linear(weight, spec=QuantSpec(bits=2, group_size=32))
    losses = []
    for passes in (0, 1, 4):
        codes = descend_codes(weight, gram, np.arange(32), linear, passes=passes)
        moved = QuantizedLinear(codes, linear.scales, linear.zero_point, linear.spec)
        losses.append(oracle_loss(dequantize_linear(moved), weight, gram))
    assert losses[2] <= losses[1] < losses[0]


def test_a_silent_channel_keeps_its_codes():
    gram = np.diag(np.array([0.0, 1.0, 0.0, 1.0], dtype=np.float32))
    weight = np.array([[0.1, 0.2, 0.7, 1.0]], dtype=np.float32)
    linear = quantize_linear(weight, spec=QuantSpec(bits=2, group_size=4))
    assert (descend_codes(weight, gram, np.arange(4), linear) == linear.int_weight).all()


def test_bad_input():
    weight = np.ones((1, 4), dtype=np.float32)
    linear, gram = quantize_linear(weight, spec=QuantSpec(bits=4, group_size=4)), np.eye(4, dtype=np.float32)
    with pytest.raises(ShapeError, match=r"weight must have shape \(1, 4\)"):
        descend_codes(np.ones((2, 4), dtype=np.float32), gram, np.arange(4), linear)
    with pytest.raises(ShapeError, match=r"gram must have shape \(4, 4\)"):
        descend_codes(weight, np.eye(3, dtype=np.float32), np.arange(4), linear)
    with pytest.raises(RangeError, match="passes must lie in"):
        descend_codes(weight, gram, np.arange(4), linear, passes=-1)
