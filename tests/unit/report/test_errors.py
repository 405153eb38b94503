"""Errors of one layer: numbers by hand and scalar loops."""

import dataclasses
import math

import numpy as np
import pytest

from awq_ref.calibration import SiteStatistics
from awq_ref.errors import DtypeError, RangeError, ShapeError
from awq_ref.report.errors import (
    channel_contributions,
    error_terms,
    linear_errors,
    ratio,
    relative_error,
    salient_channels,
)
from awq_ref.search import LinearFold


def f32(*values):
    return np.array(values, dtype=np.float32)


def one_step(rows):
    return np.ones((rows, 1), dtype=np.float16)


def measured(weight, effective, x, **changes):
    """Return linear_errors with a step of 1 and rounding to nearest that changes nothing, unless told otherwise."""
    options = {"delta": one_step(len(weight)), "delta_rounded": one_step(len(weight)), "fold": LinearFold()}
    rounded = changes.pop("rounded", weight)
    return linear_errors(weight, effective, rounded, SiteStatistics.from_inputs(x), **options | changes)


def test_relative_error_by_hand():
    # || (0.3, 0.4) || = 0.5 over || (3, 4) || = 5
    assert relative_error(f32([3.0, 4.0]), f32([0.3, 0.4])) == pytest.approx(0.1, rel=2.0**-23)
    assert relative_error(f32([0.0]), f32([0.0])) == 0.0
    assert (ratio(1.0, 0.0), ratio(0.0, 0.0), ratio(1.0, 4.0)) == (math.inf, 0.0, 0.25)


def test_contributions_equal_the_definition(rng):
    error, x = rng.standard_normal((3, 5)).astype(np.float32), rng.standard_normal((7, 5)).astype(np.float32)
    gram = x.T @ x
    found = channel_contributions(error, gram)
    assert found.dtype == np.float64
    assert found.shape == (5,)
    e, c = error.tolist(), gram.tolist()
    wanted = [sum(e[o][i] * c[i][j] * e[o][j] for o in range(3) for j in range(5)) for i in range(5)]
    # 5 products and sums in float32 of terms whose absolute values add up to this:
    size = (np.abs(error) * (np.abs(error) @ np.abs(gram))).sum(axis=0).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=7 * 2.0**-24 * size)


def test_a_channel_may_take_error_away():
    # e = (1, -0.25) on inputs that are always equal: 1 * (1 - 0.25) = 0.75 and -0.25 * 0.75.
    found = channel_contributions(f32([1.0, -0.25]), f32([1.0, 1.0], [1.0, 1.0]))
    assert found.tolist() == [0.75, -0.1875]


def test_terms_of_equation_2_by_hand():
    # Two rows, two groups of one weight: steps 1, 2 and 4, 8; errors 1/4 of a step but the last, 1/2.
    error, delta = f32([0.25, -0.5], [1.0, 4.0]), np.array([[1, 2], [4, 8]], dtype=np.float16)
    terms = error_terms(error, delta, f32(2.0, 10.0))
    assert dataclasses.astuple(terms) == (
        15 / 4,
        (0.25 + 0.25 + 0.25 + 0.5) / 4,
        6.0,
        (0.25 * 2 + 0.5 * 10 + 1 * 2 + 4 * 10) / 4,
    )


def test_terms_of_equation_3_by_hand():
    # s = (2, 1/2), rows divided by r = 4: the error 0.25 of a weight is 0.25 * 2 / 4 = 0.125 of what is stored, whose
    # step 0.5 is 2 in the float model's terms.
    fold = LinearFold(columns=f32(2.0, 0.5), rows=f32(4.0))
    terms = error_terms(f32([0.25, 1.0]), np.array([[0.5]], dtype=np.float16), f32(2.0, 10.0), fold)
    assert dataclasses.astuple(terms) == (2.0, (0.25 + 0.25) / 2, (1.0 + 20.0) / 2, (0.5 + 10.0) / 2)


