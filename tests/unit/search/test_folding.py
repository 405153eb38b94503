import numpy as np
import pytest
from helpers.assertions import assert_close, assert_same_bits

from awq_ref.errors import RangeError, ShapeError
from awq_ref.search import (
    LinearFold,
    fold_into_linear,
    fold_into_norm,
    round_to,
    scale_consumer,
    scaled_gram,
)

W = np.array([[1.0, -2.0, 3.0, 4.0], [5.0, 6.0, -7.0, 8.0]], dtype=np.float32)


def f32(*values):
    return np.array(values, dtype=np.float32)


def test_round_to_bfloat16_by_hand():
    # 8 bits of significand: 1 + 2**-8 is a tie that goes down to even, 1 + 3 * 2**-8 one that goes up.
    values = f32(1.0, 1.0 + 2.0**-8, 1.0 + 3 * 2.0**-8, -(1.0 + 2.0**-8 + 2.0**-20), 0.0)
    expected = [1.0, 1.0, 1.0 + 4 * 2.0**-8, -(1.0 + 2.0**-7), 0.0]
    assert_same_bits(round_to(values, "bfloat16"), expected, dtype=np.float32)


def test_round_to_float16_and_float32():
    values = f32(1.0 + 2.0**-11, 1.0 + 3 * 2.0**-11)
    assert_same_bits(round_to(values, "float16"), [1.0, 1.0 + 2.0**-9], dtype=np.float32)
    assert_same_bits(round_to(values, "float32"), values)


def test_fold_into_norm_by_hand():
    stored, effective = fold_into_norm(f32(1.0, -6.0, 0.0), f32(4.0, 2.0, 9.0), storage_dtype="float16")
    assert_same_bits(stored, [0.25, -3.0, 0.0], dtype=np.float32)
    assert_same_bits(effective, [4.0, 2.0, 1.0], dtype=np.float32)


def test_a_norm_stored_as_its_distance_from_one_by_hand():
    # 3 / 2 = 1.5 is stored as 0.5; 1 / 4 as -0.75; 0 stays; -2 / 2 = -1 as -2.
    norm, scales = f32(3.0, 1.0, 0.0, -2.0), f32(2.0, 4.0, 9.0, 2.0)
    stored, effective = fold_into_norm(norm, scales, storage_dtype="1+bfloat16")
    assert_same_bits(stored, [1.5, 0.25, 0.0, -1.0], dtype=np.float32)
    assert_same_bits(effective, [2.0, 4.0, 1.0, 2.0], dtype=np.float32)


def test_a_distance_from_one_has_the_steps_of_what_is_stored():
    # 1 / 3 is 1 - 2/3; bfloat16 has steps of 2**-8 there, and 171 / 256 is the nearest to 2/3.
    stored, effective = fold_into_norm(f32(1.0), f32(3.0), storage_dtype="1+bfloat16")
    assert stored.tolist() == [1.0 - 171 / 256]
    assert_close(effective, [256 / 85], rtol=2.0**-24)
    # What would round to 0, and lose its channel, stays a step away from it, with its sign.
    for dtype, step in (("float32", 2.0**-23), ("float16", 2.0**-10), ("bfloat16", 2.0**-7)):
        stored, effective = fold_into_norm(f32(1e-9, -1e-9), f32(4.0, 4.0), storage_dtype=f"1+{dtype}")
        assert stored.tolist() == [step, -step]
        assert_close(stored.astype(np.float64) * effective, f32(1e-9, -1e-9), rtol=2.0**-24 * 1.001)


@pytest.mark.parametrize("storage_dtype", ["float32", "float16", "bfloat16"])
def test_the_consumers_follow_the_rounding_of_the_norm(rng, storage_dtype):
    norm = rng.uniform(0.1, 3.0, 500).astype(np.float32)
    scales = np.exp(rng.uniform(-5.0, 5.0, 500)).astype(np.float32)
    stored, effective = fold_into_norm(norm, scales, storage_dtype=storage_dtype)
    assert_same_bits(round_to(stored, storage_dtype), stored)
    # one float32 division in `effective`: relative error 2**-24
    assert_close(stored.astype(np.float64) * effective, norm, rtol=2.0**-24 * 1.001)


