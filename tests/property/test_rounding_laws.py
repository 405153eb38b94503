"""Laws of rounding with feedback: docs/equations.md, P-FEEDBACK, P-DESCENT, P-RANGE and P-INPUT."""

import numpy as np
from helpers.assertions import assert_same_bits, frozen
from helpers.gptq_oracle import oracle_loss
from helpers.strategies import specs
from hypothesis import given
from hypothesis import strategies as st

from awq_ref.quantize import (
    Evidence,
    dequantize_linear,
    descend_codes,
    feedback_factor,
    grid_of_range,
    group_range,
    quantize,
    quantize_linear,
    round_linear,
    round_with_feedback,
    search_ranges,
)
from awq_ref.quantize.affine import dequantize
from awq_ref.spec import QuantizedLinear, Rounding

U = 2.0**-24
BEST = Rounding(method="feedback", act_order=True, searched_ranges=True, descent=1, guard=True)
seeds = st.integers(0, 2**32 - 1)
grids = specs(group_size=(8, 16, -1))


def layer(seed, in_features=32, rows=5):
    """A weight and the Gram matrix of inputs that share directions, a silent channel among them at times."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(96, in_features)) @ rng.normal(size=(in_features, in_features))
    x *= np.exp(rng.normal(size=in_features)) * (rng.random(in_features) > 0.03)
    return frozen(rng.normal(size=(rows, in_features)).astype(np.float32)), frozen(
        (x.T @ x / len(x)).astype(np.float32)
    )


def slack(weight, linear, gram):
    """What float32 may do to a loss that is compared or descended on.

    e C e^T is formed in float32: two sums of n products, gamma_2n of sum |e_i C_ij e_j|; the gradient that decides a
    step of the descent is a sum of n products and as many updates, so a step may be taken that raises the loss by
    gamma_4n of the same sum. e is below the row's widest step for weights inside their grid; take |w| + |w_hat|.
    """
    size = np.abs(weight).astype(np.float64) + np.abs(dequantize_linear(linear)).astype(np.float64)
    n = weight.shape[1]
    return 8 * n * U * float(np.einsum("ri,ij,rj->", size, np.abs(gram).astype(np.float64), size))


@given(seed=seeds, spec=grids)
def test_with_its_guard_feedback_never_loses_to_round_to_nearest(seed, spec):
    """P-FEEDBACK, and P-INPUT: the arrays are frozen."""
    weight, gram = layer(seed)
    nearest = quantize_linear(weight, spec=spec)
    found = round_linear(weight, spec=spec, rounding=BEST, evidence=Evidence.of(gram, BEST))
    losses = [oracle_loss(dequantize_linear(linear), weight, gram) for linear in (found, nearest)]
    assert losses[0] <= losses[1] + slack(weight, nearest, gram)


@given(seed=seeds, spec=grids, act_order=st.booleans())
def test_where_channels_do_not_overlap_feedback_is_round_to_nearest(seed, spec, act_order):
    """P-FEEDBACK: with a diagonal Gram matrix no later weight can answer an error."""
    weight, gram = layer(seed)
    nearest = quantize_linear(weight, spec=spec)
    factor = feedback_factor(np.diag(np.diag(gram)), act_order=act_order)
    codes, scales, zero_point = round_with_feedback(
        weight, factor, spec=spec, grid=(nearest.scales, nearest.zero_point)
    )
    assert_same_bits(codes, nearest.int_weight, dtype=np.uint8)
    assert_same_bits(scales, nearest.scales)
    assert_same_bits(zero_point, nearest.zero_point, dtype=np.uint8)


@given(seed=seeds, spec=grids, random_start=st.booleans())
def test_a_descent_never_climbs(seed, spec, random_start):
    """P-DESCENT, also from codes that no quantizer chose."""
    weight, gram = layer(seed)
    start = quantize_linear(weight, spec=spec)
    if random_start:
        codes = np.random.default_rng(seed).integers(0, spec.qmax + 1, weight.shape).astype(np.uint8)
        start = QuantizedLinear(codes, start.scales, start.zero_point, spec)
    codes = descend_codes(weight, gram, np.arange(weight.shape[1]), start)
    found = QuantizedLinear(codes, start.scales, start.zero_point, spec)
    before, after = (oracle_loss(dequantize_linear(linear), weight, gram) for linear in (start, found))
    assert after <= before + slack(weight, start, gram)


@given(seed=seeds, spec=grids)
def test_searched_ranges_are_never_worse_than_the_extremes(seed, spec):
    """P-RANGE, by the measure that is searched: sum_i m_i (w_i - w_hat_i)^2 of every row and group."""
    weight, gram = layer(seed)
    importance = feedback_factor(gram).importance
    errors = []
    for low, high in (search_ranges(weight, importance, spec=spec), group_range(weight, spec=spec)):
        grid = grid_of_range(low, high, spec=spec)
        rounded = dequantize(quantize(weight, *grid, spec=spec), *grid).astype(np.float64)
        squares = importance.astype(np.float64) * (rounded - weight) ** 2
        errors.append(squares.reshape(len(weight), low.shape[1], -1).sum(axis=2))
    # Compared in float32: a square, a product and a sum of up to 32 terms, gamma_35 each of positive terms; where both
    # are as good as 0 the differences w_hat - w cancel, and u |w| is left of each.
    floor = 35 * (U * np.abs(weight).max()) ** 2 * importance.sum()
    assert (errors[0] <= errors[1] * (1 + 3 * 35 * U) + floor).all()
