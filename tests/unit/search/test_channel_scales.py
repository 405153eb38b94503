import math

import numpy as np
import pytest
from helpers.assertions import assert_close, assert_same_bits

from awq_ref.errors import RangeError, ShapeError
from awq_ref.search import candidate, candidate_llm_awq, pool, search_channel_scales
from awq_ref.search.candidates import candidate_autoawq, candidate_unnormalized, relative_weight_mean
from awq_ref.search.channel_scales import Trials, search_together

GRID = tuple(i / 10 for i in range(11))


def f32(*values):
    return np.array(values, dtype=np.float32)


A = f32(1.0, 4.0, 16.0)


@pytest.mark.parametrize("make", [candidate, candidate_llm_awq])
def test_candidates_by_hand(make):
    assert_same_bits(make(A, 0.0), [1.0, 1.0, 1.0], dtype=np.float32)
    assert_same_bits(make(A, 0.5), [0.5, 1.0, 2.0], dtype=np.float32)
    assert_same_bits(make(A, 1.0), [0.25, 1.0, 4.0], dtype=np.float32)


def test_a_dead_channel_gets_one_and_moves_nothing():
    alone = candidate(A, 0.7)
    found = candidate(f32(1.0, 4.0, 0.0, 16.0), 0.7)
    assert_same_bits(found[[0, 1, 3]], alone)
    assert found[2] == 1.0


def test_llm_awq_lets_a_dead_channel_move_the_others():
    # t = 1e-4, 1, 4 with alpha 1/2: divided by sqrt(4 * 1e-4) = 0.02. Roundings: power, product, root, quotient.
    found = candidate_llm_awq(f32(0.0, 1.0, 16.0), 0.5)
    assert_close(found, [5e-3, 50.0, 200.0], rtol=4 * 2.0**-23)


def duo_by_hand(act, weights, group_size, alpha):
    """AutoAWQ's duo scaling, number by number, in Python floats."""
    n, rows = len(act), [row for weight in weights for row in weight.tolist()]
    shares = [0.0] * n
    for row in rows:
        for i in range(n):
            start = i // group_size * group_size
            shares[i] += (
                abs(row[i]) / (max(abs(w) for w in row[start : start + group_size]) + 1e-6) / len(rows)
            )
    powers = [max(a**alpha / (m ** (1 - alpha) + 1e-4), 1e-4) for a, m in zip(act, shares, strict=True)]
    middle = math.sqrt(max(powers) * min(powers))
    return [power / middle for power in powers]


@pytest.mark.parametrize("alpha", [0.0, 0.35, 0.95])
def test_autoawq_is_the_published_formula(alpha):
    rng = np.random.default_rng(4)
    weights = [rng.normal(size=(rows, 8)).astype(np.float32) for rows in (3, 5)]
    act = np.exp(rng.normal(size=8)).astype(np.float32)
    found = candidate_autoawq(act, alpha, weight_mean=relative_weight_mean(weights, 4))
    assert found.dtype == np.float32
    # Powers, quotient, product, root and quotient, each rounded once in float32, and the mean before them.
    assert_close(found, duo_by_hand(act.tolist(), weights, 4, alpha), rtol=8 * 2.0**-23)


@pytest.mark.parametrize("alpha", GRID)
@pytest.mark.parametrize("spread", [1e-38, 1e-20, 1e-6, 1e20])
def test_scales_stay_where_float16_is_safe(alpha, spread):
    scales = candidate(f32(1.0, spread, 0.0, 3.0), alpha)
    assert scales.dtype == np.float32
    assert scales.min() >= 2.0**-8 * (1 - 1e-6)
    assert scales.max() <= 2.0**8 * (1 + 1e-6)


def test_nothing_alive_means_nothing_scaled():
    assert_same_bits(candidate(np.zeros(3, dtype=np.float32), 0.5), [1.0, 1.0, 1.0], dtype=np.float32)


@pytest.mark.parametrize("make", [candidate, candidate_llm_awq])
def test_candidates_refuse(make):
    with pytest.raises(RangeError, match=r"alpha must lie in \[0.0, 1.0\]; got 1.5"):
        make(A, 1.5)
    with pytest.raises(RangeError, match="act_mean_abs must be finite"):
        make(f32(1.0, np.nan), 0.5)
    with pytest.raises(ShapeError, match="act_mean_abs must have shape"):
        make(A[None], 0.5)


