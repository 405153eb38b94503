"""Laws of the decoder.

Every bound is the running error bound of the scalar oracle (tests/helpers/bounded.py): what is computed in float32, in
whatever order of additions, lies within it of the exact logits.
"""

from typing import Any, NamedTuple

import numpy as np
from helpers import scalar_oracles_model as oracle
from helpers.assertions import assert_close, assert_same_bits, frozen
from helpers.bounded import split
from helpers.tiny_model import make_decoder, random_tensors, tiny_config
from hypothesis import given
from hypothesis import strategies as st

from awq_ref.model import Decoder, generate_batch, new_cache

ROPES: list[dict[str, Any] | None] = [
    None,
    {"rope_type": "linear", "factor": 2.0},
    {
        "rope_type": "llama3",
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
]


class Drawn(NamedTuple):
    """A decoder over arrays that cannot be written to, a text, its logits and their bounds."""

    decoder: Decoder
    ids: list[int]
    expected: Any
    bound: Any


@st.composite
def decoders_with_a_text(draw: st.DrawFn, *, max_tokens: int = 6) -> Drawn:
    window = draw(st.integers(0, 3))  # mistral is llama with a window
    config = tiny_config(
        **({"model_type": "mistral", "sliding_window": window} if window else {}),
        num_hidden_layers=draw(st.integers(1, 2)),
        num_key_value_heads=draw(st.sampled_from([1, 2, 4])),
        attention_bias=draw(st.booleans()),
        tie_word_embeddings=draw(st.booleans()),
        rope_scaling=draw(st.sampled_from(ROPES)),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tensors = {name: frozen(array) for name, array in random_tensors(config, rng).items()}
    ids = draw(st.lists(st.integers(0, config.vocab_size - 1), min_size=1, max_size=max_tokens))
    expected, bound = split(oracle.logits(ids, config, tensors))
    return Drawn(make_decoder(config, tensors), ids, expected, bound)


@given(drawn=decoders_with_a_text(), data=st.data())
def test_prefill_is_step_by_step_decoding(drawn, data):
    """P-CACHE: the logits of a text are the same whole, one token at a time, or in pieces of any length."""
    decoder, ids, expected, bound = drawn
    whole = decoder.logits(frozen(np.array([ids], dtype=np.int64)))
    assert_close(whole[0], expected, atol=bound)
    cut = data.draw(st.lists(st.integers(0, len(ids)), max_size=3), label="cuts")
    page = data.draw(st.integers(1, len(ids)), label="page")
    for cuts in (range(len(ids) + 1), sorted({0, *cut, len(ids)})):
        cache, pieces = new_cache(decoder.config, batch=1, capacity=len(ids), page=page), []
        for first, last in zip(list(cuts)[:-1], list(cuts)[1:], strict=True):
            logits, cache = decoder.forward(frozen(np.array([ids[first:last]], dtype=np.int64)), cache)
            pieces.append(logits)
        assert_close(np.concatenate(pieces, axis=1)[0], whole[0], atol=2 * bound)


@given(drawn=decoders_with_a_text(), data=st.data())
def test_what_was_taken_back_leaves_no_trace(drawn, data):
    """P-CACHE: pieces of other texts read in between and taken back, as far back as windows allow, change no logits."""
    decoder, ids, expected, bound = drawn
    cache, known = new_cache(decoder.config, batch=1, page=data.draw(st.integers(1, 4), label="page")), 0
    for _ in range(data.draw(st.integers(1, 4), label="rounds")):
        end = data.draw(st.integers(known + 1, len(ids)), label="end")
        logits, cache = decoder.forward(frozen(np.array([ids[known:end]], dtype=np.int64)), cache)
        assert_close(logits[0], expected[known:end], atol=bound[known:end])
        other = data.draw(st.lists(st.integers(0, 16), min_size=1, max_size=3), label="other")
        _, cache = decoder.forward(np.array([other], dtype=np.int64), cache)
        backs = [length for length in range(len(ids)) if not length or cache.shortest <= length <= end]
        known = data.draw(st.sampled_from(backs), label="back to")
        cache = cache.truncated(known)


@given(drawn=decoders_with_a_text(), left=st.integers(0, 3), right=st.integers(0, 3), data=st.data())
def test_padding_changes_nothing(drawn, left, right, data):
    """Padding on either side, whatever ids it holds, with or without a cache, leaves the text's logits alone."""
    decoder, ids, expected, bound = drawn
    padding = data.draw(
        st.lists(st.integers(0, 16), min_size=left + right, max_size=left + right), label="padding"
    )
    row = [*padding[:left], *ids, *padding[left:]]
    other = [1] * len(row)  # a second text that fills the whole row
    batch = frozen(np.array([row, other], dtype=np.int64))
    mask = frozen(np.array([[0] * left + [1] * len(ids) + [0] * right, [1] * len(row)], dtype=np.int64))
    real = slice(left, left + len(ids))
    logits = decoder.logits(batch, attention_mask=mask)
    assert np.isfinite(logits).all()
    assert_close(logits[0, real], expected, atol=bound)
    cut = data.draw(st.integers(left + 1, len(row)), label="cut")
    page = data.draw(st.integers(1, len(row)), label="page")
    cache = new_cache(decoder.config, batch=2, capacity=len(row), page=page)
    logits, cache = decoder.forward(batch[:, :cut], cache, attention_mask=mask[:, :cut])
    if cut < len(row):
        rest, _ = decoder.forward(batch[:, cut:], cache, attention_mask=mask[:, cut:])
        logits = np.concatenate([logits, rest], axis=1)
    assert_close(logits[0, real], expected, atol=bound)


@given(drawn=decoders_with_a_text(max_tokens=4), data=st.data())
def test_a_later_token_changes_no_earlier_logits(drawn, data):
    """The causal mask: what follows a token is not seen by it."""
    decoder, ids, expected, bound = drawn
    more = data.draw(st.lists(st.integers(0, 16), min_size=1, max_size=4), label="more")
    logits = decoder.logits(np.array([[*ids, *more]], dtype=np.int64))
    assert_close(logits[0, : len(ids)], expected, atol=bound)


@given(drawn=decoders_with_a_text())
def test_inputs_are_never_written_to(drawn):
    """P-INPUT: weights (frozen when drawn), ids and masks; what they hold afterwards is what they held before."""
    decoder, ids, _, _ = drawn
    batch, mask = frozen(np.array([ids], dtype=np.int64)), frozen(np.ones((1, len(ids)), dtype=np.bool_))
    before = decoder.embed_tokens.copy()
    decoder.forward(batch, new_cache(decoder.config, batch=1, capacity=len(ids)), attention_mask=mask)
    decoder.head(frozen(decoder.hidden(batch)))
    decoder.generate(batch[0], max_new_tokens=2)
    generate_batch(decoder, [batch[0], batch[0, :1]], max_new_tokens=2)
    assert_same_bits(decoder.embed_tokens, before)
