import math

import numpy as np
import pytest
from helpers.assertions import assert_close, frozen

from awq_ref.errors import RangeError, ShapeError
from awq_ref.text import pick, probabilities, sampler

# probabilities 1/10, 2/10, 3/10, 4/10
LOGITS = frozen(np.log(np.array([1, 2, 3, 4], dtype=np.float32)))
ROUNDING = 1e-6  # float32 logarithms, off by 2**-24 relative, up to 1.4


def test_probabilities_at_temperature_one():
    likely = probabilities(LOGITS, temperature=1.0)
    assert likely.dtype == np.float64
    assert_close(likely, [0.1, 0.2, 0.3, 0.4], atol=ROUNDING)


def test_half_the_temperature_squares_them():
    assert_close(probabilities(LOGITS, temperature=0.5), np.array([1, 4, 9, 16]) / 30, atol=ROUNDING)


def test_top_k_keeps_the_likeliest_and_of_equals_the_smaller_ids():
    assert_close(probabilities(LOGITS, temperature=1.0, top_k=2), [0, 0, 3 / 7, 4 / 7], atol=ROUNDING)
    assert probabilities(np.float32([1, 1, 1]), temperature=1.0, top_k=2).tolist() == [0.5, 0.5, 0.0]
    assert_close(probabilities(LOGITS, temperature=1.0, top_k=9), [0.1, 0.2, 0.3, 0.4], atol=ROUNDING)


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.39, [3]), (0.41, [2, 3]), (0.69, [2, 3]), (0.71, [1, 2, 3]), (1.0, [0, 1, 2, 3]), (1e-9, [3])],
)
def test_top_p_keeps_the_fewest_that_reach_it(top_p, kept):
    assert np.flatnonzero(probabilities(LOGITS, temperature=1.0, top_p=top_p)).tolist() == kept


def test_top_p_counts_what_top_k_left():
    # of 3/7 and 4/7, 0.5 is reached by the second alone
    assert np.flatnonzero(probabilities(LOGITS, temperature=1.0, top_k=2, top_p=0.5)).tolist() == [3]


def test_a_token_with_logit_minus_infinity_has_no_chance():
    likely = probabilities(np.float32([0, -math.inf, 0]), temperature=2.0)
    assert likely.tolist() == [0.5, 0.0, 0.5]


def test_a_tiny_temperature_overflows_nothing():
    assert probabilities(np.float32([-3e38, 0, 3e38]), temperature=1e-30).tolist() == [0.0, 0.0, 1.0]


def test_pick_draws_each_token_as_often_as_it_should():
    rng = np.random.default_rng(7)
    counts = np.bincount([pick(LOGITS, rng) for _ in range(4000)], minlength=4)
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
    picked = [pick(LOGITS, Always(number)) for number in (0.0, 0.09, 0.11, 0.31, 0.59, 0.61, 1 - 2**-53)]
    assert picked == [0, 0, 1, 2, 2, 3, 3]
    assert all(type(token) is int for token in picked)


def test_temperature_zero_is_greedy_and_draws_nothing():
    rng = np.random.default_rng(7)
    assert pick(np.float32([1, 5, 5]), rng, temperature=0.0) == 1
    assert rng.random() == np.random.default_rng(7).random()


def test_equal_seeds_give_equal_texts():
    texts = [[s(LOGITS) for _ in range(20)] for s in (sampler(temperature=1.0, seed=k) for k in (3, 3, 4))]
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
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    for call in (sampler, lambda **kwargs: pick(LOGITS, np.random.default_rng(0), **kwargs)):
        with pytest.raises(RangeError, match=message):
            call(**settings)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_refused(bad):
    for temperature in (0.0, 1.0):
        with pytest.raises(RangeError, match=f"logits must be finite; got {bad}"):
            pick(np.float32([0, bad, 1]), np.random.default_rng(0), temperature=temperature)
    with pytest.raises(RangeError, match="temperature must be above 0"):
        probabilities(LOGITS, temperature=0.0)
    with pytest.raises(ShapeError, match=r"logits must have shape \(any\); got \(1, 4\)"):
        pick(LOGITS[None], np.random.default_rng(0))
