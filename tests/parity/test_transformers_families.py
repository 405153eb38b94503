"""Every family here and in transformers: tiny random models, saved by transformers, loaded by both.

Tolerance: 1e-5 of the largest logit, as for Llama (test_transformers_llama.py).
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import awq_ref
from awq_ref.model import FAMILIES, block_forward, make_context, new_cache

TOLERANCE = 1e-5
VOCABULARY = 97
WINDOW = 7  # the texts are longer

SIZES: dict[str, Any] = {
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
    "pad_token_id": 0,
}

# case -> (family, changes)
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mistral": ("mistral", {"sliding_window": WINDOW, "head_dim": 24}),
    "mistral_without_window": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {}),
    "qwen2_upper_layers": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
    "qwen2_tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 24}),
    "qwen3_biases": ("qwen3", {"head_dim": 8, "attention_bias": True}),
    "olmo2": ("olmo2", {}),
    "olmo2_biases": ("olmo2", {"attention_bias": True}),
    "granite": (
        "granite",
        {
            "embedding_multiplier": 2.5,
            "attention_multiplier": 0.2,
            "residual_multiplier": 0.4,
            "logits_scaling": 3.0,
        },
    ),
    "granite_defaults": ("granite", {"attention_bias": True, "mlp_bias": True}),
    "gemma": ("gemma", {"head_dim": 24}),
    "gemma_one_key_value_head": ("gemma", {"head_dim": 16, "num_key_value_heads": 1}),
    "gemma2": (
        "gemma2",
        {
            "head_dim": 24,
            "query_pre_attn_scalar": 20,
            "sliding_window": WINDOW,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 3.0,
        },
    ),
    "gemma2_without_caps": (
        "gemma2",
        {"head_dim": 16, "attn_logit_softcapping": None, "final_logit_softcapping": None},
    ),
    "phi3": ("phi3", {}),
    "phi3_window": ("phi3", {"sliding_window": WINDOW}),
    "phi3_bfloat16": ("phi3", {"dtype": torch.bfloat16}),
    "gemma_bfloat16": ("gemma", {"head_dim": 16, "dtype": torch.bfloat16}),
}


def save_model(folder: Path, family: str, **changes: Any) -> Any:
    """Save a random model to the folder; return what transformers loads from it, in float32."""
    dtype = changes.pop("dtype", torch.float32)
    torch.manual_seed(11)
    config = AutoConfig.for_model(family, **(SIZES | changes))
    config._attn_implementation = "eager"  # the one that caps scores
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:  # norms and biases start as ones and zeros, which would hide mistakes
                parameter.add_(0.3 * torch.randn_like(parameter))
            assert torch.isfinite(parameter).all(), name
    model.to(dtype).save_pretrained(folder)
    # Loaded anew: .to(dtype) has rounded the rope frequencies too, which are no weights.
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return loaded.eval()


def random_ids(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).integers(3, VOCABULARY, shape, dtype=np.int64)


def theirs(model: Any, ids: np.ndarray, **options: Any) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(ids), **options).logits.numpy()


def assert_same(ours: np.ndarray, expected: np.ndarray) -> None:
    assert ours.dtype == np.float32
    assert ours.shape == expected.shape
    error = np.abs(ours - expected).max() / np.abs(expected).max()
    print(f"error {error:.2e} of the largest logit")
    assert error <= TOLERANCE


@pytest.fixture(params=CASES)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Any]:
    """One case: our model and theirs."""
    family, changes = CASES[request.param]
    model = save_model(tmp_path, family, **changes)
    return awq_ref.load_model(tmp_path, residency="dense"), model


def test_every_family_has_a_case():
    assert {family for family, _ in CASES.values()} == set(FAMILIES) - {"llama"}


def test_logits_are_the_same(pair):
    ours, model = pair
    ids = random_ids(3, 40)
    assert_same(ours.logits(ids), theirs(model, ids))


def test_logits_with_padding_are_the_same(pair):
    ours, model = pair
    ids = random_ids(2, 16)
    for mask in ([[0] * 5 + [1] * 11, [1] * 16], [[1] * 11 + [0] * 5, [1] * 16]):
        mask = np.array(mask, dtype=np.int64)
        positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
        options = {"attention_mask": torch.from_numpy(mask), "position_ids": torch.from_numpy(positions)}
        real = mask.astype(np.bool_)
        assert_same(ours.logits(ids, attention_mask=mask)[real], theirs(model, ids, **options)[real])


def test_every_blocks_output_is_the_same(pair):
    ours, model = pair
    ids, seen = random_ids(2, 20), []
    for layer in model.model.layers:
        layer.register_forward_hook(
            lambda module, given, out: seen.append(out[0] if type(out) is tuple else out)
        )
    theirs(model, ids)
    x, context = ours.decoder.embed(ids), make_context(ours.config, 20)
    for number, block in enumerate(ours.decoder.blocks):
        x = block_forward(x, block, ours.config, context.at_layer(number))
        assert_same(x, seen[number].numpy())


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


@pytest.mark.filterwarnings("ignore")  # of the loaders' own
@pytest.mark.parametrize("family", FAMILIES)
def test_a_quantized_folder_means_the_same_to_transformers(tmp_path, family):
    """Folded norms, (1 + w) norms among them, fused linears: theirs is the other reading of what we wrote."""
    changes = CASES[family][1] if family in CASES else {}
    save_model(tmp_path / "float", family, **changes)
    ids = random_ids(4, 40)
    report = awq_ref.quantize_model(
        tmp_path / "float", tmp_path / "out", recipe="awq", symmetric=True, group_size=16,
        layout="pack-quantized", calibration=ids, shown=False,
    )  # fmt: skip
    assert any(site.alpha > 0 for _, site in report.sites())
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype=torch.float32, attn_implementation="eager"
    )
    ours = awq_ref.load_model(tmp_path / "out", residency="dense")
    assert_same(ours.logits(ids), theirs(model.eval(), ids))
