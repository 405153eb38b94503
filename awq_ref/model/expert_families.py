"""The rows of families with experts: see `families`.

EXPERT_FAMILIES    model_type -> Family

Source: the parameter names of Hugging Face transformers.
"""

from awq_ref.model.family import LLAMA_NORMS, Experts, Family, Norm, gated_linears

NO_BIASES = gated_linears(qkv=False, o=False, mlp=False)

EXPERT_FAMILIES: dict[str, Family] = {
    "mixtral": Family(
        "MixtralForCausalLM",
        NO_BIASES,
        experts=Experts(
            "block_sparse_moe.gate",
            (
                "block_sparse_moe.experts.{expert}.w1",
                "block_sparse_moe.experts.{expert}.w3",
                "block_sparse_moe.experts.{expert}.w2",
            ),
        ),
        sliding="always",
        defaults={
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1000000.0,
            "sliding_window": None,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "norm_topk_prob": True,
        },
        needs={"norm_topk_prob": True},
    ),
    "qwen3_moe": Family(
        "Qwen3MoeForCausalLM",
        gated_linears(qkv="attention_bias", o="attention_bias", mlp=False),
        norms=LLAMA_NORMS
        | {"self_attn.q_norm": Norm("query", "head"), "self_attn.k_norm": Norm("key", "head")},
        experts=Experts(
            "mlp.gate",
            (
                "mlp.experts.{expert}.gate_proj",
                "mlp.experts.{expert}.up_proj",
                "mlp.experts.{expert}.down_proj",
            ),
        ),
        sliding="switched_on",
        defaults={
            "num_key_value_heads": 4,
            "sliding_window": 4096,
            "num_local_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
        },
    ),
}
