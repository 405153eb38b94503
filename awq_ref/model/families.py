"""Model families: everything that differs from one architecture to the next, as one row each.

    FAMILIES    model_type -> Family
    nearest     the known family whose name is most like another

Families from before Llama, and those with ALiBi, have their rows in `older_families` and `alibi_families`, those with
experts in `expert_families`.

To add a family: add its row here (and a kind of norm, activation or window to `ops` or `windows` if it brings a new
one) and to PLANS in `awq_ref/search/plan.py`; docs/families.md tells what the rows differ in.

Source: the parameter names of Hugging Face transformers.
"""

import difflib

from awq_ref.model.alibi_families import ALIBI_FAMILIES
from awq_ref.model.expert_families import EXPERT_FAMILIES
from awq_ref.model.family import LLAMA_NORMS, Family, Norm, gated_linears, plain_linears
from awq_ref.model.older_families import OLDER_FAMILIES

FILE = "awq_ref/model/families.py"  # where a row is added, for error messages

QWEN3_NORMS = LLAMA_NORMS | {
    "self_attn.q_norm": Norm("query", "head"),
    "self_attn.k_norm": Norm("key", "head"),
}
OLMO2_NORMS = {
    "self_attn.q_norm": Norm("query", "query"),
    "self_attn.k_norm": Norm("key", "key_value"),
    "post_attention_layernorm": Norm("after_attention"),
    "post_feedforward_layernorm": Norm("after_mlp"),
}
COHERE_NORMS = {"input_layernorm": Norm("before_attention")}
GEMMA2_NORMS = {
    "input_layernorm": Norm("before_attention"),
    "post_attention_layernorm": Norm("after_attention"),
    "pre_feedforward_layernorm": Norm("before_mlp"),
    "post_feedforward_layernorm": Norm("after_mlp"),
}

GEMMA3_NORMS = {
    "input_layernorm": Norm("before_attention"),
    "self_attn.q_norm": Norm("query", "head"),
    "self_attn.k_norm": Norm("key", "head"),
    "post_attention_layernorm": Norm("after_attention"),
    "pre_feedforward_layernorm": Norm("before_mlp"),
    "post_feedforward_layernorm": Norm("after_mlp"),
}
GLM4_NORMS = {
    "input_layernorm": Norm("before_attention"),
    "post_self_attn_layernorm": Norm("after_attention"),
    "post_attention_layernorm": Norm("before_mlp"),
    "post_mlp_layernorm": Norm("after_mlp"),
}

LLAMA_LINEARS = gated_linears(qkv="attention_bias", o="attention_bias", mlp="mlp_bias")
NO_BIASES = gated_linears(qkv=False, o=False, mlp=False)
ATTENTION_BIASES = gated_linears(qkv="attention_bias", o="attention_bias", mlp=False)
GEMMA_DEFAULTS = {"head_dim": 256, "tie_word_embeddings": True}

