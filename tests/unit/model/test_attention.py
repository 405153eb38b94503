import math

import numpy as np
import pytest
from helpers import scalar_oracles_model as oracle
from helpers.assertions import assert_close, assert_same_bits, frozen
from helpers.bounded import exact, split

from awq_ref.model import attention as module
from awq_ref.model.attention import Scores, attention
from awq_ref.model.context import PADDED
from awq_ref.model.ops import take_exponentials


def draw(rng, B, G, T, R, S, D):  # noqa: N803
    q = rng.normal(0, 1.5, (B, G, T, R, D))
    k, v = rng.normal(0, 1.5, (2, B, G, S, D))
    return (frozen(a.astype(np.float32)) for a in (q, k, v))


def mix(q, k, v, *, padding=None, cap=0.0, window=0):
    """Our attention with the usual scale."""
    return attention(q, k, v, scores=Scores(1.0 / math.sqrt(q.shape[-1]), cap, window), padding=padding)


def expect(q, k, v, hidden=(), cap=0.0, window=0):
    """The oracle for every query; columns in `hidden` do not exist for it. Values and bounds (B, T, G, R, D)."""
    B, G, T, R, _ = q.shape
    S = k.shape[2]
    qs, ks, vs = exact(q), exact(k), exact(v)

    def one(b, t, g, r):
        own = S - T + t
        seen = [c for c in range(own + 1) if c not in hidden and (not window or own - c < window)]
        keys, values = [ks[b][g][c] for c in seen], [vs[b][g][c] for c in seen]
        return oracle.attend(qs[b][g][t][r], keys, values, scale=1 / math.sqrt(q.shape[-1]), cap=cap)

    return split(
        [[[[one(b, t, g, r) for r in range(R)] for g in range(G)] for t in range(T)] for b in range(B)]
    )


def test_a_query_that_matches_all_keys_alike_averages_what_it_sees():
    q = np.zeros((1, 1, 3, 1, 2), dtype=np.float32)
    k = np.ones((1, 1, 3, 2), dtype=np.float32)
    v = np.float32([[[[6, 0], [2, 4], [1, 2]]]])
    mixed = mix(q, k, v)
    assert_same_bits(mixed.reshape(3, 2), [[6, 0], [4, 2], [3, 2]], dtype=np.float32)


@pytest.mark.parametrize("size", [3.0, 12.0])  # |q| |k| below and above 60
def test_no_maximum_is_subtracted_where_scores_are_small(rng, monkeypatch, size):
    seen = []

    def spy(scores, *, small):
        seen.append(small)
        return take_exponentials(scores, small=small)

    monkeypatch.setattr(module, "take_exponentials", spy)
    q = rng.normal(0, 1, (1, 2, 16, 2, 8)).astype(np.float32)
    k = rng.normal(0, 1, (1, 2, 16, 8)).astype(np.float32)
    q *= size / np.linalg.norm(q, axis=-1, keepdims=True)
    k *= size / np.linalg.norm(k, axis=-1, keepdims=True)
    v = rng.normal(0, 1, (1, 2, 16, 8)).astype(np.float32)
    found = attention(q, k, v, scores=Scores(1.0))
    assert set(seen) == {size < 7.7}
    monkeypatch.setattr(module, "SMALL_SCORE", 0.0)
    shifted = attention(q, k, v, scores=Scores(1.0))
    # Each weight has an exponential, a product and sums of 16 rounded differently: 2 * (16 + 8) roundings, and an
    # error of the score, 8 roundings of at most size**2, in the exponent.
    bound = (48 + 2 * 8 * size**2) * 2.0**-24 * np.abs(v).max()
    np.testing.assert_allclose(found, shifted, rtol=0, atol=bound)


def test_padding_and_few_queries_keep_the_maximum(rng, monkeypatch):
    seen = []

    def spy(scores, *, small):
        seen.append(small)
        return take_exponentials(scores, small=small)

    monkeypatch.setattr(module, "take_exponentials", spy)
    k = rng.normal(0, 0.1, (1, 1, 16, 8)).astype(np.float32)
    attention(k[:, :, :, None], k, k, scores=Scores(1.0), padding=np.zeros((1, 16), dtype=np.float32))
    attention(k[:, :, -1:, None], k, k, scores=Scores(1.0))
    assert seen == [False, False]


def test_query_heads_read_their_own_key_value_head():
    q = np.zeros((1, 2, 1, 2, 2), dtype=np.float32)
    k = np.zeros((1, 2, 1, 2), dtype=np.float32)
    v = np.float32([[[[1, 2]], [[3, 4]]]])
    assert mix(q, k, v).reshape(4, 2).tolist() == [[1, 2], [1, 2], [3, 4], [3, 4]]


