import math

import numpy as np
import pytest
from helpers import scalar_oracles_model as oracle
from helpers.assertions import assert_close, assert_same_bits, frozen
from helpers.bounded import Bounded, exact, split
from helpers.scalar_oracles_older import slopes
from helpers.tiny_families import FAMILY_CHANGES
from helpers.tiny_model import tiny_config, tiny_decoder

from awq_ref.model import attention as module
from awq_ref.model import make_context, new_cache
from awq_ref.model.alibi import Alibi, alibi_bias, alibi_slopes
from awq_ref.model.attention import Scores, attention, column_bias

PLAIN, FALCON = Alibi(), Alibi(rounded=True, scaled=True)


def test_slopes_by_hand():
    assert alibi_slopes(8).tolist() == [2.0**-h for h in range(1, 9)]
    # Six heads: those of four, then the odd ones of eight.
    assert alibi_slopes(6).tolist() == [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3]
    assert alibi_slopes(1).tolist() == [2.0**-8]


@pytest.mark.parametrize("heads", [*range(1, 20), 71, 112])
def test_slopes_are_those_of_the_authors(heads):
    assert_close(alibi_slopes(heads), slopes(heads), rtol=1e-12)


@pytest.mark.parametrize(("heads", "largest"), [(4, 8), (6, 8), (12, 16), (5, 3)])
def test_slopes_are_those_of_mpt(heads, largest):
    """MPT takes the power of two above, and puts every second slope first."""
    above = 2 ** math.ceil(math.log2(heads))
    series = [2 ** (-largest * (h + 1) / above) for h in range(above)]
    wanted = series if above == heads else (series[1::2] + series[::2])[:heads]
    assert_close(alibi_slopes(heads, largest), wanted, rtol=1e-12)


def test_bias_by_hand():
    positions = frozen(np.array([[0, 1, 2], [0, 0, 5]], dtype=np.int64))
    plain = alibi_bias(PLAIN, positions, 2, scale=0.5)
    assert plain.dtype == np.float32
    assert_same_bits(
        plain,
        [[[0, 1 / 16, 1 / 8], [0, 1 / 256, 1 / 128]], [[0, 0, 5 / 16], [0, 0, 5 / 256]]],
        dtype=np.float32,
    )
    scaled = alibi_bias(Alibi(scaled=True), positions, 2, scale=0.5)
    assert_same_bits(scaled, plain / 2)


def test_falcons_bias_has_eight_digits():
    # Slope 1/16; 257/16 = 16.0625, as near to 16 as to 16.125: 16 has the even last digit.
    # 259/16 = 16.1875: 16.125 or 16.25, the latter even.
    positions = np.array([[256, 257, 259, 260]], dtype=np.int64)
    bias = alibi_bias(Alibi(rounded=True), positions, 2, scale=1.0)
    assert_same_bits(bias[0, 0], [16.0, 16.0, 16.25, 16.25], dtype=np.float32)
    # Three heads: the third slope is 1/4; twelve: one is 2**-(1/2) = 0.70710..., in eight digits 181 / 256.
    assert alibi_bias(FALCON, np.array([[1]], dtype=np.int64), 12, scale=2.0)[0, 8, 0] == 2 * 181 / 256


@pytest.mark.parametrize("shape", [(2, 2, 5, 3, 5, 4), (1, 2, 1, 2, 9, 4), (2, 1, 4, 1, 11, 6)])
@pytest.mark.parametrize("tile", [None, 2])
@pytest.mark.parametrize("texts", ["each", "all"])
def test_attention_follows_the_scalar_loop(rng, monkeypatch, shape, tile, texts):
    if tile:
        monkeypatch.setattr(module, "TILE_QUERIES", tile)
        monkeypatch.setattr(module, "TILE_SCORES", 1)
    B, G, T, R, S, D = shape
    q = frozen(rng.normal(0, 1, (B, G, T, R, D)).astype(np.float32))
    k, v = (frozen(rng.normal(0, 1, (B, G, S, D)).astype(np.float32)) for _ in range(2))
    # Multiples of 1/8, so that differences of them are exact.
    bias = frozen(
        np.round(8 * rng.normal(0, 2, (B if texts == "each" else 1, G, R, S))).astype(np.float32) / 8
    )

    def one(b, t, g, r):
        own = S - T + t
        added = [
            Bounded(float(bias[b % len(bias), g, r, c] - bias[b % len(bias), g, r, own]))
            for c in range(own + 1)
        ]
        keys, values = exact(k[b, g, : own + 1]), exact(v[b, g, : own + 1])
        return oracle.attend(exact(q[b, g, t, r]), keys, values, scale=0.5, bias=added)

    loops = [[[[one(b, t, g, r) for r in range(R)] for g in range(G)] for t in range(T)] for b in range(B)]
    expected, bound = split(loops)
    assert_close(attention(q, k, v, scores=Scores(0.5), alibi=bias), expected, atol=4 * bound)


def test_what_is_added_is_zero_at_the_last_column():
    alibi, padding = np.float32([[1.0, 2.0, 4.0]]), np.float32([-1e30, 0.0, 0.0])
    assert column_bias(None, None) is None
    assert column_bias(padding, None) is padding
    assert_same_bits(column_bias(None, alibi), [[-3.0, -2.0, 0.0]], dtype=np.float32)
    assert_same_bits(column_bias(padding, alibi), [[-1e30, -2.0, 0.0]], dtype=np.float32)


def test_positions_of_the_columns_count_no_padding():
    config = tiny_config(**FAMILY_CHANGES["bloom"])
    assert make_context(tiny_config(), 3).alibi is None
    context = make_context(config, 3)
    assert context.alibi.shape == (1, 4, 1, 3)
    assert_same_bits(context.alibi[0, 0, 0], [0, 0.25, 0.5], dtype=np.float32)
    mask = np.array([[False, True, True], [True, True, True]])
    padded = make_context(config, 3, attention_mask=mask)
    assert_same_bits(padded.alibi[:, 0, 0], [[0, 0, 0.25], [0, 0.25, 0.5]], dtype=np.float32)


@pytest.mark.parametrize("family", ["bloom", "mpt", "falcon_sequential"])
def test_padding_changes_nothing(rng, family):
    decoder = tiny_decoder(rng, **FAMILY_CHANGES[family])
    ids = rng.integers(0, 17, (1, 6), dtype=np.int64)
    alone = decoder.logits(ids)
    mask = np.array([[0] * 3 + [1] * 6], dtype=np.int64)
    padded = decoder.logits(
        np.concatenate([np.zeros((1, 3), dtype=np.int64), ids], axis=1), attention_mask=mask
    )
    assert_close(padded[:, 3:], alone, atol=1e-6 * np.abs(alone).max())


def test_a_cache_keeps_the_distance(rng):
    decoder = tiny_decoder(rng, **FAMILY_CHANGES["mpt"])
    ids = rng.integers(0, 17, (2, 9), dtype=np.int64)
    cache = new_cache(decoder.config, batch=2, capacity=9)
    _, cache = decoder.forward(ids[:, :8], cache)
    last, _ = decoder.forward(ids[:, 8:], cache)
    whole = decoder.logits(ids)
    assert_close(last[:, 0], whole[:, 8], atol=1e-6 * np.abs(whole).max())
