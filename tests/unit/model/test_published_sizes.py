"""The keys of config.json as the hub has them, and the numbers of parameters that are known of these models."""

import math
from typing import Any

import pytest

from awq_ref.model import ModelConfig, model_tensor_shapes

# model -> (config.json without what is of no weight, row of FAMILIES, parameters, tied ones once)
PUBLISHED: dict[str, tuple[dict[str, Any], str, int]] = {
    "pythia-70m": (
        {"architectures": ["GPTNeoXForCausalLM"], "hidden_act": "gelu", "hidden_size": 512, "vocab_size": 50304,
         "intermediate_size": 2048, "max_position_embeddings": 2048, "num_attention_heads": 8,
         "num_hidden_layers": 6, "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": False,
         "use_parallel_residual": True},
        "gpt_neox", 70_426_624,
    ),
    "phi-2": (
        {"architectures": ["PhiForCausalLM"], "hidden_act": "gelu_new", "hidden_size": 2560, "vocab_size": 51200,
         "intermediate_size": 10240, "max_position_embeddings": 2048, "num_attention_heads": 32,
         "num_hidden_layers": 32, "num_key_value_heads": 32, "partial_rotary_factor": 0.4, "qk_layernorm": False,
         "rope_scaling": None, "rope_theta": 10000.0, "tie_word_embeddings": False},
        "phi", 2_779_683_840,
    ),
    "opt-350m": (
        {"_remove_final_layer_norm": False, "activation_function": "relu", "architectures": ["OPTForCausalLM"],
         "do_layer_norm_before": False, "ffn_dim": 4096, "hidden_size": 1024, "max_position_embeddings": 2048,
         "num_attention_heads": 16, "num_hidden_layers": 24, "vocab_size": 50272, "word_embed_proj_dim": 512},
        "opt_post_norm", 331_196_416,
    ),
    "gpt2": (
        {"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "n_ctx": 1024, "n_embd": 768,
         "n_head": 12, "n_layer": 12, "n_positions": 1024, "vocab_size": 50257},
        "gpt2", 124_439_808,
    ),
    "falcon-7b": (
        {"alibi": False, "architectures": ["FalconForCausalLM"], "bias": False, "hidden_size": 4544,
         "multi_query": True, "new_decoder_architecture": False, "num_attention_heads": 71,
         "num_hidden_layers": 32, "parallel_attn": True, "vocab_size": 65024},
        "falcon", 6_921_720_704,
    ),
    "bloom-560m": (
        {"apply_residual_connection_post_layernorm": False, "architectures": ["BloomForCausalLM"],
         "n_embed": 1024, "n_layer": 24, "num_attention_heads": 16, "seq_length": 2048, "vocab_size": 250880},
        "bloom", 559_214_592,
    ),
    "mpt-7b": (
        {"architectures": ["MPTForCausalLM"], "d_model": 4096, "expansion_ratio": 4, "max_seq_len": 2048,
         "n_heads": 32, "n_layers": 32, "no_bias": True, "norm_type": "low_precision_layernorm",
         "vocab_size": 50432, "attn_config": {"alibi": True, "alibi_bias_max": 8, "clip_qkv": None}},
        "mpt", 6_649_286_656,
    ),
}  # fmt: skip


@pytest.mark.parametrize("model", PUBLISHED)
def test_parameters_are_as_many_as_published(model):
    told, row, parameters = PUBLISHED[model]
    config = ModelConfig.from_json(told)
    assert config.model_type == row
    assert sum(math.prod(shape) for shape in model_tensor_shapes(config).values()) == parameters
