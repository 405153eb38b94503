import math
from dataclasses import replace

import numpy as np
import pytest
from helpers import scalar_oracles_model as oracle
from helpers.assertions import assert_close, assert_same_bits, frozen
from helpers.bounded import exact, split

from awq_ref.model.rope import (
    ROPE_TYPES,
    RopeConfig,
    apply_rope,
    rope_frequencies,
    rope_tables,
    turned_length,
)

LLAMA3 = RopeConfig("llama3", 10000.0, 8.0, 1.0, 4.0, 1000)
DYNAMIC = RopeConfig("dynamic", factor=2.0, original_max_position_embeddings=100)
YARN = RopeConfig("yarn", factor=4.0, original_max_position_embeddings=1000)
LONGROPE = RopeConfig(
    "longrope",
    rope_theta=100.0,
    original_max_position_embeddings=100,
    short_factor=(1.0, 2.0),
    long_factor=(4.0, 5.0),
)


def test_frequencies_fall_by_equal_factors():
    assert_close(rope_frequencies(RopeConfig(), 8), [1.0, 0.1, 0.01, 0.001], rtol=1e-15)


def test_linear_slows_every_pair_down():
    frequencies = rope_frequencies(RopeConfig("linear", factor=4.0), 8)
    assert_close(frequencies, [0.25, 0.025, 0.0025, 0.00025], rtol=1e-15)


def test_llama3_keeps_short_waves_slows_long_ones_and_blends_between():
    # In 1000 tokens the four pairs turn 159, 15.9, 1.592 and 0.159 times; below 1 is slow, above 4 is fast.
    turns = 1000 * 0.01 / (2 * math.pi)
    kept = (turns - 1) / (4 - 1)
    blended = kept * 0.01 + (1 - kept) * 0.01 / 8
    assert_close(rope_frequencies(LLAMA3, 8), [1.0, 0.1, blended, 0.001 / 8], rtol=1e-14)


def test_dynamic_enlarges_the_base_with_the_length():
    # 150 tokens of 100: 2 * 1.5 - 1 = 2, so base 10000 * 2**(4 / 2) = 40000: the second of two pairs turns by 1 / 200.
    assert_close(rope_frequencies(DYNAMIC, 4, 150), [1.0, 0.005], rtol=1e-14)
    for length in (0, 1, 100):  # not yet past the original length
        assert_close(rope_frequencies(DYNAMIC, 4, length), [1.0, 0.01], rtol=1e-15)
    assert_close(rope_frequencies(DYNAMIC, 2, 150), [1.0], rtol=0.0)  # a single pair keeps its frequency


def test_yarn_keeps_fast_pairs_slows_slow_ones_and_blends_between():
    # In 1000 tokens the pairs i of 8 turn 1000 * 10**(-i / 2) / (2 pi) times: 32 times at i = 1.39, once at i = 4.40;
    # with whole numbers the ramp goes from 1 to 5.
    frequencies = [10 ** (-i / 2) for i in range(8)]
    slow = [0, 0, 1 / 4, 2 / 4, 3 / 4, 1, 1, 1]
    expected = [f * (1 - s) + s * f / 4 for f, s in zip(frequencies, slow, strict=True)]
    assert_close(rope_frequencies(YARN, 16), expected, rtol=1e-14)
    first, last = ((math.log10(1000 / (2 * math.pi * turns)) * 2) for turns in (32, 1))
    slow = [min(1, max(0, (i - first) / (last - first))) for i in range(8)]
    expected = [f * (1 - s) + s * f / 4 for f, s in zip(frequencies, slow, strict=True)]
    assert_close(rope_frequencies(replace(YARN, truncate=False), 16), expected, rtol=1e-13)


def test_a_yarn_ramp_without_width_is_a_step():
    rope = replace(YARN, original_max_position_embeddings=4)  # no pair turns even once
    assert_close(rope_frequencies(rope, 4), [1.0, 0.01 / 4], rtol=1e-14)


def test_longrope_has_a_list_for_short_texts_and_one_for_long_ones():
    for length in (0, 1, 100):
        assert_close(rope_frequencies(LONGROPE, 4, length), [1.0, 0.05], rtol=1e-15)
    for length in (101, 5000):
        assert_close(rope_frequencies(LONGROPE, 4, length), [0.25, 0.02], rtol=1e-15)


def test_which_lengths_have_the_same_frequencies():
    lengths = (1, 100, 101, 150)
    assert [turned_length(YARN, n) for n in lengths] == [0, 0, 0, 0]
    assert [turned_length(DYNAMIC, n) for n in lengths] == [100, 100, 101, 150]
    assert [turned_length(LONGROPE, n) for n in lengths] == [100, 100, 101, 101]


ALL = [
    RopeConfig(),
    RopeConfig("linear", 500.0, 2.5),
    LLAMA3,
    replace(DYNAMIC, rope_theta=500.0, factor=3.5),
    replace(YARN, beta_fast=20.0, beta_slow=2.0),
    replace(YARN, rope_theta=5e5, truncate=False),
    replace(LONGROPE, short_factor=tuple(range(1, 33)), long_factor=tuple(range(40, 72))),
    replace(YARN, partial_rotary_factor=0.5),
]