def test_what_float16_cannot_hold_stays_finite_and_exact():
    norm, scales = f32(300.0, -300.0, 1e-6, 1e-9), f32(2.0**-8, 2.0**-8, 2.0**8, 1.0)
    stored, effective = fold_into_norm(norm, scales, storage_dtype="float16")
    assert_same_bits(stored, [65504.0, -65504.0, 2.0**-24, 2.0**-24], dtype=np.float32)
    assert_close(stored.astype(np.float64) * effective, norm, rtol=2.0**-24 * 1.001)


def test_fold_into_norm_refuses_bad_scales():
    with pytest.raises(ShapeError, match=r"channel_scales must have shape \(2\)"):
        fold_into_norm(f32(1.0, 2.0), f32(1.0), storage_dtype="float16")
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(RangeError, match="positive and finite; got .* at 1"):
            fold_into_norm(f32(1.0, 2.0), f32(1.0, bad), storage_dtype="float16")
    with pytest.raises(RangeError, match="storage_dtype must be one of"):
        fold_into_norm(f32(1.0), f32(1.0), storage_dtype="int8")


def test_fold_into_linear_by_hand():
    weight, bias = fold_into_linear(W, f32(1.0, 3.0), f32(2.0, 4.0))
    assert_same_bits(weight, [[0.5, -1.0, 1.5, 2.0], [1.25, 1.5, -1.75, 2.0]], dtype=np.float32)
    assert_same_bits(bias, [0.5, 0.75], dtype=np.float32)
    assert fold_into_linear(W, None, f32(2.0, 4.0))[1] is None
    with pytest.raises(ShapeError, match="fold_into_linear: channel_scales"):
        fold_into_linear(W, None, f32(2.0))


def test_scale_consumer_by_hand():
    scaled = scale_consumer(W, f32(1.0, 2.0, 1.0, 0.5))
    assert_same_bits(scaled, [[1.0, -4.0, 3.0, 2.0], [5.0, 12.0, -7.0, 4.0]], dtype=np.float32)
    with pytest.raises(RangeError, match="scale_consumer: channel_scales"):
        scale_consumer(W, f32(1.0, 2.0, 0.0, 1.0))


def test_scaled_gram_by_hand():
    scaled = scaled_gram(f32(8.0, 4.0, 4.0, 2.0).reshape(2, 2), f32(2.0, 0.5))
    assert_same_bits(scaled, [[2.0, 4.0], [4.0, 8.0]], dtype=np.float32)


def test_a_linear_fold_scales_columns_then_rows_then_clips():
    fold = LinearFold(f32(1.0, 2.0, 1.0, 0.5), f32(1.0, 2.0), f32(2.5, 2.0, 9.0, 1.0).reshape(2, 2))
    assert_same_bits(fold.scale(W), [[1.0, -4.0, 3.0, 2.0], [2.5, 6.0, -3.5, 2.0]], dtype=np.float32)
    assert_same_bits(fold.apply(W), [[1.0, -2.5, 2.0, 2.0], [2.5, 6.0, -1.0, 1.0]], dtype=np.float32)
    assert_same_bits(fold.apply_bias(f32(3.0, 3.0)), [3.0, 1.5], dtype=np.float32)


def test_an_empty_fold_copies():
    fold, bias = LinearFold(), f32(3.0, 3.0)
    assert_same_bits(fold.apply(W), W)
    assert not np.shares_memory(fold.apply(W), W)
    assert_same_bits(fold.apply_bias(bias), bias)
    assert not np.shares_memory(fold.apply_bias(bias), bias)
