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
    "gpt_neox": {
        "model_type": "gpt_neox",
        "architectures": ["GPTNeoXForCausalLM"],
        "num_attention_heads": 2,
        "rotary_pct": 0.5,
        "hidden_act": "gelu",
        "tie_word_embeddings": False,
    },
    "gpt_neox_sequential": {
        "model_type": "gpt_neox",
        "architectures": ["GPTNeoXForCausalLM"],
        "rotary_pct": 1.0,
        "hidden_act": "gelu",
        "use_parallel_residual": False,
    },
    "phi": {
        "model_type": "phi",
        "architectures": ["PhiForCausalLM"],
        "num_attention_heads": 2,
        "partial_rotary_factor": 0.5,
        "hidden_act": "gelu_new",
        "tie_word_embeddings": False,
    },
    "opt": {"model_type": "opt", "architectures": ["OPTForCausalLM"], "ffn_dim": 32},
    "opt_post_norm": {
        "model_type": "opt",
        "architectures": ["OPTForCausalLM"],
        "ffn_dim": 32,
        "do_layer_norm_before": False,
        "word_embed_proj_dim": 6,
        "tie_word_embeddings": True,
    },
    "gpt2": {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_inner": 32,
        "scale_attn_by_inverse_layer_idx": True,
    },
    "falcon": {
        "model_type": "falcon",
        "architectures": ["FalconForCausalLM"],
        "ffn_hidden_size": 32,
        "multi_query": True,
    },
    "falcon_two_norms": {
        "model_type": "falcon",
        "architectures": ["FalconForCausalLM"],
        "ffn_hidden_size": 32,
        "new_decoder_architecture": True,
        "num_kv_heads": 2,
    },
    "falcon_sequential": {
        "model_type": "falcon",
        "architectures": ["FalconForCausalLM"],
        "ffn_hidden_size": 32,
        "num_kv_heads": 4,
        "multi_query": False,
        "parallel_attn": False,
        "alibi": True,
        "bias": True,
    },
    "bloom": {"model_type": "bloom", "architectures": ["BloomForCausalLM"]},
    "mpt": {
        "model_type": "mpt",
        "architectures": ["MptForCausalLM"],
        "attn_config": {"softmax_scale": 0.2, "alibi": True, "alibi_bias_max": 8},
    },
    "mpt_clipped": {
        "model_type": "mpt",
        "architectures": ["MptForCausalLM"],
        "attn_config": {"alibi": True, "clip_qkv": 1.25},
    },
}
