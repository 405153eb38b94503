from itertools import islice

import numpy as np
import pytest
from helpers.tiny_families import FAMILY_CHANGES
from helpers.tiny_model import tiny_config, tiny_decoder

from awq_ref.errors import RangeError, ShapeError
from awq_ref.model import generate as module
from awq_ref.model import generate_batch, greedy, rolled, stream

PROMPT = [3, 1, 4]


def by_full_passes(decoder, prompt, count):
    """Greedy text without any cache: the whole text anew for each token."""
    ids = list(prompt)
    for _ in range(count):
        logits = decoder.logits(np.array([ids]))[0, -1].tolist()
        ids.append(max(range(len(logits)), key=logits.__getitem__))
    return ids[len(prompt) :]


def test_greedy_takes_the_first_of_the_largest():
    assert greedy(np.float32([1, 5, 5, 0])) == 1
    assert greedy(np.float32([-np.inf, -7])) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_greedy_refuses_logits_that_are_no_numbers(bad):
    with pytest.raises(RangeError, match=f"logits must be finite; got {bad} for id 1"):
        greedy(np.float32([1, bad, 3]))


def test_greedy_text_is_that_of_full_passes(rng):
    decoder = tiny_decoder(rng)
    new = decoder.generate(np.array(PROMPT), max_new_tokens=12)
    assert all(type(token) is int for token in new)
    assert new == by_full_passes(decoder, PROMPT, 12)
    assert new == list(stream(decoder, PROMPT, max_new_tokens=12))


def test_an_end_token_is_the_last(rng):
    decoder = tiny_decoder(rng)
    tokens = iter([7, 8, 9, 10])
    new = decoder.generate(PROMPT, max_new_tokens=9, pick=lambda logits: next(tokens), eos_token_ids=(9, 2))
    assert new == [7, 8, 9]


def test_end_tokens_come_from_the_configuration_unless_given(rng):
    decoder = tiny_decoder(rng, eos_token_id=5)
    assert decoder.generate(PROMPT, max_new_tokens=4, pick=lambda logits: 5) == [5]
    assert decoder.generate(PROMPT, max_new_tokens=4, pick=lambda logits: 5, eos_token_ids=()) == [5] * 4


def test_pick_sees_the_logits_of_the_last_token(rng):
    decoder, seen = tiny_decoder(rng), []

    def pick(logits):
        seen.append(logits)
        return 2

    decoder.generate(PROMPT, max_new_tokens=2, pick=pick)
    assert [logits.shape for logits in seen] == [(17,), (17,)]
    # 17 logits of 8 products each, in another order at most: far below the distance of two tokens' logits
    np.testing.assert_allclose(seen[1], decoder.logits(np.array([[*PROMPT, 2]]))[0, -1], atol=1e-5)


def test_tokens_come_one_by_one(rng):
    decoder = tiny_decoder(rng)
    picked = []
    tokens = decoder.stream(PROMPT, max_new_tokens=9, pick=lambda logits: picked.append(0) or 0)
    assert picked == []
    assert list(islice(tokens, 2)) == [0, 0]
    assert len(picked) == 2


def test_the_text_ends_with_the_context(rng):
    decoder = tiny_decoder(rng)
    assert len(decoder.generate(PROMPT, max_new_tokens=100, eos_token_ids=())) == 24 - 3
    assert decoder.generate([0] * 24, max_new_tokens=5) == []
    assert decoder.generate(PROMPT, max_new_tokens=0) == []


def test_a_prompt_that_does_not_fit_is_refused_at_once(rng):
    decoder = tiny_decoder(rng)
    with pytest.raises(RangeError, match="context of 24 tokens; got 25"):
        decoder.stream([0] * 25, max_new_tokens=1)
    with pytest.raises(RangeError, match="max_new_tokens"):
        decoder.stream(PROMPT, max_new_tokens=-1)
    with pytest.raises(ShapeError, match="at least one id"):
        decoder.stream([], max_new_tokens=1)
    with pytest.raises(ShapeError, match=r"token_ids must have shape \(any\); got \(1, 3\)"):
        decoder.stream([PROMPT], max_new_tokens=1)
    with pytest.raises(RangeError, match="got 99 at row 0, position 1"):
        decoder.generate([3, 99], max_new_tokens=1)


