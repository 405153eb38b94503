import numpy as np
import pytest
from helpers import scalar_oracles_model as oracle
from helpers.assertions import assert_close, assert_same_bits, frozen
from helpers.bounded import split
from helpers.float_linear import FloatLinear
from helpers.tiny_model import make_decoder, random_tensors, tiny_config, tiny_decoder

from awq_ref.errors import DtypeError, RangeError, ShapeError
from awq_ref.model import Decoder, new_cache
from awq_ref.model import decoder as module

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
IDS = np.array([[3, 1, 4, 1, 5, 9], [16, 0, 2, 6, 5, 3]], dtype=np.int64)


def expect(config, tensors, ids=IDS):
    return split([oracle.logits(row, config, tensors) for row in ids.tolist()])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": True},
        {"attention_bias": True, "mlp_bias": True},
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 1},
        {"rope_scaling": LLAMA3},
        {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    ],
    ids=str,
)
def test_logits_follow_the_scalar_loop(rng, changes):
    config = tiny_config(**changes)
    tensors = random_tensors(config, rng)
    expected, bound = expect(config, tensors)
    logits = make_decoder(config, tensors).logits(frozen(IDS))
    assert logits.dtype == np.float32
    assert logits.shape == (2, 6, 17)
    assert_close(logits, expected, atol=bound)
    assert bound.max() < 1e-3 * np.abs(expected).max()  # the bound is worth having


def test_hidden_then_head_are_the_logits(rng):
    decoder = tiny_decoder(rng)
    hidden = decoder.hidden(IDS)
    assert hidden.dtype == np.float32
    assert hidden.shape == (2, 6, 8)
    assert_same_bits(decoder.head(hidden), decoder.logits(IDS))
    assert decoder.vocab_size == 17


def test_a_float16_embedding_is_widened_row_by_row(rng):
    decoder = tiny_decoder(rng)
    decoder.embed_tokens = frozen(decoder.embed_tokens.astype(np.float16))
    embedded = decoder.embed(IDS)
    assert embedded.dtype == np.float32
    assert embedded[0, 1].tolist() == [float(value) for value in decoder.embed_tokens[1]]
    assert decoder.logits(IDS).dtype == np.float32


@pytest.mark.parametrize("chunk", [1, 2, 4, 512])
@pytest.mark.parametrize("last_only", [False, True])
def test_prefill_in_chunks_gives_the_same(rng, monkeypatch, chunk, last_only):
    monkeypatch.setattr(module, "PREFILL_CHUNK", chunk)
    config = tiny_config()
    tensors = random_tensors(config, rng)
    cache = new_cache(config, batch=2, capacity=8)
    logits, longer = make_decoder(config, tensors).forward(IDS, cache, last_only=last_only)
    expected, bound = expect(config, tensors)
    columns = slice(-1, None) if last_only else slice(None)
    assert_close(logits, expected[:, columns], atol=bound[:, columns])
    assert (cache.length, longer.length) == (0, 6)


def test_without_a_cache_none_comes_back(rng):
    logits, cache = tiny_decoder(rng).forward(IDS, last_only=True)
    assert logits.shape == (2, 1, 17)
    assert cache is None


