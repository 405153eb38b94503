import numpy as np
import pytest
from helpers.assertions import assert_same_bits
from helpers.gptq_oracle import oracle_loss

from awq_ref.errors import RangeError
from awq_ref.quantize import Evidence, better_rows, dequantize_linear, quantize_linear, round_linear
from awq_ref.spec import QuantizedLinear, QuantSpec, Rounding

SPEC = QuantSpec(bits=3, group_size=16)
FEEDBACK = Rounding(method="feedback")


@pytest.fixture
def layer():
    rng = np.random.default_rng(7)
    x = (
        rng.normal(size=(300, 64))
        @ (np.eye(64) + rng.normal(size=(64, 64)) / 16)
        * np.exp(rng.normal(size=64))
    )
    return rng.normal(size=(6, 64)).astype(np.float32), (x.T @ x / 300).astype(np.float32)


def loss(linear, layer):
    return oracle_loss(dequantize_linear(linear), *layer)


def test_to_nearest_is_quantize_linear(layer):
    clip = np.full((6, 4), 1.0, dtype=np.float32)
    bias = np.arange(6, dtype=np.float32)
    linear = round_linear(layer[0], spec=SPEC, rounding=Rounding(), clip=clip, bias=bias)
    expected = quantize_linear(layer[0], spec=SPEC, clip=clip, bias=bias)
    assert_same_bits(linear.int_weight, expected.int_weight, dtype=np.uint8)
    assert_same_bits(linear.scales, expected.scales, dtype=np.float16)
    assert linear.bias is bias


def test_each_ingredient_lowers_the_loss(layer):
    weight, gram = layer
    losses = [loss(quantize_linear(weight, spec=SPEC), layer)]
    for more in (
        {},
        {"act_order": True, "searched_ranges": True},
        {"act_order": True, "searched_ranges": True, "descent": 2, "guard": True},
    ):
        rounding = Rounding(method="feedback", **more)
        linear = round_linear(weight, spec=SPEC, rounding=rounding, evidence=Evidence.of(gram, rounding))
        losses.append(loss(linear, layer))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.5 * losses[0]


def test_a_clip_bounds_the_grid_and_feedback_sees_the_whole_weight(layer):
    weight, gram = layer
    clip = np.full((6, 4), 1.0, dtype=np.float32)
    linear = round_linear(
        weight, spec=SPEC, rounding=FEEDBACK, evidence=Evidence.of(gram, FEEDBACK), clip=clip
    )
    expected = quantize_linear(weight, spec=SPEC, clip=clip)
    assert_same_bits(linear.scales, expected.scales, dtype=np.float16)
    assert_same_bits(linear.zero_point, expected.zero_point, dtype=np.uint8)
    assert loss(linear, layer) < loss(expected, layer)


def test_the_better_row_wins_with_its_grid():
    def linear(codes, scale):
        return QuantizedLinear(
            np.array(codes, dtype=np.uint8),
            np.full((2, 1), scale, dtype=np.float16),
            np.zeros((2, 1), dtype=np.uint8),
            QuantSpec(bits=4, group_size=2),
        )

    weight = np.array([[1.0, 2.0], [4.0, 8.0]], dtype=np.float32)
    # row 0: exact in the first, row 1: exact in the second
    first, second = linear([[1, 2], [3, 8]], 1.0), linear([[0, 2], [2, 4]], 2.0)
    kept = better_rows(weight, np.eye(2, dtype=np.float32), first, second)
    assert kept.int_weight.tolist() == [[1, 2], [2, 4]]
    assert kept.scales.tolist() == [[1.0], [2.0]]


def test_feedback_without_evidence(layer):
    with pytest.raises(RangeError, match="evidence must be given for a rounding with feedback"):
        round_linear(layer[0], spec=SPEC, rounding=FEEDBACK)


@pytest.mark.parametrize(
    "field", [{"act_order": True}, {"searched_ranges": True}, {"descent": 1}, {"guard": True}]
)
def test_what_needs_feedback_says_so(field):
    with pytest.raises(RangeError, match="need method='feedback'"):
        Rounding(**field)


def test_bad_roundings():
    with pytest.raises(RangeError, match="method must be one of 'nearest', 'feedback'; got 'up'"):
        Rounding(method="up")
    with pytest.raises(RangeError, match="damping must lie in"):
        Rounding(damping=2.0)
    with pytest.raises(RangeError, match="descent must lie in"):
        Rounding(method="feedback", descent=-1)