FAMILIES: dict[str, Family] = {
    "llama": Family("LlamaForCausalLM", LLAMA_LINEARS),
    "mistral": Family("MistralForCausalLM", NO_BIASES, sliding="always", defaults={"sliding_window": 4096}),
    "qwen2": Family(
        "Qwen2ForCausalLM",
        gated_linears(qkv=True, o=False, mlp=False),
        sliding="upper_layers",
        defaults={"sliding_window": 4096, "max_window_layers": 28},
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        ATTENTION_BIASES,
        norms=QWEN3_NORMS,
        sliding="upper_layers",
        defaults={"head_dim": 128, "sliding_window": 4096, "max_window_layers": 28},
    ),
    "olmo2": Family("Olmo2ForCausalLM", ATTENTION_BIASES, norms=OLMO2_NORMS, defaults={"rms_norm_eps": 1e-5}),
    "granite": Family(
        "GraniteForCausalLM",
        LLAMA_LINEARS,
        defaults={
            "embedding_multiplier": 1.0,
            "attention_multiplier": 1.0,
            "residual_multiplier": 1.0,
            "logits_scaling": 1.0,
        },
    ),
    "gemma": Family(
        "GemmaForCausalLM",
        ATTENTION_BIASES,
        norm_offset=1.0,
        scaled_embedding=True,
        keys={"hidden_act": "hidden_activation"},
        activation="gelu_pytorch_tanh",
        defaults=GEMMA_DEFAULTS,
    ),
    "gemma2": Family(
        "Gemma2ForCausalLM",
        ATTENTION_BIASES,
        norms=GEMMA2_NORMS,
        norm_offset=1.0,
        sliding="every_other",
        scaled_embedding=True,
        keys={"hidden_act": "hidden_activation"},
        activation="gelu_pytorch_tanh",
        defaults=GEMMA_DEFAULTS
        | {
            "sliding_window": 4096,
            "query_pre_attn_scalar": 256,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
    ),
    "gemma3_text": Family(
        "Gemma3ForCausalLM",
        ATTENTION_BIASES,
        norms=GEMMA3_NORMS,
        norm_offset=1.0,
        sliding="all_but_every_nth",
        scaled_embedding=True,
        keys={"hidden_act": "hidden_activation"},
        activation="gelu_pytorch_tanh",
        defaults=GEMMA_DEFAULTS
        | {
            "num_key_value_heads": 4,
            "sliding_window": 4096,
            "sliding_window_pattern": 6,
            "query_pre_attn_scalar": 256,
            "final_logit_softcapping": None,
            "rope_theta": 1000000.0,
            "rope_local_base_freq": 10000.0,
        },
        needs={"use_bidirectional_attention": False, "attn_logit_softcapping": None},
    ),
    "phi3": Family(
        "Phi3ForCausalLM",
        NO_BIASES,
        fused={
            "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
        },
        sliding="always",
        defaults={
            "rms_norm_eps": 1e-5,
            "partial_rotary_factor": 1.0,
            "original_max_position_embeddings": 4096,
        },
    ),
    "glm4": Family(
        "Glm4ForCausalLM",
        gated_linears(qkv="attention_bias", o=False, mlp=False),
        norms=GLM4_NORMS,
        fused={"mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj")},
        rope_neighbours=True,
        defaults={
            "head_dim": 128,
            "num_key_value_heads": 2,
            "attention_bias": True,
            "rms_norm_eps": 1.5625e-7,
            "partial_rotary_factor": 0.5,
        },
    ),
    "stablelm": Family(
        "StableLmForCausalLM",
        gated_linears(qkv="attention_bias", o=False, mlp=False),
        norm="layer",
        norm_bias=True,
        keys={"rms_norm_eps": "layer_norm_eps", "attention_bias": "use_qkv_bias"},
        defaults={"layer_norm_eps": 1e-5, "num_key_value_heads": 32, "partial_rotary_factor": 0.25},
        needs={"qk_layernorm": False, "use_parallel_residual": False},
    ),
    "starcoder2": Family(
        "Starcoder2ForCausalLM",
        plain_linears("mlp.c_fc", "mlp.c_proj", attention="attention_bias", mlp="mlp_bias"),
        mlp=("", "mlp.c_fc", "mlp.c_proj"),
        norm="layer",
        norm_bias=True,
        sliding="always",
        activation="gelu_pytorch_tanh",
        keys={"rms_norm_eps": "norm_epsilon", "attention_bias": "use_bias", "mlp_bias": "use_bias"},
        defaults={
            "norm_epsilon": 1e-5,
            "num_key_value_heads": 2,
            "use_bias": True,
            "tie_word_embeddings": True,
        },
    ),
    "smollm3": Family(
        "SmolLM3ForCausalLM",
        LLAMA_LINEARS,
        sliding="layers_without_rope",
        defaults={
            "num_key_value_heads": 4,
            "rope_theta": 2000000.0,
            "no_rope_layer_interval": 4,
            "tie_word_embeddings": True,
        },
    ),
    "cohere": Family(
        "CohereForCausalLM",
        ATTENTION_BIASES,
        norms=COHERE_NORMS,
        parallel=True,
        norm="layer",
        rope_neighbours=True,
        keys={"rms_norm_eps": "layer_norm_eps"},
        defaults={
            "layer_norm_eps": 1e-5,
            "rope_theta": 500000.0,
            "logit_scale": 0.0625,
            "tie_word_embeddings": True,
        },
        needs={"use_qk_norm": False},
    ),
    **OLDER_FAMILIES,
    **ALIBI_FAMILIES,
    **EXPERT_FAMILIES,
}


def nearest(name: str) -> str:
    """Return the known model_type that is most like the name of another, or of an architecture.

    Examples
    --------
    >>> nearest("Mistral3ForCausalLM")
    'mistral'
    """
    word = name.lower().removesuffix("forcausallm")
    return difflib.get_close_matches(word, FAMILIES, n=1, cutoff=0.0)[0]
