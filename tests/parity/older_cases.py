"""The cases of families from before Llama, for `cases`.

OLDER_CASES     case -> (family, what is changed in its SIZES)
attention_of    by which of its functions transformers computes a model's attention
drop_prefix     name a file's tensors as the model without a head does
VARIANTS        a row of FAMILIES that is a variant -> transformers' model_type
"""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

VARIANTS = {
    "gpt_neox_sequential": "gpt_neox",
    "opt_post_norm": "opt",
    "falcon_two_norms": "falcon",
    "falcon_sequential": "falcon",
    "mpt_clipped": "mpt",
}

OLDER_CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt_neox": ("gpt_neox", {}),
    "gpt_neox_half": ("gpt_neox", {"rotary_pct": 0.5, "attention_bias": False, "tie_word_embeddings": True}),
    "gpt_neox_sequential": ("gpt_neox_sequential", {"use_parallel_residual": False}),
    "phi": ("phi", {"num_key_value_heads": 8}),
    "phi_grouped": ("phi", {"num_key_value_heads": 2, "partial_rotary_factor": 0.25}),
    "opt": ("opt", {"ffn_dim": 112}),
    "opt_without_biases": ("opt", {"ffn_dim": 112, "enable_bias": False, "tie_word_embeddings": False}),
    "opt_projected": ("opt", {"ffn_dim": 112, "word_embed_proj_dim": 48}),
    "opt_post_norm": (
        "opt_post_norm",
        {"ffn_dim": 112, "word_embed_proj_dim": 48, "do_layer_norm_before": False},
    ),
    "gpt2": ("gpt2", {"n_inner": 112}),
    "gpt2_scores": ("gpt2", {"scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": True}),
    "gpt2_without_prefix": ("gpt2", {"tie_word_embeddings": False, "without_prefix": "transformer."}),
    "falcon": ("falcon", {"ffn_hidden_size": 112}),
    "falcon_per_head": ("falcon", {"multi_query": False, "bias": True}),
    "falcon_grouped_one_norm": (
        "falcon",
        {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1},
    ),
    "falcon_two_norms": ("falcon_two_norms", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon_sequential": (
        "falcon_sequential",
        {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True},
    ),
    "falcon_sequential_rope": ("falcon_sequential", {"parallel_attn": False}),
    "bloom": ("bloom", {}),
    "bloom_six_heads": ("bloom", {"hidden_size": 48, "n_head": 6, "without_prefix": "transformer."}),
    "mpt": ("mpt", {}),
    "mpt_six_heads": (
        "mpt",
        {"d_model": 48, "n_heads": 6, "attn_config": {"softmax_scale": 0.2, "alibi": True}},
    ),
    "mpt_clipped": ("mpt_clipped", {"attn_config": {"clip_qkv": 1.5, "alibi": True}}),
}


def attention_of(config: Any) -> str:
    """Return by which of its functions transformers computes attention: eager, the one that caps scores.

    But its eager Falcon adds the ALiBi bias twice, once within the mask.
    """
    return "sdpa" if getattr(config, "alibi", False) else "eager"


def drop_prefix(path: Path, prefix: str) -> None:
    """Take a prefix, if it is not "", from the names of a file's tensors: the hub has many such files."""
    if prefix:
        tensors = {name.removeprefix(prefix): tensor for name, tensor in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})
