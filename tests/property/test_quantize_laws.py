"""Laws of the quantizer: P-ROUND, P-ZERO, P-INPUT, and two implementations with the same bits."""

import numpy as np
from helpers.assertions import assert_same_bits, frozen
from helpers.scalar_oracles_quantize import scalar_dequantize, scalar_grid, scalar_quantize
from helpers.strategies import specs, weights
from hypothesis import given
from hypothesis import strategies as st

from awq_ref.quantize import (
    choose_grid,
    dequantize,
    dequantize_linear,
    pseudo_quantize,
    quantize,
    quantize_linear,
)
from awq_ref.spec import QuantSpec

BOTH_RULES = specs(range_rule=("zero", "minmax"))


@st.composite
def clipped_weights(draw, spec=BOTH_RULES):
    """Draw (weight, spec, clip): each group's limit is infinite, beyond, at, inside or at the bottom of its range."""
    weight, chosen = draw(weights(spec=spec))
    group = chosen.group_size if chosen.group_size != -1 else weight.shape[1]
    largest = np.abs(weight).reshape(len(weight), -1, group).max(axis=2)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    share = rng.choice(np.array([np.inf, 1.5, 1.0, 0.7, 0.05, 0.0], dtype=np.float32), largest.shape)
    with np.errstate(invalid="ignore"):  # infinity times 0: a group of zeros keeps all
        return weight, chosen, np.nan_to_num(share * largest, nan=np.inf, posinf=np.inf)


# P-ROUND, the derivation.
#
# Let eta = 2**-24 (a float32 operation's relative error), d0 = fl(max(fl(hi - lo), 1e-5) / Q) the scale before it is
# stored, d the stored one, h(d) the most that storing can have taken away, d0 - d <= h(d):
#     float32: h = 0;    float16: h = max(2**-11 d, 2**-25), half the distance of neighbours at d (subnormals: 2**-24).
# Two roundings made d0, so the range fits into Q steps of it: hi - lo <= Q d0 / (1 - eta)**2 <= Q d0 (1 + 3 eta)  (1)
# As lo <= 0 <= hi, every |w| <= hi - lo.                                                                       (2)
#
# (a) The code is not clipped. The quotient is (w / d)(1 + e), |e| <= eta, and round() adds at most 1/2:
#         |(q - z) d - w| <= d / 2 + eta |w| <= d / 2 + eta Q d0 (1 + 3 eta).
# (b) Clipped at the top, q = Q, so w is above the grid. z <= 1/2 + (|lo| / d)(1 + eta), from [AWQ-2], hence
#         w - (Q - z) d <= hi - Q d + d / 2 + |lo| (1 + eta) = (hi - lo) - Q d + d / 2 + eta |lo|
#                       <= d / 2 + Q (d0 - d) + 4 eta Q d0 (1 + 3 eta)             by (1), (2).
# (c) Clipped at the bottom. Rounding keeps order, so round(w / d) >= round(lo / d) = -z unless z itself was clipped
#     to Q; then -Q d - w <= |lo| - Q d <= Q (d0 - d) + 3 eta Q d0.
# Dequantizing rounds once more, by at most eta |q - z| d <= eta Q d (nothing for float16: the product is exact).
# With d0 <= d + h, and six eta for the five and a bit above:
#
#     |w_hat - w| <= d / 2  +  Q h(d)  +  6 eta Q (d + h(d)).
#
# Symmetric: Q becomes P = 2**(b-1) - 1 with hi - lo replaced by max|w| <= P d0 (1 + 3 eta). (a) is the same; at the
# top w - P d <= P (d0 - d) + 3 eta P d0; at the bottom there is one code more; |q - z| d <= (P + 1) d <= 2 P d.
# A clip replaces w by w clamped. The float16 term is Q / 2**11 of a step for normal d: 0.007 at 4 bits, 0.12 at 8.
def rounding_bound(scales, spec: QuantSpec):
    d = scales.astype(np.float64)
    stored_short = np.maximum(d * 2.0**-11, 2.0**-25) if spec.scale_dtype == "float16" else np.zeros_like(d)
    steps = 2 ** (spec.bits - 1) - 1 if spec.symmetric else 2**spec.bits - 1
    return d / 2 + steps * stored_short + 6 * 2.0**-24 * steps * (d + stored_short)


@given(clipped_weights(spec=specs()))
def test_the_rounding_error_is_half_a_step_and_the_scales_own_rounding(drawn):
    """P-ROUND: |w_hat - w| <= delta/2 + Q h(delta) + 6 eta Q (delta + h), for every group whose range contains 0."""
    weight, spec, clip = drawn
    linear = quantize_linear(weight, spec=spec, clip=clip)
    shape = (linear.out_features, linear.n_groups, linear.group_size)
    clamped = np.clip(weight.reshape(shape), -clip[..., None], clip[..., None])
    error = np.abs(dequantize_linear(linear).reshape(shape).astype(np.float64) - clamped)
    assert (error <= rounding_bound(linear.scales, spec)[..., None]).all()