def test_a_text_can_be_continued_twice_from_one_cache(rng):
    decoder = tiny_decoder(rng)
    _, start = decoder.forward(IDS[:1, :4], new_cache(decoder.config, batch=1, capacity=6))
    first, _ = decoder.forward(IDS[:1, 4:], start)
    decoder.forward(IDS[1:, 4:], start)
    again, _ = decoder.forward(IDS[:1, 4:], start)
    assert_same_bits(again, first)


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([1, 2], ShapeError, r"token_ids must have shape \(any, any\); got \(2,\)"),
        ([[]], ShapeError, "at least one id"),
        ([[1.0]], DtypeError, "must be integers; got float64"),
        ([[1, 2], [3, 17]], RangeError, r"\[0, 16\]; got 17 at row 1, position 1"),
        ([[0, -1]], RangeError, "got -1 at row 0, position 1"),
        ([[0] * 25], RangeError, "context of 24 tokens; got 25"),
    ],
)
def test_bad_ids_are_named(rng, ids, error, message):
    decoder = tiny_decoder(rng)
    for call in (decoder.logits, decoder.hidden, decoder.forward):
        with pytest.raises(error, match=message):
            call(np.array(ids))


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        ([[1, 1]], ShapeError, r"attention_mask must have shape \(2, 6\); got \(1, 2\)"),
        ([[1] * 6, [2] * 6], RangeError, "only 0 .padding. and 1"),
        ([[1] * 6, [0] * 6], RangeError, "row 1 is all padding"),
    ],
)
def test_bad_masks_are_named(rng, mask, error, message):
    with pytest.raises(error, match=message):
        tiny_decoder(rng).logits(IDS, attention_mask=np.array(mask))


def test_the_context_counts_what_the_cache_holds(rng):
    decoder = tiny_decoder(rng)
    _, cache = decoder.forward(
        np.zeros((1, 20), dtype=np.int64), new_cache(decoder.config, batch=1, capacity=24)
    )
    with pytest.raises(RangeError, match="context of 24 tokens; got 25"):
        decoder.forward(np.zeros((1, 5), dtype=np.int64), cache)


def test_a_cache_of_other_rows_is_refused(rng):
    decoder = tiny_decoder(rng)
    with pytest.raises(ShapeError, match="cache's 3 rows; got 2"):
        decoder.forward(IDS, new_cache(decoder.config, batch=3, capacity=8))


def broken(decoder: Decoder, **parts) -> Decoder:
    names = ("config", "embed_tokens", "blocks", "norm", "lm_head")
    return Decoder(**{name: parts.get(name, getattr(decoder, name)) for name in names})


def test_parts_that_do_not_fit_are_named(rng):
    decoder = tiny_decoder(rng)
    with pytest.raises(ShapeError, match=r"embed_tokens must have shape \(17, 8\)"):
        broken(decoder, embed_tokens=decoder.embed_tokens[:5])
    with pytest.raises(DtypeError, match="embed_tokens must be float32 or float16"):
        broken(decoder, embed_tokens=decoder.embed_tokens.astype(np.int32))
    with pytest.raises(ShapeError, match="lm_head must map 8 features to 17; got 17 to 8"):
        broken(decoder, lm_head=FloatLinear(np.zeros((8, 17), dtype=np.float32)))
    with pytest.raises(ShapeError, match="blocks must be 2; got 1"):
        broken(decoder, blocks=decoder.blocks[:1])
    with pytest.raises(DtypeError, match="norm must be float32; got float64"):
        broken(decoder, norm=decoder.norm.astype(np.float64))
    down = decoder.blocks[1].linears.pop("mlp.down_proj")
    with pytest.raises(ShapeError, match="linears of layer 1 must be .*mlp.down_proj; got"):
        broken(decoder)
    decoder.blocks[1].linears["mlp.down_proj"] = FloatLinear(down.weight.T)
    with pytest.raises(ShapeError, match="layer 1, mlp.down_proj must map 12 features to 8; got 8 to 12"):
        broken(decoder)


def test_resident_bytes_by_part(rng):
    untied, tied = tiny_decoder(rng), tiny_decoder(rng, tie_word_embeddings=True)
    linears = 2 * 4 * (16 * 8 + 8 * 8 + 8 * 8 + 8 * 16 + 3 * 12 * 8)
    expected = {"embeddings": 4 * 17 * 8, "linears": linears, "head": 4 * 17 * 8, "norms": 4 * 8 * 5}
    assert untied.resident_bytes() == expected
    assert tied.resident_bytes() == expected  # a head over a copy of its own
    tied.lm_head = FloatLinear(tied.embed_tokens)
    assert tied.resident_bytes() == expected | {"head": 0}