@pytest.mark.parametrize("shape", [(2, 2, 5, 3, 5, 4), (1, 2, 1, 2, 9, 4), (1, 1, 4, 1, 11, 6)])
@pytest.mark.parametrize("tile", [None, 2])
def test_it_follows_the_scalar_loop(rng, monkeypatch, shape, tile):
    if tile:  # several tiles, the last one smaller
        monkeypatch.setattr(module, "TILE_SCORES", 1)
        monkeypatch.setattr(module, "TILE_QUERIES", tile)
        monkeypatch.setattr(module, "TILE_SCORES", tile * shape[3] * shape[4])
    q, k, v = draw(rng, *shape)
    expected, bound = expect(q, k, v)
    mixed = mix(q, k, v)
    assert mixed.dtype == np.float32
    assert mixed.shape == expected.shape
    assert_close(mixed, expected, atol=bound)


@pytest.mark.parametrize("tile", [None, 2])
def test_padded_columns_do_not_exist(rng, monkeypatch, tile):
    if tile:
        monkeypatch.setattr(module, "TILE_QUERIES", tile)
    q, k, v = draw(rng, 1, 2, 6, 2, 6, 4)
    padding = np.zeros((1, 6), dtype=np.float32)
    padding[0, :2] = PADDED
    expected, bound = expect(q[:, :, 2:], k, v, hidden=(0, 1))
    mixed = mix(q, k, v, padding=frozen(padding))
    assert_close(mixed[:, 2:], expected, atol=bound)
    assert np.isfinite(mixed[:, :2]).all()  # queries that see only padding: meaningless, but no NaN


def test_keys_and_values_may_be_views(rng):
    q, k, v = draw(rng, 2, 2, 3, 2, 5, 4)
    wide = np.zeros((2, 8, 2, 4), dtype=np.float32)
    wide[:, :5] = v.transpose(0, 2, 1, 3)
    view = frozen(wide)[:, :5].transpose(0, 2, 1, 3)
    assert_close(mix(q, k, view), expect(q, k, v)[0], atol=expect(q, k, v)[1])


@pytest.mark.parametrize("shape", [(2, 2, 7, 3, 7, 4), (1, 2, 1, 2, 9, 4), (1, 1, 4, 1, 11, 6)])
@pytest.mark.parametrize("tile", [None, 2])
@pytest.mark.parametrize(("cap", "window"), [(0.5, 0), (0.0, 1), (0.0, 3), (0.0, 100), (2.0, 4)])
def test_caps_and_windows_follow_the_scalar_loop(rng, monkeypatch, shape, tile, cap, window):
    if tile:
        monkeypatch.setattr(module, "TILE_QUERIES", tile)
        monkeypatch.setattr(module, "TILE_SCORES", tile * shape[3] * shape[4])
    q, k, v = draw(rng, *shape)
    expected, bound = expect(q, k, v, cap=cap, window=window)
    mixed = mix(q, k, v, cap=cap, window=window)
    assert mixed.dtype == np.float32
    assert_close(mixed, expected, atol=bound)


def test_a_window_of_one_sees_only_itself():
    q = np.zeros((1, 1, 3, 1, 2), dtype=np.float32)
    k = np.ones((1, 1, 3, 2), dtype=np.float32)
    v = np.float32([[[[6, 0], [2, 4], [1, 2]]]])
    assert mix(q, k, v, window=1).reshape(3, 2).tolist() == [[6, 0], [2, 4], [1, 2]]
    assert mix(q, k, v, window=2).reshape(3, 2).tolist() == [[6, 0], [4, 2], [1.5, 3]]


@pytest.mark.parametrize("tile", [None, 2])
def test_padding_and_window_together(rng, monkeypatch, tile):
    if tile:
        monkeypatch.setattr(module, "TILE_QUERIES", tile)
        monkeypatch.setattr(module, "TILE_SCORES", tile)
    q, k, v = draw(rng, 1, 2, 6, 2, 6, 4)
    padding = np.zeros((1, 6), dtype=np.float32)
    padding[0, :2] = PADDED
    expected, bound = expect(q[:, :, 2:], k, v, hidden=(0, 1), window=3)
    mixed = mix(q, k, v, padding=frozen(padding), window=3)
    assert_close(mixed[:, 2:], expected, atol=bound)
    assert np.isfinite(mixed).all()


@pytest.mark.parametrize("window", [0, 70])
@pytest.mark.parametrize("tokens", [1, 5, 300])  # by heads, twice, and by tiles
def test_the_number_of_threads_does_not_change_the_averages(rng, monkeypatch, tokens, window):
    monkeypatch.setattr(module, "THREADED_KEYS", 1)
    q, k, v = draw(rng, 2, 3, tokens, 3, 340, 8)
    found = []
    for n_threads in (1, 2, 3):
        monkeypatch.setattr(module, "default_threads", lambda n=n_threads: n)
        found.append(mix(q, k, v, window=window))
    for mixed in found[1:]:
        assert_same_bits(mixed, found[0])
