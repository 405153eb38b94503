import numpy as np
import pytest
from helpers.assertions import assert_same_bits

from awq_ref.errors import RangeError, ShapeError
from awq_ref.search import clipping as module
from awq_ref.search import diagonal_blocks, keep_better_rows, scale_blocks, search_clip, token_blocks


def f32(*values):
    return np.array(values, dtype=np.float32)


def three_levels(weight, clip, extremes):
    """-m, 0 or m with m the row's largest magnitude; rounding to the nearer, ties to 0. Groups of two as rows."""
    assert_same_bits(extremes[0], weight.min(axis=1, keepdims=True))
    assert_same_bits(extremes[1], weight.max(axis=1, keepdims=True))
    groups = np.clip(weight, -clip, clip).reshape(len(weight), -1, 2)
    m = np.abs(groups).max(axis=2, keepdims=True)
    return (np.sign(groups) * m * (np.abs(groups) > m / 2)).reshape(weight.shape)


EYE = np.stack([np.eye(2, dtype=np.float32)] * 2)


def test_blocks_of_a_matrix():
    gram = np.arange(16, dtype=np.float32).reshape(4, 4)
    assert_same_bits(diagonal_blocks(gram, 2), [[[0, 1], [4, 5]], [[10, 11], [14, 15]]], dtype=np.float32)
    assert_same_bits(diagonal_blocks(gram, -1), gram[None])
    assert not np.shares_memory(diagonal_blocks(gram, -1), gram)
    with pytest.raises(ShapeError, match="group_size must divide in_features of the Gram matrix"):
        diagonal_blocks(gram, 3)


def test_blocks_of_tokens():
    x = f32(1.0, 2.0, 0.0, 1.0, 3.0, 0.0, 2.0, 1.0).reshape(2, 4)
    assert_same_bits(token_blocks(x, 2), [[[5, 1], [1, 2]], [[2, 1], [1, 1]]], dtype=np.float32)
    with pytest.raises(ShapeError, match="group_size must divide in_features of x"):
        token_blocks(x, 3)


def test_blocks_of_scaled_inputs():
    scaled = scale_blocks(EYE * np.float32(8.0), f32(1.0, 2.0, 4.0, 0.5))
    assert_same_bits(scaled, [[[8, 0], [0, 2]], [[0.5, 0], [0, 32]]], dtype=np.float32)


def test_clips_by_hand():
    # Group (4, 1): unclipped (4, 0): error 1. Clipped to 3: (3, 0): 1 + 1 = 2. Clipped to 1.5: (1.5, 1.5): 6.5.
    # Group (4, 2): unclipped (4, 0), a tie: error 4. Clipped to 3: (3, 3): 1 + 1 = 2. To 1.5: 6.25 + 0.25.
    found = search_clip(
        f32(4.0, 1.0, -4.0, 2.0)[None], EYE, quantizer=three_levels, ratios=(1.0, 0.75, 0.375)
    )
    assert_same_bits(found.clip, [[4.0, 3.0]], dtype=np.float32)
    assert_same_bits(found.loss_before, [[1.0, 4.0]], dtype=np.float32)
    assert_same_bits(found.loss_after, [[1.0, 2.0]], dtype=np.float32)


def test_the_first_of_equal_losses_wins():
    zeros = np.zeros((1, 4), dtype=np.float32)
    found = search_clip(zeros, EYE, quantizer=lambda w, clip, extremes: w, ratios=(1.0, 0.5))
    assert_same_bits(found.clip, [[0.0, 0.0]], dtype=np.float32)
    weight = f32(4.0, 0.0, 4.0, 0.0)[None]
    found = search_clip(weight, EYE * np.float32(0.0), quantizer=three_levels, ratios=(1.0, 0.5))
    assert_same_bits(found.clip, [[4.0, 4.0]], dtype=np.float32)


def test_rows_are_searched_apart(rng, monkeypatch):
    weight = rng.normal(0, 1, (5, 4)).astype(np.float32)
    ratios = (1.0, 0.75, 0.5)
    alone = [search_clip(row[None], EYE, quantizer=three_levels, ratios=ratios).clip for row in weight]
    for elements in (1, 8, 1 << 18):
        monkeypatch.setattr(module, "GROUP_ELEMENTS", elements)
        found = search_clip(weight, EYE, quantizer=three_levels, ratios=ratios)
        assert_same_bits(found.clip, np.concatenate(alone))


def test_rows_that_did_not_gain_are_opened_again():
    weight = f32(4.0, -8.0, 1.0, 2.0).reshape(2, 2)
    clip = f32(3.0, 0.5).reshape(2, 1)
    kept, losses = keep_better_rows(weight, clip, np.array([5.0, 5.0]), np.array([4.0, 6.0]))
    assert_same_bits(kept, [[3.0], [2.0]], dtype=np.float32)
    assert_same_bits(losses, [4.0, 5.0], dtype=np.float64)


def test_wrong_arguments():
    weight = np.ones((1, 4), dtype=np.float32)
    for ratios in ((), (0.9, 1.0)):
        with pytest.raises(RangeError, match="ratios must start with 1.0"):
            search_clip(weight, EYE, quantizer=three_levels, ratios=ratios)
    with pytest.raises(RangeError, match="ratio must lie in"):
        search_clip(weight, EYE, quantizer=three_levels, ratios=(1.0, 0.0))
    with pytest.raises(ShapeError, match="blocks must have shape"):
        search_clip(weight, EYE[:1], quantizer=three_levels, ratios=(1.0,))
    with pytest.raises(ShapeError, match="weight must have shape"):
        search_clip(weight[0], EYE, quantizer=three_levels, ratios=(1.0,))