def test_a_batch_gives_what_each_prompt_gives_alone(rng):
    decoder = tiny_decoder(rng)
    prompts = [[3, 1, 4, 1, 5], [9], [2, 6, 5]]
    alone = [decoder.generate(prompt, max_new_tokens=10) for prompt in prompts]
    assert generate_batch(decoder, prompts, max_new_tokens=10) == alone


def test_rows_of_a_batch_end_on_their_own(rng):
    decoder = tiny_decoder(rng)
    tokens = iter([1, 5, 2, 3, 5])  # step by step, rows in order, finished rows left out
    new = generate_batch(
        decoder, [[3], [4]], max_new_tokens=9, pick=lambda logits: next(tokens), eos_token_ids=(5,)
    )
    assert new == [[1, 2, 3, 5], [5]]


def test_a_batch_needs_prompts_that_fit(rng):
    decoder = tiny_decoder(rng)
    with pytest.raises(ShapeError, match="at least one prompt"):
        generate_batch(decoder, [], max_new_tokens=1)
    with pytest.raises(ShapeError, match="at least one id"):
        generate_batch(decoder, [[1], []], max_new_tokens=1)
    with pytest.raises(RangeError, match="context of 24 tokens; got 25"):
        generate_batch(decoder, [[1], [0] * 25], max_new_tokens=1)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize("bos", [None, 3])
def test_a_text_that_rolls_goes_on_as_a_fresh_one(rng, family, bos):
    decoder = tiny_decoder(rng, **FAMILY_CHANGES[family], bos_token_id=bos)  # a context of 24: 12 stay
    new = decoder.generate(PROMPT, max_new_tokens=60, overflow="roll", eos_token_ids=())
    text = [*PROMPT, *new]
    assert len(new) == 60
    assert new[:21] == decoder.generate(PROMPT, max_new_tokens=21, eos_token_ids=())
    # Token 25 is the first that overflows; it and the 11 before it (10 and a begin) stay. Then 13 fit again.
    for end in (25, 38, 51):
        kept = text[end - 12 : end] if bos is None else [3, *text[end - 11 : end]]
        assert text[end : end + 13] == by_full_passes(decoder, kept, 13)[: len(text) - end]


def test_a_prompt_that_is_too_long_rolls_too(rng):
    decoder = tiny_decoder(rng)
    prompt = [(7 * i) % 17 for i in range(40)]
    new = decoder.generate(prompt, max_new_tokens=5, overflow="roll", eos_token_ids=())
    assert new == by_full_passes(decoder, prompt[-12:], 5)
    assert decoder.generate(prompt[:24], max_new_tokens=1, overflow="roll") == by_full_passes(
        decoder, prompt[:24], 1
    )
    with pytest.raises(RangeError, match="overflow must be one of 'error', 'roll'; got 'shift'"):
        decoder.stream(PROMPT, max_new_tokens=1, overflow="shift")


def test_what_stays_of_a_text():
    one = tiny_config(max_position_embeddings=1, bos_token_id=3)
    assert rolled([3, 4], one) == [4]
    odd = tiny_config(max_position_embeddings=5, bos_token_id=3)
    assert rolled([3, 4, 5, 6, 7, 8], odd) == [3, 8]
    assert rolled([4, 3, 5, 6, 7, 8], odd) == [7, 8]


def test_memory_grows_with_the_text(rng, monkeypatch):
    made, new_cache = [], module.new_cache
    monkeypatch.setattr(module, "PAGE", 4)
    monkeypatch.setattr(module, "new_cache", lambda *a, **k: made.append(new_cache(*a, **k)) or made[-1])
    decoder = tiny_decoder(rng)
    ends = iter([1, 2, 5])
    decoder.generate(PROMPT, max_new_tokens=20, pick=lambda logits: next(ends), eos_token_ids=(5,))
    generate_batch(decoder, [PROMPT], max_new_tokens=2, eos_token_ids=())
    assert [layer.buffers.keys.shape[2] for cache in made for layer in cache.store.layers] == [8, 8, 4, 4]
