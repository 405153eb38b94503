"""Ropes whose frequencies depend on the length of the text: in one pass, in chunks, token by token."""

import numpy as np
import pytest
from helpers.assertions import assert_close
from helpers.tiny_model import tiny_decoder

from awq_ref.errors import RangeError
from awq_ref.model import generate_batch, make_context, must_reread, new_cache

ORIGINAL = 6
LONGROPE = {
    "max_position_embeddings": 24,
    "original_max_position_embeddings": ORIGINAL,
    "rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.0], "long_factor": [3.0, 7.0]},
}
DYNAMIC = {"max_position_embeddings": ORIGINAL, "rope_scaling": {"type": "dynamic", "factor": 4.0}}
BOTH = pytest.mark.parametrize("changes", [LONGROPE, DYNAMIC], ids=["longrope", "dynamic"])
PROMPT = [3, 1, 4, 1]
IDS = np.array([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3]], dtype=np.int64)
# Of the largest logit: the same numbers, added in another order.
TOLERANCE = 64 * 2.0**-24


def sharp(rng, changes):
    """A decoder in whose attention a turn of the keys shows."""
    decoder = tiny_decoder(rng, **changes)
    for block in decoder.blocks:
        for name in ("q_proj", "k_proj"):
            block.linears[f"self_attn.{name}"].weight *= 20.0
    return decoder


def by_full_passes(decoder, prompt, count):
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(np.argmax(decoder.logits(np.array([ids]))[0, -1])))
    return ids[len(prompt) :]


def in_pieces(decoder, cuts):
    cache, pieces = new_cache(decoder.config, batch=1, capacity=IDS.shape[1]), []
    for first, last in zip(cuts[:-1], cuts[1:], strict=True):
        logits, cache = decoder.forward(IDS[:, first:last], cache)
        pieces.append(logits)
    return np.concatenate(pieces, axis=1)


@BOTH
def test_a_prompt_in_chunks_has_the_frequencies_of_the_whole(rng, monkeypatch, changes):
    decoder = sharp(rng, changes)
    expected = decoder.logits(IDS)
    monkeypatch.setattr("awq_ref.model.decoder.PREFILL_CHUNK", 3)
    assert_close(in_pieces(decoder, (0, 10)), expected, atol=TOLERANCE * np.abs(expected).max())


@BOTH
def test_what_a_cache_holds_keeps_its_angles(rng, changes):
    """Past the original length a text read in pieces is not the text read at once: transformers has that too."""
    decoder = sharp(rng, changes)
    whole, pieces = decoder.logits(IDS), in_pieces(decoder, (0, 5, 10))
    assert np.abs(whole - pieces).max() > 1000 * TOLERANCE * np.abs(whole).max()
    short = decoder.logits(IDS[:, :5])
    assert_close(pieces[:, :5], short, atol=TOLERANCE * np.abs(short).max())


def test_longrope_text_is_that_of_full_passes_across_the_original_length(rng):
    decoder = sharp(rng, LONGROPE)
    expected = by_full_passes(decoder, PROMPT, 12)
    assert decoder.generate(PROMPT, max_new_tokens=12) == expected
    prompts = [PROMPT, [2, 7, 1, 8]]
    assert generate_batch(decoder, prompts, max_new_tokens=12) == [
        expected,
        by_full_passes(decoder, prompts[1], 12),
    ]


@pytest.mark.parametrize(
    ("before", "after", "anew"), [(1, 6, False), (6, 7, True), (7, 20, False), (20, 5, True), (3, 9, True)]
)
def test_when_a_cache_cannot_be_kept(rng, before, after, anew):
    assert must_reread(tiny_decoder(rng, **LONGROPE).config, before, after) == anew
    assert not must_reread(tiny_decoder(rng, **DYNAMIC).config, before, after)
    assert not must_reread(tiny_decoder(rng).config, before, after)


def test_the_longest_row_of_a_batch_decides(rng):
    decoder = sharp(rng, LONGROPE)
    mask = np.array([[1] * 7, [0, 0, 0, 1, 1, 1, 1]])
    rows = np.array([IDS[0, :7], [0, 0, 0, *IDS[0, :4]]])
    logits = decoder.logits(rows, attention_mask=mask)
    shorter = decoder.logits(IDS[:, :4])[0]
    assert np.abs(logits[1, 3:] - shorter).max() > 1000 * TOLERANCE * np.abs(shorter).max()
    batch = generate_batch(decoder, [IDS[0, :7], IDS[0, :4]], max_new_tokens=3)
    assert batch[1][0] == int(np.argmax(logits[1, -1]))
    # Padding is not counted: the row of four tokens alone is short, however wide it was padded.
    alone = decoder.logits(rows[1:], attention_mask=mask[1:])
    assert_close(alone[0, 3:], shorter, atol=TOLERANCE * np.abs(shorter).max())


def test_dynamic_text_may_be_longer_than_max_position_embeddings(rng):
    decoder = sharp(rng, DYNAMIC)
    assert len(decoder.generate(PROMPT, max_new_tokens=100)) == 24 - 4
    with pytest.raises(RangeError, match="context of 24 tokens"):
        decoder.logits(np.zeros((1, 25), dtype=np.int64))


def test_the_tables_carry_the_attention_factor(rng):
    plain = make_context(tiny_decoder(rng).config, 3)
    scaled = {"type": "yarn", "factor": 1.0, "attention_factor": 1.5}
    yarn = make_context(tiny_decoder(rng, rope_scaling=scaled).config, 3)
    assert_close(yarn.cos, 1.5 * plain.cos, rtol=2.0**-23)
    assert_close(yarn.sin, 1.5 * plain.sin, atol=2.0**-23)
