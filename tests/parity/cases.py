"""Tiny random models of every family, made by transformers, and what it computes with them.

CASES       case -> (family, what is changed in SIZES)
save_model  a random model in a folder, and what transformers loads from there
theirs      their logits;  their_text: their greedy continuation
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from parity.older_cases import OLDER_CASES, VARIANTS, attention_of, drop_prefix
from transformers import AutoConfig, AutoModelForCausalLM

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

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}

DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 6.0}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 16,
    "beta_fast": 4.0,
    "beta_slow": 0.5,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.3, 1.7],
    "long_factor": [1.0, 2.0, 5.0, 9.0],
}

# case -> (family, changes)
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama_one_key_value_head": ("llama", {"num_key_value_heads": 1}),
    "llama_all_key_value_heads": ("llama", {"num_key_value_heads": 8}),
    "llama_tied": ("llama", {"tie_word_embeddings": True}),
    "llama_head_dim_of_its_own": ("llama", {"head_dim": 24}),
    "llama_biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama_rope_llama3": ("llama", {"rope_parameters": LLAMA3}),
    "llama_rope_linear": ("llama", {"rope_parameters": LINEAR}),
    "llama_rope_dynamic": ("llama", {"rope_parameters": DYNAMIC, "max_position_embeddings": 16}),
    "llama_rope_yarn": ("llama", {"rope_parameters": YARN}),
    "llama_rope_yarn_scales": (
        "llama",
        {"rope_parameters": YARN | {"mscale": 0.7, "mscale_all_dim": 1.4, "truncate": False}},
    ),
    "llama_rope_yarn_factor": ("llama", {"rope_parameters": YARN | {"attention_factor": 1.3}}),
    "llama_rope_longrope": (
        "llama",
        {"rope_parameters": LONGROPE | {"original_max_position_embeddings": 8, "factor": 3.0}},
    ),
    "llama_rope_longrope_short": (
        "llama",
        {"rope_parameters": LONGROPE | {"original_max_position_embeddings": 128, "factor": 4.0}},
    ),
    "llama_bfloat16": ("llama", {"dtype": torch.bfloat16}),
    "llama_float16": ("llama", {"dtype": torch.float16}),
    "llama_sharded": ("llama", {"max_shard_size": "60KB"}),
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
    "gemma3": (
        "gemma3_text",
        {
            "head_dim": 24,
            "query_pre_attn_scalar": 20,
            "sliding_window": WINDOW,
            "sliding_window_pattern": 2,
            "final_logit_softcapping": 3.0,
        },
    ),
    "gemma3_ropes": (
        "gemma3_text",
        {
            "head_dim": 16,
            "num_key_value_heads": 1,
            "sliding_window": WINDOW,
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
        },
    ),
    "phi3": ("phi3", {}),
    "phi3_window": ("phi3", {"sliding_window": WINDOW}),
    "phi3_bfloat16": ("phi3", {"dtype": torch.bfloat16}),
    "phi3_partial_rope": ("phi3", {"partial_rotary_factor": 0.75}),
    "phi3_longrope": (
        "phi3",
        {"rope_parameters": dict(LONGROPE), "original_max_position_embeddings": 25},
    ),
    "phi3_partial_longrope": (
        "phi3",
        {
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0, 1.2, 1.5],
                "long_factor": [1.0, 3.0, 8.0],
                "partial_rotary_factor": 0.75,
            },
            "original_max_position_embeddings": 8,
            "tie_word_embeddings": True,
        },
    ),
    "glm4": ("glm4", {"head_dim": 24}),
    "glm4_without_biases": ("glm4", {"head_dim": 8, "attention_bias": False, "partial_rotary_factor": 1.0}),
    "stablelm": ("stablelm", {"use_qkv_bias": True}),
    "stablelm_half": ("stablelm", {"partial_rotary_factor": 0.5, "tie_word_embeddings": True}),
    "starcoder2": ("starcoder2", {}),
    "starcoder2_window": ("starcoder2", {"sliding_window": WINDOW, "use_bias": False}),
    "smollm3": ("smollm3", {"no_rope_layer_interval": 2}),
    "smollm3_window": (
        "smollm3",
        {"no_rope_layers": [0, 1, 0], "use_sliding_window": True, "sliding_window": WINDOW},
    ),
    "cohere": ("cohere", {"logit_scale": 0.5}),
    "cohere_biases": ("cohere", {"attention_bias": True, "tie_word_embeddings": False}),
    **OLDER_CASES,
    "mixtral": ("mixtral", {"num_local_experts": 4}),
    "mixtral_window": (
        "mixtral",
        {"num_local_experts": 6, "num_experts_per_tok": 3, "sliding_window": WINDOW, "head_dim": 24},
    ),
    "qwen3_moe": (
        "qwen3_moe",
        {
            "head_dim": 24,
            "num_experts": 6,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 48,
            "mlp_only_layers": [1],
        },
    ),
    "qwen3_moe_normalized": (
        "qwen3_moe",
        {
            "head_dim": 8,
            "attention_bias": True,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "norm_topk_prob": True,
            "decoder_sparse_step": 2,
            "use_sliding_window": True,
            "sliding_window": WINDOW,
        },
    ),
    "gemma_bfloat16": ("gemma", {"head_dim": 16, "dtype": torch.bfloat16}),
}


def save_model(folder: Path, family: str, *, seed: int = 11, **changes: Any) -> Any:
    """Save a random model to the folder; return what transformers loads from it, in float32."""
    dtype, shard = changes.pop("dtype", torch.float32), changes.pop("max_shard_size", "1GB")
    prefix = changes.pop("without_prefix", "")
    changes.pop("model_type", None)
    torch.manual_seed(seed)
    config = AutoConfig.for_model(VARIANTS.get(family, family), **(SIZES | changes))
    kind = attention_of(config)
    config._attn_implementation = kind
    model = AutoModelForCausalLM.from_config(config, attn_implementation=kind)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:  # norms and biases start as ones and zeros, which would hide mistakes
                parameter.add_(0.3 * torch.randn_like(parameter))
            assert torch.isfinite(parameter).all(), name
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    drop_prefix(folder / "model.safetensors", prefix)
    return loaded(folder)


def loaded(folder: Path) -> Any:
    """Return what transformers loads from a folder, in float32."""
    # Loaded, even where the model is at hand: .to(dtype) has rounded the rope frequencies too, which are no weights.
    kind = attention_of(AutoConfig.from_pretrained(folder))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=kind)
    return model.eval()


def random_ids(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).integers(3, VOCABULARY, shape, dtype=np.int64)


def theirs(model: Any, ids: np.ndarray, **options: Any) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(ids), **options).logits.numpy()


def their_text(model: Any, prompt: np.ndarray, n_tokens: int) -> list[int]:
    """Return what transformers writes after a prompt, (tokens,)."""
    ids = torch.from_numpy(prompt[None])
    with torch.no_grad():
        text = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=n_tokens,
            do_sample=False,
            pad_token_id=0,
        )
    return text[0, len(prompt) :].tolist()


def relative_error(ours: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference, in parts of the largest number."""
    assert ours.dtype == np.float32
    assert ours.shape == expected.shape
    return float(np.abs(ours - expected).max() / np.abs(expected).max())


def assert_same(ours: np.ndarray, expected: np.ndarray) -> None:
    error = relative_error(ours, expected)
    print(f"error {error:.2e} of the largest logit")
    assert error <= TOLERANCE