def test_errors_of_a_layer_by_hand():
    # x = (1, 0), (0, 2): C = diag(1/2, 2). E = (0, 0.5): 0.25 * 2 = 0.5 of 9 * 1/2 + 16 * 2 = 36.5.
    found = measured(f32([3.0, 4.0]), f32([3.0, 4.5]), f32([1.0, 0.0], [0.0, 2.0]))
    assert found.weight_error == 0.1
    assert found.output_error == pytest.approx(0.5 / 36.5, rel=1e-15)
    assert found.sqnr_db == pytest.approx(10 * math.log10(73), rel=1e-12)
    assert found.contributions.tolist() == [0.0, 0.5]
    assert found.shares().tolist() == [0.0, 1.0]
    assert found.top_channels(1) == [(1, 1.0)]
    assert (found.top_share(), found.salient_share()) == (1.0, 1.0)  # 1 % of two channels: one
    assert (found.delta_ratio, found.inverse_scale, found.inverse_scale_salient) == (1.0, 1.0, 1.0)


def test_scales_of_a_layer_by_hand():
    # Channel 1 is the salient one. delta' = 2 r = 4 against delta = 1.
    fold = LinearFold(columns=f32(0.5, 4.0), rows=f32(2.0))
    found = measured(
        f32([3.0, 4.0]), f32([3.0, 4.5]), f32([1.0, 0.0], [0.0, 2.0]),
        delta=2 * one_step(1), fold=fold,
    )  # fmt: skip
    assert (found.delta_ratio, found.inverse_scale, found.inverse_scale_salient) == (4.0, 1.125, 0.25)
    assert (found.rounded.act_mean_abs, found.scaled.act_mean_abs) == (0.75, 0.625)


def test_the_same_weights_have_no_error(rng):
    weight, x = rng.standard_normal((4, 6)).astype(np.float32), rng.standard_normal((9, 6)).astype(np.float32)
    found = measured(weight, weight.copy(), x)
    assert (found.weight_error, found.output_error, found.sqnr_db) == (0.0, 0.0, math.inf)
    assert found.shares().tolist() == [0.0] * 6
    assert found.top_share() == 0.0
    assert (found.scaled.round_error, found.scaled.error) == (0.0, 0.0)


def test_an_error_on_dead_inputs_is_none_of_the_output():
    found = measured(f32([3.0, 4.0]), f32([3.0, 5.0]), f32([1.0, 0.0]))
    assert found.weight_error == 0.2
    assert found.output_error == 0.0
    nothing = measured(f32([0.0, 4.0]), f32([1.0, 4.0]), f32([1.0, 0.0]))
    assert (nothing.output_error, nothing.sqnr_db) == (math.inf, -math.inf)


@pytest.mark.parametrize(("in_features", "count"), [(1, 1), (149, 1), (151, 2), (4096, 41)])
def test_the_salient_channels_are_the_top_one_percent(in_features, count):
    act = np.arange(in_features, dtype=np.float32)
    assert salient_channels(act).tolist() == list(range(in_features - 1, in_features - 1 - count, -1))


def test_bad_input():
    weight, x = f32([3.0, 4.0]), f32([1.0, 2.0])
    with pytest.raises(ShapeError, match="effective must have shape"):
        measured(weight, f32([1.0]), x)
    with pytest.raises(DtypeError, match="rounded must be float32"):
        measured(weight, weight, x, rounded=weight.astype(np.float64))
    with pytest.raises(RangeError, match="effective must be finite"):
        measured(weight, f32([np.nan, 1.0]), x)
    with pytest.raises(ShapeError, match="delta"):
        measured(weight, weight, x, delta=one_step(2))
    broken = SiteStatistics(1, np.ones(2, dtype=np.float64), np.full((2, 2), np.inf, dtype=np.float32))
    with pytest.raises(RangeError, match="linear_errors: the Gram matrix must be finite; got inf"):
        linear_errors(
            weight, weight, weight, broken, delta=one_step(1), delta_rounded=one_step(1), fold=LinearFold()
        )
    with pytest.raises(ShapeError, match="gram"):
        channel_contributions(weight, np.zeros((3, 3), dtype=np.float32))
    with pytest.raises(ShapeError, match="act_mean_abs"):
        error_terms(weight, one_step(1), f32(1.0))
