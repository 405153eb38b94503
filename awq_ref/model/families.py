"""Model families: everything that differs from one architecture to the next, as one row each.

    LinearShape     sizes of a linear layer, by name, and which flag gives it a bias
    Family          names of tensors, order of linears, kind of norm
    FAMILIES        model_type -> Family

To add a family: add its row here (and a kind of norm or activation to `ops` if it brings a new one).

Source: the parameter names of Hugging Face transformers.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class LinearShape:
    """A linear layer (out_features, in_features), each the name of a size in `ModelConfig.sizes`.

    bias_flag names the field of ModelConfig that says whether the layer has a bias.
    """

    out_features: str
    in_features: str
    bias_flag: str


@dataclass(frozen=True)
class Family:
    """What one architecture calls its tensors and which parts it is built of.

    architecture : the class name in config.json's ``architectures``
    linears      : name below the layer -> its sizes, in the order in which a block uses them
    norms        : names below the layer, in the order of use
    norm         : a key of `ops.NORMS`
    """

    architecture: str
    linears: Mapping[str, LinearShape]
    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    norm: str = "rms"
    layer_prefix: str = "model.layers.{layer}."
    embed_tokens: str = "model.embed_tokens"
    final_norm: str = "model.norm"
    lm_head: str = "lm_head"


LLAMA_LINEARS = {
    "self_attn.q_proj": LinearShape("query", "hidden", "attention_bias"),
    "self_attn.k_proj": LinearShape("key_value", "hidden", "attention_bias"),
    "self_attn.v_proj": LinearShape("key_value", "hidden", "attention_bias"),
    "self_attn.o_proj": LinearShape("hidden", "query", "attention_bias"),
    "mlp.gate_proj": LinearShape("intermediate", "hidden", "mlp_bias"),
    "mlp.up_proj": LinearShape("intermediate", "hidden", "mlp_bias"),
    "mlp.down_proj": LinearShape("hidden", "intermediate", "mlp_bias"),
}

FAMILIES: dict[str, Family] = {
    "llama": Family("LlamaForCausalLM", LLAMA_LINEARS),
}
