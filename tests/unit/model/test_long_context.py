"""Texts longer than windows and pages, decoded with a cache: the logits of the scalar loop over the whole text."""

from functools import lru_cache

import numpy as np
import pytest
from helpers import scalar_oracles_model as oracle
from helpers.assertions import assert_close, assert_same_bits
from helpers.bounded import split
from helpers.tiny_families import FAMILY_CHANGES, WINDOW
from helpers.tiny_model import make_decoder, random_tensors, tiny_config

from awq_ref.errors import RangeError
from awq_ref.model import FAMILIES, new_cache
from awq_ref.model import decoder as module

TOKENS = 20
IDS = np.random.default_rng(3).integers(0, 17, (2, TOKENS), dtype=np.int64)
PADDING = 5  # columns of padding left of the first text, more than a window and a page
# Of the largest logit: as in test_families.py, a few roundings of each of some twenty steps.
TOLERANCE = 64 * 2.0**-24
EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)
CUTS = {
    "one by one": range(TOKENS + 1),
    "over borders of pages and windows": (0, 3, 5, 10, 11, 13, 20),
    "a prompt and steps": (0, 14, *range(15, TOKENS + 1)),
}


def seed(family):
    return np.random.default_rng(list(FAMILIES).index(family))


@lru_cache
def made(family):
    config = tiny_config(**FAMILY_CHANGES[family])
    return config, random_tensors(config, seed(family), gain=0.7)


@lru_cache
def expected(family, row, first=0):
    """The logits of a text from a column on, by the scalar loop."""
    config, tensors = made(family)
    return split(oracle.logits(IDS[row, first:].tolist(), config, tensors))[0]


def assert_near(logits, wanted):
    assert logits.dtype == np.float32
    assert_close(logits, wanted, atol=TOLERANCE * np.abs(wanted).max())


def decoded(decoder, ids, cache, cuts, mask=None):
    """The logits of some texts in pieces, and the cache that knows them."""
    pieces = []
    for first, last in zip(cuts[:-1], cuts[1:], strict=True):
        part = None if mask is None else mask[:, first:last]
        logits, cache = decoder.forward(ids[:, first:last], cache, attention_mask=part)
        pieces.append(logits)
    return np.concatenate(pieces, axis=1), cache


@EVERY_FAMILY
@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("page", [1, 4, None])
def test_cached_decoding_past_windows_and_pages(family, cuts, page):
    """P-CACHE for every family."""
    decoder = make_decoder(*made(family))
    logits, cache = decoded(decoder, IDS, new_cache(decoder.config, batch=2, page=page), list(cuts))
    for row in range(2):
        assert_near(logits[row], expected(family, row))
    for layer, kept in enumerate(cache.store.layers):
        longest = max(np.diff(list(cuts)))
        if page and decoder.config.window(layer):
            assert kept.buffers.keys.shape[2] <= WINDOW - 1 + max(page, longest)


@EVERY_FAMILY
@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
def test_left_padding_past_windows_and_pages(monkeypatch, family, cuts):
    monkeypatch.setattr(module, "PREFILL_CHUNK", 2)  # the first chunks are all padding
    decoder = make_decoder(*made(family))
    mask = np.ones((2, TOKENS), dtype=np.bool_)
    mask[0, :PADDING] = False
    later = [0, *(cut for cut in cuts if cut > PADDING)]  # the first piece holds a token of each text
    logits, _ = decoded(decoder, IDS, new_cache(decoder.config, batch=2, page=4), later, mask)
    assert_near(logits[0, PADDING:], expected(family, 0, PADDING))
    assert_near(logits[1], expected(family, 1))


@EVERY_FAMILY
@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_prefill_in_chunks_past_windows(monkeypatch, family, chunk):
    monkeypatch.setattr(module, "PREFILL_CHUNK", chunk)
    decoder = make_decoder(*made(family))
    logits, _ = decoder.forward(IDS, new_cache(decoder.config, batch=2, page=2))
    for row in range(2):
        assert_near(logits[row], expected(family, row))


@EVERY_FAMILY
def test_going_back_gives_the_text_without_what_followed(family):
    decoder = make_decoder(*made(family))
    _, cache = decoded(decoder, IDS[::-1], new_cache(decoder.config, batch=2, page=4), [0, 6, 7])
    back = cache.truncated(max(4, cache.shortest))
    logits, _ = decoded(decoder, IDS, cache.truncated(0), [0, back.length, TOKENS])
    for row in range(2):
        assert_near(logits[row], expected(family, row))


@EVERY_FAMILY
def test_a_common_beginning_is_read_once(family):
    decoder = make_decoder(*made(family))
    other = IDS.copy()
    other[:, 8:] = (other[:, 8:] + 1) % 17
    start, cache = decoded(decoder, other, new_cache(decoder.config, batch=2, page=7), [0, 5, 9, 10])
    rest, _ = decoded(decoder, IDS[:, 8:], cache.truncated(8), [0, 1, TOKENS - 8])
    for row in range(2):
        assert_near(np.concatenate([start[row, :8], rest[row]]), expected(family, row))


def test_two_continuations_of_one_cache_past_a_window():
    decoder = make_decoder(*made("mistral"))
    _, start = decoded(decoder, IDS, new_cache(decoder.config, batch=2, page=4), [0, 6, 7])
    first, longer = decoder.forward(IDS[:, 7:10], start)
    decoder.forward(IDS[:, 12:14], start)
    again, _ = decoder.forward(IDS[:, 7:10], start)
    assert_same_bits(again, first)
    with pytest.raises(RangeError, match="another continuation"):
        decoder.forward(IDS[:, 10:11], longer)
