"""What a pass allocates, counted by tracemalloc, which sees NumPy's arrays: no time is measured.

The decoders are those of `tiny_model` with wider heads and a longer context, so that keys, scores and the stream can be
told apart by their sizes.
"""

import tracemalloc

import numpy as np
import pytest
from helpers.tiny_model import tiny_decoder

from awq_ref.model import attention as attention_module
from awq_ref.model import new_cache
from awq_ref.model.attention import TILE_SCORES
from awq_ref.model.decoder import PREFILL_CHUNK

HEAD, KEY_HEADS, QUERY_HEADS, LAYERS = 64, 2, 4, 2
SLACK = 2**16  # Python objects, and small arrays of the stream


def decoder_of(rng, context):
    return tiny_decoder(rng, head_dim=HEAD, max_position_embeddings=context)


def peak_of(work):
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("columns", [256, 2048, 8192])
def test_a_decode_step_allocates_its_scores_and_no_keys(rng, columns):
    decoder = decoder_of(rng, columns + 8)
    cache = new_cache(decoder.config, batch=1, capacity=columns + 8)
    _, cache = decoder.forward(np.ones((1, columns), dtype=np.int64), cache, last_only=True)
    token = np.array([[1]])
    decoder.forward(token, cache)
    peak = peak_of(lambda: decoder.forward(token, cache))
    scores = 4 * QUERY_HEADS * columns
    keys_of_a_layer = 4 * KEY_HEADS * HEAD * columns
    # One array of scores lives at a time, and in each thread, at most one per key head, a row of ones that sums them.
    allowed = scores + 4 * KEY_HEADS * columns + SLACK
    assert peak <= allowed
    if columns == 8192:
        assert allowed < keys_of_a_layer / 4  # a copy of a layer's keys would show


@pytest.mark.parametrize("tokens", [1024, 4096])
def test_a_prompt_needs_a_chunk_of_everything_and_a_tile_of_scores(rng, tokens):
    decoder = decoder_of(rng, tokens)
    cache = new_cache(decoder.config, batch=1, capacity=tokens)
    ids = np.ones((1, tokens), dtype=np.int64)
    peak = peak_of(lambda: decoder.forward(ids, cache, last_only=True))
    # Of a chunk's tokens: q, k, v and the turned q, the mixed values (each at most 4 heads of 64), the stream and the
    # MLP (at most 12 wide) with its copies; rope tables and their float64 angles. Of the scores a tile, the mask of
    # its queries, and the row maximum's and the sum's temporaries, no larger than a tile.
    chunk = 4 * PREFILL_CHUNK * (8 * QUERY_HEADS * HEAD + 10 * 12 + 4 * HEAD)
    tiles = 2 * 4 * TILE_SCORES + 4 * attention_module.TILE_QUERIES**2
    assert peak <= chunk + tiles + SLACK + 8 * tokens  # and the ids
    scores_of_all = 4 * tokens * tokens * QUERY_HEADS
    if tokens == 4096:
        assert chunk + tiles + SLACK + 8 * tokens < scores_of_all / 20
