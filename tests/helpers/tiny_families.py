"""A tiny config.json of every family, as changes to `tiny_model.TINY` (or to a larger one, for a checkpoint).

Each has what sets the family apart switched on: a window shorter than the texts of the tests, biases, multipliers
that are not 1, caps that bite.
"""

from typing import Any

WINDOW = 3  # the tests' texts are longer

FAMILY_CHANGES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
    "mistral": {
        "model_type": "mistral",
        "architectures": ["MistralForCausalLM"],
        "sliding_window": WINDOW,
    },
    "qwen2": {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "use_sliding_window": True,
        "sliding_window": WINDOW,
        "max_window_layers": 1,
    },
    "qwen3": {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": True,
    },
    "olmo2": {"model_type": "olmo2", "architectures": ["Olmo2ForCausalLM"]},
    "granite": {
        "model_type": "granite",
        "architectures": ["GraniteForCausalLM"],
        "embedding_multiplier": 2.5,
        "attention_multiplier": 0.4,
        "residual_multiplier": 0.3,
        "logits_scaling": 1.7,
    },
    "gemma": {
        "model_type": "gemma",
        "architectures": ["GemmaForCausalLM"],
        "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
    },
    "gemma2": {
        "model_type": "gemma2",
        "architectures": ["Gemma2ForCausalLM"],
        "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
        "sliding_window": WINDOW,
        "query_pre_attn_scalar": 6,
        "attn_logit_softcapping": 1.5,
        "final_logit_softcapping": 2.0,
    },
    "gemma3_text": {
        "model_type": "gemma3_text",
        "architectures": ["Gemma3ForCausalLM"],
        "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
        "sliding_window": WINDOW,
        "sliding_window_pattern": 2,
        "query_pre_attn_scalar": 6,
        "final_logit_softcapping": 2.0,
        "rope_local_base_freq": 7.0,
    },
    "phi3": {
        "model_type": "phi3",
        "architectures": ["Phi3ForCausalLM"],
        "sliding_window": WINDOW,
    },
    "stablelm": {
        "model_type": "stablelm",
        "architectures": ["StableLmForCausalLM"],
        "partial_rotary_factor": 0.5,
        "use_qkv_bias": True,
    },
    "starcoder2": {
        "model_type": "starcoder2",
        "architectures": ["Starcoder2ForCausalLM"],
        "hidden_act": "gelu_pytorch_tanh",
        "sliding_window": WINDOW,
    },
    "smollm3": {
        "model_type": "smollm3",
        "architectures": ["SmolLM3ForCausalLM"],
        "no_rope_layer_interval": 2,
        "use_sliding_window": True,
        "sliding_window": WINDOW,
    },
    "cohere": {
        "model_type": "cohere",
        "architectures": ["CohereForCausalLM"],
        "attention_bias": True,
        "logit_scale": 0.3,
    },
    "mixtral": {
        "model_type": "mixtral",
        "architectures": ["MixtralForCausalLM"],
        "intermediate_size": 16,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": WINDOW,
    },
    "qwen3_moe": {
        "model_type": "qwen3_moe",
        "architectures": ["Qwen3MoeForCausalLM"],
        "intermediate_size": 32,
        "moe_intermediate_size": 16,
        "num_experts": 5,
        "num_experts_per_tok": 2,
        "mlp_only_layers": [1],
    },
}
