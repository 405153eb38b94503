import math

import numpy as np
import pytest
from helpers.assertions import assert_close, frozen

from awq_ref.errors import RangeError, ShapeError
from awq_ref.text import Sampling, pick, probabilities, processed_logits, sampler

# probabilities 1/10, 2/10, 3/10, 4/10
LOGITS = frozen(np.log(np.array([1, 2, 3, 4], dtype=np.float32)))
WARM = Sampling(temperature=1.0)
ROUNDING = 1e-6  # float32 logarithms, off by 2**-24 relative, up to 1.4


def test_probabilities_at_temperature_one():
    likely = probabilities(LOGITS, Sampling(temperature=1.0))
    assert likely.dtype == np.float64
    assert_close(likely, [0.1, 0.2, 0.3, 0.4], atol=ROUNDING)


def test_half_the_temperature_squares_them():
    assert_close(
        probabilities(LOGITS, Sampling(temperature=0.5)), np.array([1, 4, 9, 16]) / 30, atol=ROUNDING
    )


def test_top_k_keeps_the_likeliest_and_what_equals_the_last_of_them():
    assert_close(
        probabilities(LOGITS, Sampling(temperature=1.0, top_k=2)), [0, 0, 3 / 7, 4 / 7], atol=ROUNDING
    )
    assert probabilities(np.float32([1, 1, 1]), Sampling(temperature=1.0, top_k=2)).tolist() == [1 / 3] * 3
    assert_close(
        probabilities(LOGITS, Sampling(temperature=1.0, top_k=9)), [0.1, 0.2, 0.3, 0.4], atol=ROUNDING
    )


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.39, [3]), (0.41, [2, 3]), (0.69, [2, 3]), (0.71, [1, 2, 3]), (1.0, [0, 1, 2, 3]), (1e-9, [3])],
)
def test_top_p_keeps_the_fewest_that_reach_it(top_p, kept):
    assert np.flatnonzero(probabilities(LOGITS, Sampling(temperature=1.0, top_p=top_p))).tolist() == kept


def test_top_p_counts_what_top_k_left():
    # of 3/7 and 4/7, 0.5 is reached by the second alone
    assert np.flatnonzero(probabilities(LOGITS, Sampling(temperature=1.0, top_k=2, top_p=0.5))).tolist() == [
        3
    ]


def scalar_probabilities(logits, sampling, seen):
    """The settings one after the other, in plain loops."""
    scores = [float(x) for x in logits]
    for i in seen:
        scores[i] = (
            scores[i] * sampling.repetition_penalty
            if scores[i] < 0
            else scores[i] / sampling.repetition_penalty
        )
    scores = [x / sampling.temperature for x in scores]
    kept = set(range(len(scores)))
    if sampling.top_k:
        kept = {i for i in kept if sum(x > scores[i] for x in scores) < sampling.top_k}

    def chances():
        weights = {i: math.exp(scores[i]) for i in kept}
        return {i: weight / sum(weights.values()) for i, weight in weights.items()}

    likely = chances()
    kept = {i for i in kept if sum(p for p in likely.values() if p > likely[i]) < sampling.top_p}
    likely = chances()
    kept = {i for i in kept if likely[i] >= sampling.min_p * max(likely.values())}
    likely = chances()
    return [likely.get(i, 0.0) for i in range(len(scores))]


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(0.7, repetition_penalty=1.3),
        Sampling(1.3, top_k=7, repetition_penalty=0.8),
        Sampling(0.9, top_p=0.8),
        Sampling(2.0, min_p=0.2),
        Sampling(0.8, top_k=12, top_p=0.9, min_p=0.05, repetition_penalty=1.1),
    ],
)
def test_all_settings_against_plain_loops(rng, sampling):
    for _ in range(20):
        logits = frozen(rng.normal(0.0, 2.0, 24).astype(np.float32))
        seen = set(rng.integers(0, 24, 9).tolist())
        want = scalar_probabilities(logits, sampling, seen)
        # some ten operations in float64 on each side
        assert_close(probabilities(logits, sampling, seen), want, atol=1e-13)


def test_min_p_is_a_share_of_the_likeliest():
    # 0.2 and 0.3 of 0.4 are 0.5 and 0.75 of it
    assert np.flatnonzero(probabilities(LOGITS, Sampling(1.0, min_p=0.6))).tolist() == [2, 3]
    assert np.flatnonzero(probabilities(LOGITS, Sampling(1.0, min_p=0.2))).tolist() == [0, 1, 2, 3]


