"""Rows of families whose MLP has no gate, with rope or learned positions: GPT-NeoX, Phi, OPT, GPT-2.

    OLDER_FAMILIES      model_type, or the variant of one -> Family
    stored_as, linears, two_norms               parts of such rows
    head_size, as_many_keys, four_times_hidden  what config.json leaves to arithmetic

Their blocks have LayerNorm. Linears have the names that they have in other families; `fused`
says what the files call them. A variant is a row of its own, because its plan is another.

Source: the parameter names of Hugging Face transformers.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from awq_ref.model.family import Family, Norm, plain_linears

MLP = ("", "mlp.up_proj", "mlp.down_proj")
QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


def stored_as(qkv: str, o: str, up: str, down: str) -> dict[str, tuple[str, ...]]:
    """Return `Family.fused` of a block with four tensors: what the files call them."""
    return {qkv: QKV, o: ("self_attn.o_proj",), up: ("mlp.up_proj",), down: ("mlp.down_proj",)}


def linears(*, attention: str | bool, mlp: str | bool) -> Mapping[str, Any]:
    """Return the six linears, given what says whether they have biases."""
    return plain_linears("mlp.up_proj", "mlp.down_proj", attention=attention, mlp=mlp)


def two_norms(before_attention: str, before_mlp: str) -> dict[str, Norm]:
    """Return the norms of a block by their names."""
    return {before_attention: Norm("before_attention"), before_mlp: Norm("before_mlp")}


# ---- what config.json leaves to arithmetic ----


def head_size(config: Mapping[str, Any]) -> Any:
    """Heads share the width of the stream, whatever a key head_dim says."""
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    return hidden // heads if isinstance(hidden, int) and isinstance(heads, int) and heads > 0 else None


def as_many_keys(config: Mapping[str, Any]) -> Any:
    """Every query head has a key head."""
    return config.get("num_attention_heads")


def four_times_hidden(config: Mapping[str, Any], times: Any = 4) -> Any:
    """The MLP is four times as wide as the stream, or another number of times."""
    hidden = config.get("hidden_size")
    return times * hidden if isinstance(hidden, int) and isinstance(times, int) else None


# Of families without grouped queries.
HEADS = {"head_dim": head_size, "num_key_value_heads": as_many_keys}

GPT_NEOX = Family(
    "GPTNeoXForCausalLM",
    linears(attention="attention_bias", mlp=True),
    parallel=True,
    mlp=MLP,
    norm="layer",
    norm_bias=True,
    fused=stored_as("attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    by_head=("attention.query_key_value",),
    activation="gelu",
    keys={
        "rms_norm_eps": "layer_norm_eps",
        "partial_rotary_factor": ("rotary_pct", "partial_rotary_factor"),
        "rope_theta": ("rotary_emb_base", "rope_theta"),
    },
    defaults={"layer_norm_eps": 1e-5, "partial_rotary_factor": 0.25, "attention_bias": True},
    derived=HEADS,
    variants=(({"use_parallel_residual": False}, "gpt_neox_sequential"),),
    base_prefix="gpt_neox.",
    layer_prefix="gpt_neox.layers.{layer}.",
    embed_tokens="gpt_neox.embed_in",
    final_norm="gpt_neox.final_layer_norm",
    lm_head="embed_out",
)
PHI = Family(
    "PhiForCausalLM",
    linears(attention=True, mlp=True),
    norms={"input_layernorm": Norm("before_attention")},
    parallel=True,
    mlp=MLP,
    norm="layer",
    norm_bias=True,
    fused={
        "self_attn.dense": ("self_attn.o_proj",),
        "mlp.fc1": ("mlp.up_proj",),
        "mlp.fc2": ("mlp.down_proj",),
    },
    activation="gelu_new",
    keys={"rms_norm_eps": "layer_norm_eps"},
    defaults={"layer_norm_eps": 1e-5, "partial_rotary_factor": 0.5},
    needs={"qk_layernorm": False},
    base_prefix="model.",
    final_norm="model.final_layernorm",
    head_bias=True,
)

OPT = Family(
    "OPTForCausalLM",
    linears(attention="attention_bias", mlp="mlp_bias"),
    norms=two_norms("self_attn_layer_norm", "final_layer_norm"),
    mlp=MLP,
    norm="layer",
    norm_bias=True,
    fused={
        "self_attn.out_proj": ("self_attn.o_proj",),
        "fc1": ("mlp.up_proj",),
        "fc2": ("mlp.down_proj",),
    },
    keys={
        "intermediate_size": ("ffn_dim", "intermediate_size"),
        "hidden_act": "activation_function",
        "attention_bias": "enable_bias",
        "mlp_bias": "enable_bias",
    },
    activation="relu",
    defaults={"enable_bias": True, "tie_word_embeddings": True},
    derived=HEADS | {"rms_norm_eps": lambda config: 1e-5},
    # fc1 takes the scales of fc2 only through a ReLU.
    needs={
        "activation_function": "relu",
        "layer_norm_elementwise_affine": True,
        "_remove_final_layer_norm": False,
    },
    variants=(({"do_layer_norm_before": False}, "opt_post_norm"),),
    position_table="model.decoder.embed_positions",
    position_offset=2,
    project_in="model.decoder.project_in",
    project_out="model.decoder.project_out",
    base_prefix="model.",
    layer_prefix="model.decoder.layers.{layer}.",
    embed_tokens="model.decoder.embed_tokens",
    final_norm="model.decoder.final_layer_norm",
)
GPT2 = Family(
    "GPT2LMHeadModel",
    linears(attention=True, mlp=True),
    norms=two_norms("ln_1", "ln_2"),
    mlp=MLP,
    norm="layer",
    norm_bias=True,
    fused=stored_as("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
    transposed=True,
    keys={
        "hidden_size": ("n_embd", "hidden_size"),
        "num_hidden_layers": ("n_layer", "num_hidden_layers"),
        "num_attention_heads": ("n_head", "num_attention_heads"),
        "max_position_embeddings": ("n_positions", "n_ctx", "max_position_embeddings"),
        "hidden_act": "activation_function",
        "rms_norm_eps": "layer_norm_epsilon",
    },
    activation="gelu_new",
    defaults={
        "layer_norm_epsilon": 1e-5,
        "attention_multiplier": None,
        "scale_attn_by_inverse_layer_idx": False,
        "tie_word_embeddings": True,
    },
    derived=HEADS
    | {
        "intermediate_size": lambda config: config.get("n_inner") or four_times_hidden(config),
        "attention_multiplier": lambda config: 1.0 if config.get("scale_attn_weights") is False else None,
    },
    needs={"add_cross_attention": False},
    other_architectures=("GPT2Model",),
    position_table="transformer.wpe",
    base_prefix="transformer.",
    layer_prefix="transformer.h.{layer}.",
    embed_tokens="transformer.wte",
    final_norm="transformer.ln_f",
)
OLDER_FAMILIES: dict[str, Family] = {
    "gpt_neox": GPT_NEOX,
    "gpt_neox_sequential": replace(GPT_NEOX, parallel=False, variants=()),
    "phi": PHI,
    "opt": OPT,
    "opt_post_norm": replace(
        OPT,
        norms={
            "self_attn_layer_norm": Norm("stream_after_attention"),
            "final_layer_norm": Norm("stream_after_mlp"),
        },
        variants=(),
        final_norm="",
    ),
    "gpt2": GPT2,
}