@pytest.mark.parametrize("rope", ALL, ids=lambda rope: rope.rope_type)
@pytest.mark.parametrize("length", [0, 100, 101, 977])
def test_frequencies_follow_the_scalar_loop(rope, length):
    # The oracle puts llama3 by wave length, the code by turns; dynamic by its base, the code by a power of the stretch.
    frequencies = rope_frequencies(rope, 64, length)
    assert frequencies.dtype == np.float64
    assert_close(frequencies, oracle.frequencies(rope, 64, length), rtol=1e-13)
    assert {rope.rope_type for rope in ALL} == set(ROPE_TYPES)


def test_frequencies_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        rope_frequencies(RopeConfig(), 8)[0] = 2.0


def test_tables_are_rounded_once():
    positions, frequencies = (
        np.array([[0, 3], [100000, 7]], dtype=np.int64),
        rope_frequencies(RopeConfig(), 4),
    )
    cos, sin = rope_tables(positions, frequencies)
    angles = [[[p * 1.0, p * 0.01] for p in row] for row in [[0, 3], [100000, 7]]]
    expected = [[[math.cos(a) for a in pair] for pair in row] for row in angles]
    assert cos.dtype == sin.dtype == np.float32
    assert cos.shape == sin.shape == (2, 2, 2)
    assert_close(cos, expected, atol=2.0**-25 + 1e-10)  # half an ulp of 1; 1e-10: the angle 1e5 in float64
    assert_same_bits(sin[0, 0], [0.0, 0.0], dtype=np.float32)
    larger, _ = rope_tables(positions, frequencies, 1.25)
    assert_close(larger, 1.25 * np.array(expected), atol=2.0**-24 + 1e-9)


def test_a_quarter_turn_swaps_the_halves():
    # pairs (1, 3) and (2, 4): the first is turned by 90 degrees, the second stays
    x = frozen(np.float32([1, 2, 3, 4]))
    cos, sin = np.float32([0, 1]), np.float32([1, 0])
    out = np.empty(4, dtype=np.float32)
    assert apply_rope(x, cos, sin, out=out) is out
    assert_same_bits(out, [-3, 2, 1, 4], dtype=np.float32)


def test_a_quarter_turn_of_neighbours():
    # pairs (1, 2) and (3, 4)
    cos, sin = np.float32([0, 1]), np.float32([1, 0])
    out = np.empty(4, dtype=np.float32)
    apply_rope(frozen(np.float32([1, 2, 3, 4])), cos, sin, out=out, neighbours=True)
    assert_same_bits(out, [-2, 1, 3, 4], dtype=np.float32)


def test_a_quarter_turn_of_a_part_of_the_head():
    # the first two of six channels are a pair, the others stay
    x, out = frozen(np.float32([1, 2, 3, 4, 5, 6])), np.empty(6, dtype=np.float32)
    apply_rope(x, np.float32([0]), np.float32([1]), out=out)
    assert_same_bits(out, [-2, 1, 3, 4, 5, 6], dtype=np.float32)
    half = RopeConfig(partial_rotary_factor=0.5)
    assert_close(rope_frequencies(half, 8), [1.0, 0.01], rtol=1e-15)  # as for a head of four


def test_apply_rope_follows_the_scalar_loop_into_strided_memory(rng):
    x = rng.normal(0, 1, (3, 2, 8)).astype(np.float32)  # (tokens, heads, head_dim)
    frequencies = rope_frequencies(LLAMA3, 8)
    cos, sin = rope_tables(np.arange(3, dtype=np.int64)[:, None], frequencies)
    out = np.empty((2, 3, 8), dtype=np.float32).transpose(1, 0, 2)
    apply_rope(frozen(x), cos, sin, out=out)
    expected, bound = split(
        [[oracle.turn(head, t, frequencies.tolist()) for head in token] for t, token in enumerate(exact(x))]
    )
    assert_close(out, expected, atol=bound)


def test_scores_depend_on_the_distance_alone(rng):
    q, k = rng.normal(0, 1, (2, 8)).astype(np.float32)

    def score(at: int, key_at: int) -> float:
        turned = []
        for x, position in ((q, at), (k, key_at)):
            cos, sin = rope_tables(np.array(position, dtype=np.int64), rope_frequencies(RopeConfig(), 8))
            turned.append(apply_rope(x, cos, sin, out=np.empty(8, dtype=np.float32)))
        return float(turned[0] @ turned[1])

    # every turned entry is off by at most 3 roundings of its pair's size, the sum of 8 products by 8 more
    bound = 2 * 14 * 2.0**-24 * float(np.abs(q).sum() * np.abs(k).sum())
    assert abs(score(5, 2) - score(905, 902)) <= bound
    assert abs(score(5, 2) - score(6, 2)) > 100 * bound
