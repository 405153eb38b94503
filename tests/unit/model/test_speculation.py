"""Guessed tokens change nothing but the number of passes."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from helpers.tiny_families import FAMILY_CHANGES
from helpers.tiny_model import tiny_config, tiny_decoder

from awq_ref.errors import RangeError
from awq_ref.model import Speculation, stream
from awq_ref.model.speculation import Lookup, same_rope
from awq_ref.text import Sampling, sampler

PROMPTS = ([3, 1, 4, 3, 1], [5], [2, 2, 2, 2], [7, 8, 9, 10, 7, 8, 9, 10, 7])


def looked_up(tokens, most):
    """What followed the last earlier place of the longest row of last tokens, by trying them all."""
    for length in (3, 2, 1):
        for end in range(len(tokens) - 1, length - 1, -1):
            if tokens[end - length : end] == tokens[len(tokens) - length :]:
                return tokens[end : end + most]
    return []


def test_guesses_are_what_followed_last_time(rng):
    text, tokens = Lookup(), []
    for token in rng.integers(0, 4, 300).tolist():
        text.add(token)
        tokens.append(token)
        for most in (0, 1, 5):
            assert text.guess(most) == (looked_up(tokens, most) if most else [])


@pytest.mark.parametrize("guesses", [1, 3, 7])
@pytest.mark.parametrize("family", FAMILY_CHANGES)
def test_greedy_text_stays_the_same(rng, family, guesses):
    decoder, sums = (
        tiny_decoder(rng, **FAMILY_CHANGES[family]),
        [],
    )  # windows of 3 among them; a context of 24
    for prompt in PROMPTS:
        speculation = Speculation(guesses)
        plain = decoder.generate(prompt, max_new_tokens=18, eos_token_ids=())
        new = decoder.generate(prompt, max_new_tokens=18, eos_token_ids=(), speculate=speculation)
        assert new == plain
        assert speculation.tokens == len(new) - 1  # the first one comes with the prompt
        assert 0 <= speculation.accepted <= speculation.guessed <= guesses * speculation.steps
        assert speculation.tokens == speculation.steps + speculation.accepted
        sums.append(speculation.guessed)
    assert sum(sums) > 0


@pytest.mark.parametrize("rope", [
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "longrope", "factor": 2.0, "short_factor": [1.0, 1.0], "long_factor": [2.0, 3.0],
     "original_max_position_embeddings": 12},
])  # fmt: skip
def test_a_rope_that_depends_on_the_length_is_heeded(rng, rope):
    changes = {"rope_scaling": rope, "max_position_embeddings": 12 if rope["rope_type"] == "dynamic" else 24}
    decoder = tiny_decoder(rng, **changes)
    for prompt in PROMPTS:
        plain = decoder.generate(prompt, max_new_tokens=15, eos_token_ids=())
        assert decoder.generate(prompt, max_new_tokens=15, eos_token_ids=(), speculate=4) == plain
    assert same_rope(decoder.config, 8, 12)
    assert not same_rope(decoder.config, 11, 13)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_text_that_rolls_stays_the_same(rng, family):
    decoder = tiny_decoder(rng, **FAMILY_CHANGES[family])
    options = {"max_new_tokens": 60, "overflow": "roll", "eos_token_ids": ()}
    plain = decoder.generate(PROMPTS[0], **options)
    assert decoder.generate(PROMPTS[0], **options, speculate=5) == plain
    assert len(plain) == 60


class Chain:
    """A model whose next token depends on the last one alone, and which counts its passes."""

    def __init__(self, chances):
        self.config = tiny_config(vocab_size=len(chances), max_position_embeddings=64)
        self.logits, self.passes = np.log(np.float32(chances)), []

    def forward(self, token_ids, cache=None, *, attention_mask=None, last_only=False):
        self.passes.append(token_ids.tolist()[0])
        cache = cache.appended(np.ones(token_ids.shape, dtype=np.bool_))
        logits = self.logits[token_ids]
        return (logits[:, -1:] if last_only else logits), cache


def test_right_guesses_save_passes():
    model = Chain(np.roll(np.eye(4), 1, axis=1) * 0.97 + 0.0075)  # 0 1 2 3 0 1 ...
    speculation = Speculation(3)
    new = list(stream(model, [0, 1, 2, 3, 0], max_new_tokens=8, eos_token_ids=(), speculate=speculation))
    assert new == [1, 2, 3, 0, 1, 2, 3, 0]
    assert model.passes == [[0, 1, 2, 3, 0], [1, 2, 3, 0], [1, 2, 3]]
    assert (speculation.steps, speculation.tokens, speculation.guessed, speculation.accepted) == (2, 7, 5, 5)
    assert speculation.tokens_per_step == 3.5
    assert str(speculation) == "3.50 tokens per step, 5 of 5 guesses right"


def test_wrong_guesses_are_read_and_forgotten():
    model = Chain(np.roll(np.eye(4), 1, axis=1) * 0.97 + 0.0075)
    new = list(stream(model, [2, 1, 3, 0], max_new_tokens=3, eos_token_ids=(), speculate=3))
    assert new == [1, 2, 3]
    assert model.passes == [
        [2, 1, 3, 0],
        [1, 3],
        [
            2,
        ],
    ]  # 1 was followed by 3; room for two more tokens, then for one


def test_an_end_token_among_right_guesses_ends_the_text():
    model = Chain(np.roll(np.eye(4), 1, axis=1) * 0.97 + 0.0075)
    assert list(stream(model, [0, 1, 2, 3, 0], max_new_tokens=9, eos_token_ids=(3,), speculate=8)) == [
        1,
        2,
        3,
    ]


def test_equal_seeds_give_the_same_sample_with_guesses_and_without(rng):
    decoder, sampling = tiny_decoder(rng), Sampling(0.7, top_k=6, repetition_penalty=1.1)
    speculation = Speculation(4)
    for seed, prompt in itertools.product(range(6), PROMPTS):
        plain, guessed = (
            decoder.generate(
                prompt,
                max_new_tokens=15,
                eos_token_ids=(),
                speculate=how,
                pick=sampler(sampling, seed=seed, prompt=prompt),
            )
            for how in (0, speculation)
        )
        assert guessed == plain
    assert 0 < speculation.accepted < speculation.guessed


def test_what_is_drawn_has_the_chances_of_the_model():
    chances = np.array([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3], [0.25, 0.25, 0.5]])
    model, prompt, draws, count = Chain(chances), [0, 1, 2, 0, 1], 4000, 4
    found, speculation = Counter(), Speculation(3)
    pick = sampler(Sampling(1.0), seed=7)  # one stream of random numbers for all texts
    for _ in range(draws):
        new = list(
            stream(model, prompt, max_new_tokens=count, eos_token_ids=(), pick=pick, speculate=speculation)
        )
        found[tuple(new)] += 1
    assert 0.2 < speculation.accepted / speculation.guessed < 0.8  # accepted ones and refused ones both count
    # Hoeffding: a frequency of n draws is further than t from its chance with a chance of 2 exp(-2 n t**2); that over
    # all 3**4 texts, in sum 1e-9, gives t = sqrt(log(2 * 81 / 1e-9) / (2 n)), 0.057. The single texts' chances go up
    # to 0.1: so the tokens at each place, given the one before, are held to it too.
    bound = math.sqrt(math.log(2 * 81 / 1e-9) / (2 * draws))
    for text in itertools.product(range(3), repeat=count):
        chance = math.prod(chances[a][b] for a, b in itertools.pairwise([1, *text]))
        assert abs(found[text] / draws - chance) <= bound
    for place, last in itertools.product(range(1, count), range(3)):
        after = Counter()
        for text, times in found.items():
            if text[place - 1] == last:
                after[text[place]] += times
        total = after.total()
        bound = math.sqrt(math.log(2 * 27 / 1e-9) / (2 * total))
        assert all(abs(after[token] / total - chances[last][token]) <= bound for token in range(3))


@pytest.mark.parametrize("guesses", [-1, 65])
def test_no_more_guesses_than_make_sense(rng, guesses):
    with pytest.raises(RangeError, match=f"speculate: guesses must lie in .0, 64.; got {guesses}"):
        tiny_decoder(rng).stream([1], max_new_tokens=1, speculate=guesses)
