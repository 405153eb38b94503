"""Unfolding: scales read off norms exactly, estimated between linears, and taken out of stored weights."""

import numpy as np
import pytest

from awq_ref.errors import RangeError, ShapeError
from awq_ref.search import LinearFold
from awq_ref.search.unfolding import (
    Gains,
    column_gains,
    estimate_scales,
    norm_scales,
    row_gains,
    unfold,
)


def f32(*values):
    return np.array(values, dtype=np.float32)


def f64(*values):
    return np.array(values, dtype=np.float64)


def test_norm_scales_by_hand():
    scales = norm_scales(f32(1.0, -3.0, 0.0, 5.0), f32(4.0, -1.5, 0.0, 5.0))
    assert scales.dtype == np.float32
    assert scales.tolist() == [0.25, 2.0, 1.0, 1.0]


@pytest.mark.parametrize("stored", [0.0, -1.0])
def test_a_norm_that_no_fold_makes_is_refused(stored):
    with pytest.raises(RangeError, match=rf"got {stored} for 2.0 at 1\. Was the quantized model made from"):
        norm_scales(f32(1.0, 2.0), f32(1.0, stored))
    with pytest.raises(ShapeError, match="stored"):
        norm_scales(f32(1.0, 2.0), f32(1.0))


def test_gains_by_hand():
    weight, stored = f32([1.0, 2.0], [3.0, -1.0]), f32([2.0, 3.0], [1.0, 1.0])
    rows = row_gains(weight, stored, None)
    # row 0: 1*2 + 2*3 over 1 + 4; row 1: 3*1 - 1*1 over 9 + 1
    assert (rows.dot.tolist(), rows.square.tolist()) == ([8.0, 2.0], [5.0, 10.0])
    assert rows.value().tolist() == [1.6, 0.2]
    # with columns (2, 1) the expected rows are (2, 2) and (6, -1)
    scaled = row_gains(weight, stored, f32(2.0, 1.0))
    assert (scaled.dot.tolist(), scaled.square.tolist()) == ([10.0, 5.0], [8.0, 37.0])
    columns = column_gains(weight, stored)
    # column 0: 1*2 + 3*1 over 1 + 9; column 1: 2*3 - 1*1 over 4 + 1
    assert (columns.dot.tolist(), columns.square.tolist()) == ([5.0, 5.0], [10.0, 5.0])


def test_tied_columns_are_pooled():
    pooled = Gains(f64(1.0, 2.0, 3.0), f64(1.0, 1.0, 2.0)).pooled(np.array([0, 1, 0]), 2)
    assert (pooled.dot.tolist(), pooled.square.tolist()) == ([4.0, 2.0], [3.0, 1.0])


@pytest.mark.parametrize(
    ("down", "up", "wanted"),
    [
        ((0.25, 1.0), (4.0, 1.0), 4.0),  # both sides say 4
        ((0.125, 1.0), (2.0, 1.0), 4.0),  # 8 and 2: their geometric mean
        ((0.0, 1.0), (3.0, 1.0), 3.0),  # the producer's row was rounded away
        ((0.5, 1.0), (-1.0, 1.0), 2.0),  # the consumer's column is noise
        ((0.0, 0.0), (0.0, 0.0), 1.0),  # a dead channel
    ],
)
def test_estimates_by_hand(down, up, wanted):
    scales = estimate_scales(*(Gains(f64(dot), f64(square)) for dot, square in (down, up)))
    assert scales.dtype == np.float32
    assert scales.tolist() == [wanted]


def test_estimates_come_back_exactly_without_rounding(rng):
    """Stored weights that were scaled by powers of two and not rounded give their scales back."""
    producer, consumer = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 8), (5, 6)))
    tie, scales = np.array([0, 1, 2, 0, 1, 2]), f32(0.5, 1.0, 4.0)
    columns = f32(1, 2, 4, 8, 1, 2, 4, 8)
    stored_producer = LinearFold(columns=columns, rows=scales).scale(producer)
    stored_consumer = LinearFold(columns=scales[tie]).scale(consumer)
    down = row_gains(producer, stored_producer, columns)
    up = column_gains(consumer, stored_consumer).pooled(tie, 3)
    np.testing.assert_array_equal(estimate_scales(down, up), scales)


def test_unfold_is_the_inverse_of_the_fold(rng):
    weight = rng.standard_normal((3, 4)).astype(np.float32)
    for fold in (LinearFold(), LinearFold(columns=f32(1, 2, 4, 0.5)), LinearFold(rows=f32(1, 2, 0.25))):
        stored = fold.scale(weight)
        effective = unfold(stored, fold)
        assert effective.dtype == np.float32
        np.testing.assert_array_equal(effective, weight)  # powers of two: nothing is rounded
        assert not np.shares_memory(effective, stored)


def test_shapes_that_do_not_fit():
    with pytest.raises(ShapeError, match="row_gains: stored"):
        row_gains(np.zeros((2, 3), dtype=np.float32), np.zeros((3, 3), dtype=np.float32), None)
    with pytest.raises(ShapeError, match="column_gains: stored"):
        column_gains(np.zeros((2, 3), dtype=np.float32), np.zeros((2, 4), dtype=np.float32))
    with pytest.raises(ShapeError, match="consumer"):
        estimate_scales(Gains(f64(1.0), f64(1.0)), Gains(f64(1.0, 1.0), f64(1.0, 1.0)))