def test_pool_is_the_mean_over_what_a_row_feeds():
    tie = np.array([0, 1, 0, 1, 2, 2], dtype=np.int64)
    assert_same_bits(pool(f32(1.0, 2.0, 3.0, 6.0, 5.0, 7.0), tie), [2.0, 4.0, 6.0], dtype=np.float32)


def curve(least):
    """A loss with its least value where the scales of A have this alpha."""
    return lambda scales: (math.log(float(scales[2])) / math.log(4.0) - least) ** 2


def test_the_least_loss_wins():
    found = search_channel_scales(curve(0.4), A, alphas=GRID)
    assert found.alphas == GRID
    assert found.alpha == 0.4
    assert found.loss == min(found.losses)
    assert_same_bits(found.channel_scales, candidate(A, 0.4))
    assert_same_bits(found.producer_scales, found.channel_scales)
    assert found.loss_rtn == found.losses[0]


def test_sites_searched_together_find_what_they_find_alone():
    settings = {"alphas": GRID, "refine": 0.05}
    leasts = (0.4, 0.0, 0.93)
    together = search_together([Trials(curve(least), A, **settings) for least in leasts], n_threads=2)
    for least, found in zip(leasts, together, strict=True):
        alone = search_channel_scales(curve(least), A, **settings)
        assert (found.alphas, found.losses, found.alpha) == (alone.alphas, alone.losses, alone.alpha)
        assert_same_bits(found.channel_scales, alone.channel_scales)
    assert search_together([], n_threads=2) == []


def test_refinement_looks_at_both_sides_of_the_best():
    found = search_channel_scales(curve(0.54), A, alphas=GRID, refine=0.05)
    assert found.alpha == 0.55
    assert found.alphas == (*GRID[:5], 0.45, 0.5, 0.55, *GRID[6:])


@pytest.mark.parametrize(("least", "extra"), [(0.0, 0.05), (1.0, 0.95)])
def test_refinement_stays_inside(least, extra):
    found = search_channel_scales(curve(least), A, alphas=GRID, refine=0.05)
    assert set(found.alphas) - set(GRID) == {extra}


def test_of_equal_losses_the_smallest_alpha_wins():
    assert search_channel_scales(lambda scales: 1.0, A, alphas=(0.5, 0.0, 1.0)).alpha == 0.0


def test_a_loss_that_is_not_finite_never_wins():
    def loss(scales):
        return math.nan if scales[2] == 1.0 else math.inf if scales[2] > 3.0 else 5.0

    assert search_channel_scales(loss, A, alphas=(0.0, 0.5, 1.0)).alpha == 0.5


def test_identity_is_judged_even_when_it_is_no_candidate():
    found = search_channel_scales(curve(0.0), A, alphas=(0.5,))
    assert (found.loss_rtn, found.alpha) == (0.0, 0.5)


def test_tied_channels_share_a_scale():
    tie = np.array([0, 1, 0, 1], dtype=np.int64)
    found = search_channel_scales(
        lambda s: -float(s.max()), f32(0.5, 7.0, 1.5, 9.0), alphas=(0.0, 1.0), tie=tie
    )
    assert_close(found.producer_scales, [8**-0.5, 8**0.5], rtol=2.0**-22)
    assert_same_bits(found.channel_scales, found.producer_scales[tie])


def test_what_is_judged_is_what_the_producer_realizes():
    judged = []

    def loss(scales):
        judged.append(scales.copy())
        return -float(scales[2])

    found = search_channel_scales(loss, A, alphas=(0.0, 0.5), realize=lambda s: s * np.float32(3.0))
    assert_same_bits(np.stack(judged), [[1.0, 1.0, 1.0], [1.5, 3.0, 6.0]], dtype=np.float32)
    assert_same_bits(found.channel_scales, judged[1])
    assert_same_bits(found.producer_scales, [0.5, 1.0, 2.0], dtype=np.float32)


def test_no_alpha_and_no_finite_loss():
    with pytest.raises(RangeError, match="alphas must hold at least one number"):
        search_channel_scales(curve(0.0), A, alphas=())
    with pytest.raises(RangeError, match="at least one alpha must have a finite loss; got .inf"):
        search_channel_scales(lambda scales: math.inf, A, alphas=(0.0, 1.0))
    with pytest.raises(RangeError, match="alpha must lie in"):
        search_channel_scales(curve(0.0), A, alphas=(2.0,))


def test_unnormalized_scales_are_the_power_alone():
    scales = candidate_unnormalized(np.array([1.0, 4.0, 16.0, 0.0], dtype=np.float32), 0.5)
    assert scales.dtype == np.float32
    assert scales.tolist() == [1.0, 2.0, 4.0, 1.0]