def test_what_was_seen_becomes_less_likely_even_without_chance():
    logits = np.float32([2.0, 1.5, -1.0, -4.0])
    got = processed_logits(logits, Sampling(repetition_penalty=2.0), seen={0, 2})
    assert got.dtype == np.float64
    assert got.tolist() == [1.0, 1.5, -2.0, -4.0]
    assert pick(logits, np.random.default_rng(0), Sampling(repetition_penalty=2.0), {0, 2}) == 1


def test_a_sampler_remembers_its_prompt_and_what_it_picked():
    logits = np.float32([4.0, 3.0, 2.5])
    pick_next = sampler(Sampling(repetition_penalty=2.0), prompt=np.array([0], dtype=np.int64))
    # 2, 3, 2.5 -> 1; then 2, 1.5, 2.5 -> 2; then 2, 1.5, 1.25 -> 0
    assert [pick_next(logits) for _ in range(3)] == [1, 2, 0]


def test_a_generator_goes_on_where_it_stands():
    rng = np.random.default_rng(3)
    halves = [sampler(WARM, seed=rng) for _ in range(2)]
    together = sampler(WARM, seed=3)
    assert [half(LOGITS) for half in halves for _ in range(10)] == [together(LOGITS) for _ in range(20)]


def test_a_token_with_logit_minus_infinity_has_no_chance():
    likely = probabilities(np.float32([0, -math.inf, 0]), Sampling(temperature=2.0))
    assert likely.tolist() == [0.5, 0.0, 0.5]


def test_a_tiny_temperature_overflows_nothing():
    assert probabilities(np.float32([-3e38, 0, 3e38]), Sampling(temperature=1e-30)).tolist() == [
        0.0,
        0.0,
        1.0,
    ]


def test_pick_draws_each_token_as_often_as_it_should():
    rng = np.random.default_rng(7)
    counts = np.bincount([pick(LOGITS, rng, WARM) for _ in range(4000)], minlength=4)
    # five standard deviations of a binomial count
    for count, chance in zip(counts, (0.1, 0.2, 0.3, 0.4), strict=True):
        assert abs(count - 4000 * chance) < 5 * math.sqrt(4000 * chance * (1 - chance))


def test_pick_uses_one_number_per_draw():
    class Always:
        def __init__(self, number):
            self.number = number

        def random(self):
            return self.number

    # running sums 0.1, 0.3, 0.6, 1
    picked = [
        pick(LOGITS, Always(number), WARM) for number in (0.0, 0.09, 0.11, 0.31, 0.59, 0.61, 1 - 2**-53)
    ]
    assert picked == [0, 0, 1, 2, 2, 3, 3]
    assert all(type(token) is int for token in picked)


def test_temperature_zero_is_greedy_and_draws_nothing():
    rng = np.random.default_rng(7)
    assert pick(np.float32([1, 5, 5]), rng) == 1
    assert rng.random() == np.random.default_rng(7).random()


def test_equal_seeds_give_equal_texts():
    texts = [[s(LOGITS) for _ in range(20)] for s in (sampler(WARM, seed=k) for k in (3, 3, 4))]
    assert texts[0] == texts[1] != texts[2]
    assert sampler()(LOGITS) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature must lie in"),
        ({"temperature": math.nan}, "temperature must lie in"),
        ({"top_k": -1}, "top_k must lie in"),
        ({"top_p": 0.0}, r"top_p must lie in \(0, 1\]; got 0.0"),
        ({"top_p": 1.5}, "top_p must lie in"),
        ({"temperature": 1e-40}, "temperature must lie in"),
        ({"min_p": 1.5}, "min_p must lie in"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must lie in"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(RangeError, match=message):
        Sampling(**settings)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_refused(bad):
    for temperature in (0.0, 1.0):
        with pytest.raises(RangeError, match=f"logits must be finite; got {bad}"):
            pick(np.float32([0, bad, 1]), np.random.default_rng(0), Sampling(temperature=temperature))
    with pytest.raises(RangeError, match="temperature must be above 0"):
        probabilities(LOGITS, Sampling(temperature=0.0))
    with pytest.raises(ShapeError, match=r"logits must have shape \(any\); got \(1, 4\)"):
        pick(LOGITS[None], np.random.default_rng(0))