@given(clipped_weights(), st.integers(0, 2**32 - 1))
def test_zero_comes_back_as_zero(drawn, seed):
    """P-ZERO: a weight of 0 has the code z, and comes back as +0.0, whatever stands beside it."""
    weight, spec, clip = drawn
    zeros = np.random.default_rng(seed).random(weight.shape) < 0.3
    weight[zeros] = 0.0
    linear = quantize_linear(weight, spec=spec, clip=clip)
    z = np.repeat(linear.zero_point, linear.group_size, axis=1)
    assert_same_bits(linear.int_weight[zeros], z[zeros])
    assert_same_bits(dequantize_linear(linear)[zeros], np.zeros(int(zeros.sum()), dtype=np.float32))


@given(clipped_weights())
def test_the_fast_round_trip_has_the_bits_of_the_integers(drawn):
    """pseudo_quantize = dequantize(quantize), with and without a clip."""
    weight, spec, clip = drawn
    assert_same_bits(
        pseudo_quantize(weight, spec=spec), dequantize_linear(quantize_linear(weight, spec=spec))
    )
    by_integers = dequantize_linear(quantize_linear(weight, spec=spec, clip=clip))
    assert_same_bits(pseudo_quantize(weight, spec=spec, clip=clip), by_integers)


@given(clipped_weights())
def test_scales_zero_points_and_codes_are_those_of_the_scalar_loop(drawn):
    """[AWQ-1] to [AWQ-4], number by number."""
    weight, spec, clip = drawn
    linear = quantize_linear(weight, spec=spec, clip=clip)
    grouped = weight.reshape(len(weight), linear.n_groups, linear.group_size)
    fields = {name: getattr(spec, name) for name in ("bits", "symmetric", "range_rule", "scale_dtype")}
    scales, zeros, codes, restored = [], [], [], []
    for row, limits in zip(grouped.tolist(), clip.tolist(), strict=True):
        for group, limit in zip(row, limits, strict=True):
            scale, zero = scalar_grid(group, clip=limit, **fields)
            scales.append(scale)
            zeros.append(zero)
            codes.append(scalar_quantize(group, scale, zero, bits=spec.bits, clip=limit))
            restored.append(scalar_dequantize(codes[-1], scale, zero))
    assert_same_bits(linear.scales.reshape(-1), scales, dtype=spec.scale_dtype)
    assert_same_bits(linear.zero_point.reshape(-1), zeros, dtype=np.uint8)
    assert_same_bits(linear.int_weight.reshape(len(codes), -1), codes, dtype=np.uint8)
    assert_same_bits(dequantize_linear(linear).reshape(len(codes), -1), restored, dtype=np.float32)


@given(weights(spec=BOTH_RULES))
def test_codes_survive_the_trip_through_floats(drawn):
    """On the same grid, quantize(dequantize(q)) = q: the quotient is off by at most 2 eta |q - z| < 1/2."""
    weight, spec = drawn
    linear = quantize_linear(weight, spec=spec)
    again = quantize(dequantize_linear(linear), linear.scales, linear.zero_point, spec=spec)
    assert_same_bits(again, linear.int_weight)


@given(weights(spec=specs(), kinds=("normal", "outlier", "tie", "large")))
def test_both_range_rules_agree_where_a_group_straddles_zero(drawn):
    """The widened range is the published one, bit for bit, when min <= 0 <= max."""
    weight, spec = drawn
    group = spec.group_size if spec.group_size != -1 else weight.shape[1]
    grouped = weight.reshape(-1, group)
    grouped[:, 0], grouped[:, 1] = -np.abs(grouped[:, 0]), np.abs(grouped[:, 1])
    minmax = QuantSpec(spec.bits, spec.group_size, spec.symmetric, "minmax", spec.scale_dtype)
    for ours, published in zip(choose_grid(weight, spec=spec), choose_grid(weight, spec=minmax), strict=True):
        assert_same_bits(ours, published)


@given(weights(spec=BOTH_RULES), st.randoms(use_true_random=False))
def test_permuting_rows_permutes_the_result(drawn, random):
    """No row sees another."""
    weight, spec = drawn
    order = list(range(len(weight)))
    random.shuffle(order)
    assert_same_bits(pseudo_quantize(weight[order], spec=spec), pseudo_quantize(weight, spec=spec)[order])


@given(clipped_weights())
def test_inputs_are_not_written_to(drawn):
    """P-INPUT: every array may be read-only."""
    weight, spec, clip = drawn
    weight, clip = frozen(weight), frozen(clip)
    scales, zero_point = (frozen(array) for array in choose_grid(weight, spec=spec, clip=clip))
    codes = frozen(quantize(weight, scales, zero_point, spec=spec))
    dequantize(codes, scales, zero_point)
    quantize_linear(weight, spec=spec, clip=clip)
    pseudo_quantize(weight, spec=spec, clip=clip)
