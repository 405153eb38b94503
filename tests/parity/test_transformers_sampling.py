"""The settings of sampling against transformers' logits processors, in the order in which generate applies them."""

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from awq_ref.text import GenerationDefaults, Sampling, processed_logits

VOCAB = 200
CASES = [
    Sampling(0.7),
    Sampling(1.0, top_k=20),
    Sampling(0.6, top_p=0.9),
    Sampling(1.5, min_p=0.1),
    Sampling(0.8, repetition_penalty=1.3),
    Sampling(0.7, top_k=20, top_p=0.8, repetition_penalty=1.05),  # Qwen2.5
    Sampling(1.3, top_k=50, top_p=0.95, min_p=0.02, repetition_penalty=0.9),
    Sampling(0.0, repetition_penalty=1.7),
]


@pytest.fixture(scope="module")
def model():
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    return LlamaForCausalLM(config)


def their_processors(model, sampling):
    """The list that model.generate would apply for these settings."""
    settings = {"do_sample": sampling.temperature > 0, "repetition_penalty": sampling.repetition_penalty}
    if settings["do_sample"]:
        settings |= {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p}
        settings |= {"min_p": sampling.min_p or None}
    config = GenerationConfig(**settings)
    return model._get_logits_processor(generation_config=config, input_ids_seq_length=5)


@pytest.mark.parametrize("sampling", CASES)
def test_logits_are_what_transformers_makes_of_them(model, sampling, rng):
    processors = their_processors(model, sampling)
    for _ in range(25):
        logits = rng.normal(0.0, 3.0, VOCAB).astype(np.float32)
        seen = rng.integers(0, VOCAB, 30)
        want = processors(torch.from_numpy(seen[None]), torch.from_numpy(logits.copy()[None]))[0].numpy()
        got = processed_logits(logits, sampling, set(seen.tolist()))
        # A token whose chance is within float32's rounding of a threshold may fall on either side; none of these is.
        assert np.array_equal(np.isinf(got), np.isinf(want))
        kept = np.isfinite(want)
        # theirs: a float32 product or quotient for the penalty and one for the temperature
        np.testing.assert_allclose(got[kept], want[kept], rtol=2 * 2.0**-23, atol=0)


def test_ties_at_the_kth_place_are_all_kept(model):
    sampling = Sampling(1.0, top_k=2)
    logits = np.float32([3, 1, 1, 1, 0])
    want = their_processors(model, sampling)(
        torch.zeros((1, 1), dtype=torch.long), torch.from_numpy(logits[None])
    )
    assert np.flatnonzero(np.isfinite(processed_logits(logits, sampling))).tolist() == [0, 1, 2, 3]
    assert np.flatnonzero(np.isfinite(want[0].numpy())).tolist() == [0, 1, 2, 3]


def test_what_generation_config_leaves_out(tmp_path):
    """Where the file is silent, what generate takes is what `GenerationDefaults` takes."""
    theirs = GenerationConfig._get_default_generation_params()
    (tmp_path / "generation_config.json").write_text('{"do_sample": true}')
    ours = GenerationDefaults.load(tmp_path).sampling
    for name in ("temperature", "top_k", "top_p", "repetition_penalty"):
        assert getattr(ours, name) == theirs[name]
    assert (ours.min_p, theirs.get("min_p")) == (0.0, None)
    assert theirs["do_sample"] is False
    assert GenerationDefaults.load(tmp_path / "absent").sampling.temperature == 0.0
