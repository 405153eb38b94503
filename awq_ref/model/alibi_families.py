"""Rows of families whose scores fall with the distance, and of Falcon, some of whose do: BLOOM, MPT, Falcon.

    ALIBI_FAMILIES      model_type, or the variant of one -> Family
    falcon_keys         how many key heads a Falcon has

Source: the parameter names of Hugging Face transformers.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from awq_ref.model.alibi import Alibi
from awq_ref.model.family import LLAMA_NORMS, Family, Norm
from awq_ref.model.older_families import (
    HEADS,
    MLP,
    four_times_hidden,
    head_size,
    linears,
    stored_as,
    two_norms,
)


def falcon_keys(config: Mapping[str, Any]) -> Any:
    """Falcon's first block has one key head, or one for each query head; its second as many as num_kv_heads says."""
    if config.get("new_decoder_architecture"):
        return config.get("num_kv_heads") or config.get("num_attention_heads")
    return 1 if config["multi_query"] else config.get("num_attention_heads")


BLOOM = Family(
    "BloomForCausalLM",
    linears(attention=True, mlp=True),
    mlp=MLP,
    norm="layer",
    norm_bias=True,
    fused=stored_as(
        "self_attention.query_key_value", "self_attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"
    ),
    by_head=("self_attention.query_key_value",),
    keys={
        "hidden_size": ("n_embed", "hidden_size"),
        "num_hidden_layers": ("n_layer", "num_hidden_layers"),
        "num_attention_heads": ("n_head", "num_attention_heads"),
        "max_position_embeddings": ("seq_length", "max_position_embeddings"),
        "rms_norm_eps": "layer_norm_epsilon",
    },
    defaults={"layer_norm_epsilon": 1e-5, "max_position_embeddings": 2048, "tie_word_embeddings": True},
    derived=HEADS
    | {"intermediate_size": four_times_hidden, "hidden_act": lambda config: "gelu_pytorch_tanh"},
    needs={"apply_residual_connection_post_layernorm": False, "alibi": True},
    other_architectures=("BloomModel",),
    alibi=Alibi(),
    embed_norm="transformer.word_embeddings_layernorm",
    base_prefix="transformer.",
    layer_prefix="transformer.h.{layer}.",
    embed_tokens="transformer.word_embeddings",
    final_norm="transformer.ln_f",
)
MPT = Family(
    "MptForCausalLM",
    linears(attention=False, mlp=False),
    norms=two_norms("norm_1", "norm_2"),
    mlp=MLP,
    norm="layer",
    fused=stored_as("attn.Wqkv", "attn.out_proj", "ffn.up_proj", "ffn.down_proj"),
    keys={
        "hidden_size": ("d_model", "hidden_size"),
        "num_hidden_layers": ("n_layers", "num_hidden_layers"),
        "num_attention_heads": ("n_heads", "num_attention_heads"),
        "max_position_embeddings": ("max_seq_len", "max_position_embeddings"),
        "rms_norm_eps": "layer_norm_epsilon",
        "attention_multiplier": "attn_config.softmax_scale",
        "alibi_bias_max": "attn_config.alibi_bias_max",
        "clip_qkv": "attn_config.clip_qkv",
    },
    defaults={
        "layer_norm_epsilon": 1e-5,
        "max_position_embeddings": 2048,
        "attention_multiplier": None,
        "clip_qkv": None,
        "expansion_ratio": 4,
        "tie_word_embeddings": True,
    },
    derived=HEADS
    | {
        "intermediate_size": lambda config: four_times_hidden(config, config["expansion_ratio"]),
        "hidden_act": lambda config: "gelu",
        "alibi": lambda config: True,
        "clip_qkv": lambda config: config["clip_qkv"] or None,
    },
    needs={
        "attn_config.alibi": True,
        "attn_config.attn_type": "multihead_attention",
        "attn_config.kv_n_heads": None,
        "attn_config.qk_ln": False,
        "attn_config.prefix_lm": False,
        "attn_config.rope": False,
        "no_bias": True,
        "norm_type": ("low_precision_layernorm", "layernorm"),
        "logit_scale": None,
    },
    # Between v and o stands the clip, which does not let scales through.
    variants=(({"attn_config.clip_qkv": bool}, "mpt_clipped"),),
    other_architectures=("MPTForCausalLM",),
    alibi=Alibi(),
    base_prefix="transformer.",
    layer_prefix="transformer.blocks.{layer}.",
    embed_tokens="transformer.wte",
    final_norm="transformer.norm_f",
)
FALCON = Family(
    "FalconForCausalLM",
    linears(attention="attention_bias", mlp="mlp_bias"),
    norms={"input_layernorm": Norm("before_attention")},
    parallel=True,
    mlp=MLP,
    norm="layer",
    norm_bias=True,
    fused=BLOOM.fused,
    by_head=BLOOM.by_head,
    keys={
        "hidden_size": ("n_embed", "hidden_size"),
        "num_hidden_layers": ("n_layer", "num_hidden_layers"),
        "num_attention_heads": ("n_head", "num_attention_heads"),
        "hidden_act": "activation",
        "rms_norm_eps": "layer_norm_epsilon",
        "attention_bias": "bias",
        "mlp_bias": "bias",
    },
    activation="gelu",
    defaults={
        "layer_norm_epsilon": 1e-5,
        "max_position_embeddings": 2048,
        "multi_query": True,
        "alibi": False,
        "tie_word_embeddings": True,
    },
    derived={
        "head_dim": head_size,
        "num_key_value_heads": falcon_keys,
        "intermediate_size": lambda config: config.get("ffn_hidden_size") or four_times_hidden(config),
    },
    needs={"parallel_attn": True, "num_ln_in_parallel_attn": 1},
    variants=(
        ({"new_decoder_architecture": True, "num_ln_in_parallel_attn": 1}, "falcon"),
        ({"new_decoder_architecture": True}, "falcon_two_norms"),
        ({"parallel_attn": False}, "falcon_sequential"),
    ),
    alibi=Alibi(rounded=True, scaled=True),
    base_prefix="transformer.",
    layer_prefix="transformer.h.{layer}.",
    embed_tokens="transformer.word_embeddings",
    final_norm="transformer.ln_f",
)

ALIBI_FAMILIES: dict[str, Family] = {
    "falcon": FALCON,
    "falcon_two_norms": replace(
        FALCON,
        norms=two_norms("ln_attn", "ln_mlp"),
        needs={"parallel_attn": True, "num_ln_in_parallel_attn": 2},
        variants=(),
    ),
    "falcon_sequential": replace(
        FALCON,
        norms=LLAMA_NORMS,
        parallel=False,
        needs={"new_decoder_architecture": False},
        variants=(),
    ),
    "bloom": BLOOM,
    "mpt": MPT,
    "mpt_clipped": replace(MPT, variants=()),
}
