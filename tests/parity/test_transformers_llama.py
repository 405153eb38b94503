"""The same model here and in transformers: tiny random Llamas, saved by transformers, loaded by both.

Tolerance: 1e-5 of the largest logit. Both sides compute in float32 and differ in the order of additions and in the
rope angles (float64 here, float32 there: apart by at most position * 2**-24, 1e-6 for these lengths).
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import awq_ref
from awq_ref.model import new_cache

TOLERANCE = 1e-5
VOCABULARY = 97
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}

CASES: dict[str, dict[str, Any]] = {
    "grouped_queries": {},
    "one_key_value_head": {"num_key_value_heads": 1},
    "all_key_value_heads": {"num_key_value_heads": 8},
    "tied": {"tie_word_embeddings": True},
    "untied": {"tie_word_embeddings": False},
    "head_dim_of_its_own": {"head_dim": 24},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "rope_llama3": {"rope_parameters": LLAMA3},
    "rope_linear": {"rope_parameters": LINEAR},
    "bfloat16": {"dtype": torch.bfloat16},
    "float16": {"dtype": torch.float16},
    "sharded": {"max_shard_size": "60KB"},
}


def save_llama(folder: Path, **changes: Any) -> LlamaForCausalLM:
    """Save a random Llama to the folder; return what transformers loads from it, in float32."""
    dtype = changes.pop("dtype", torch.float32)
    shard = changes.pop("max_shard_size", "1GB")
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 112,
        "num_hidden_layers": 3,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.2,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    torch.manual_seed(11)
    model = LlamaForCausalLM(LlamaConfig(**(sizes | changes)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:  # norms and biases start as ones and zeros, which would hide mistakes
                parameter.add_(0.3 * torch.randn_like(parameter))
            assert torch.isfinite(parameter).all(), name
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    # Loaded anew: .to(dtype) has rounded the rope frequencies too, which are no weights.
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def random_ids(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).integers(3, VOCABULARY, shape, dtype=np.int64)


def theirs(model: LlamaForCausalLM, ids: np.ndarray, **options: Any) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(ids), **options).logits.numpy()


def assert_same(ours: np.ndarray, expected: np.ndarray) -> None:
    assert ours.dtype == np.float32
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.fixture(params=CASES)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, LlamaForCausalLM]:
    """One case: our model and theirs."""
    model = save_llama(tmp_path, **CASES[request.param])
    shards = len(list(tmp_path.glob("*.safetensors")))
    assert (shards > 1) == (request.param == "sharded")
    return awq_ref.load_model(tmp_path, residency="dense"), model


def test_logits_are_the_same(pair):
    ours, model = pair
    ids = random_ids(3, 40)
    assert_same(ours.logits(ids), theirs(model, ids))


def test_logits_with_padding_are_the_same(pair):
    ours, model = pair
    ids = random_ids(2, 12)
    for mask in ([[0] * 5 + [1] * 7, [1] * 12], [[1] * 7 + [0] * 5, [1] * 12]):
        mask = np.array(mask, dtype=np.int64)
        positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
        options = {"attention_mask": torch.from_numpy(mask), "position_ids": torch.from_numpy(positions)}
        real = mask.astype(np.bool_)
        assert_same(ours.logits(ids, attention_mask=mask)[real], theirs(model, ids, **options)[real])


def test_greedy_text_is_the_same(pair):
    ours, model = pair
    prompt = random_ids(1, 9)
    with torch.no_grad():
        text = model.generate(
            torch.from_numpy(prompt),
            attention_mask=torch.ones(1, 9, dtype=torch.int64),
            max_new_tokens=60,
            do_sample=False,
            pad_token_id=0,
        )
    assert ours.generate(prompt[0], max_new_tokens=60, temperature=0) == text[0, 9:].tolist()


def test_decoding_with_a_cache_gives_their_full_pass(pair):
    ours, model = pair
    ids = random_ids(2, 30)
    cache, pieces = new_cache(ours.config, batch=2, capacity=30), []
    for first, last in [(0, 20), *((i, i + 1) for i in range(20, 30))]:
        logits, cache = ours.decoder.forward(ids[:, first:last], cache)
        pieces.append(logits)
    assert_same(np.concatenate(pieces, axis=1), theirs(model, ids))
