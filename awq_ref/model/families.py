"""Model families: everything that differs from one architecture to the next, as one row each.

    LinearShape     sizes of a linear layer, by name, and what gives it a bias
    Norm            where a norm stands in a block, and how wide it is
    Family          names of tensors, order of linears, norms, windows, what config.json means where it is silent
    FAMILIES        model_type -> Family
    nearest         the known family whose name is most like another

To add a family: add its row here (and a kind of norm, activation or window to `ops` or `windows` if it brings a new
one) and to PLANS in `awq_ref/search/plan.py`; docs/families.md tells what the rows differ in.

Source: the parameter names of Hugging Face transformers.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Place = Literal["before_attention", "query", "key", "after_attention", "before_mlp", "after_mlp"]
FILE = "awq_ref/model/families.py"  # where a row is added, for error messages


@dataclass(frozen=True)
class LinearShape:
    """A linear layer (out_features, in_features), each the name of a size in `ModelConfig.sizes`.

    bias is True, False, or the field of ModelConfig that says whether the layer has one.
    """

    out_features: str
    in_features: str
    bias: str | bool


@dataclass(frozen=True)
class Norm:
    """A norm of a block.

    place : before_attention, before_mlp: of what a module reads; after_attention, after_mlp: of what it adds to the
            stream; query, key: of what q_proj and k_proj make, before rope
    size  : name of its width in `ModelConfig.sizes`; "head": every head by itself
    """

    place: Place
    size: str = "hidden"


LLAMA_NORMS = {
    "input_layernorm": Norm("before_attention"),
    "post_attention_layernorm": Norm("before_mlp"),
}
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


@dataclass(frozen=True)
class Family:
    """What one architecture calls its tensors and which parts it is built of.

    architecture : the class name in config.json's ``architectures``
    linears      : name below the layer -> its sizes, in the order in which a block uses them
    norms        : name below the layer -> its place, in the order of use
    parallel     : attention and MLP read the same normed stream, and both are added to it
    mlp          : the linears of the MLP: gate, up, down; gate "": there is none, up goes through the activation
    norm         : a key of `ops.NORMS`
    norm_bias    : norms have a bias too, stored beside their weight
    norm_offset  : what is added to a norm's stored weight: 1 where it is stored as its distance from 1
    fused        : tensor name -> the linears whose rows it holds, one below the other
    rope_neighbours : rope pairs a channel with its neighbour, not with the one half a head away
    sliding      : a key of `windows.WINDOWS`: which layers look no further back than the window
    scaled_embedding : embeddings are multiplied by sqrt(hidden_size)
    activation   : the activation where config.json names none, a key of `ops.ACTIVATIONS`
    keys         : field of ModelConfig -> the key of config.json that says it, where that has another name
    defaults     : what keys mean where config.json leaves them out, beside or instead of ModelConfig's defaults
    needs        : key of config.json -> the only value of it that runs here
    """

    architecture: str
    linears: Mapping[str, LinearShape]
    norms: Mapping[str, Norm] = field(default_factory=lambda: LLAMA_NORMS)
    parallel: bool = False
    mlp: tuple[str, str, str] = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    norm: str = "rms"
    norm_bias: bool = False
    norm_offset: float = 0.0
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rope_neighbours: bool = False
    sliding: str = "never"
    scaled_embedding: bool = False
    activation: str = "silu"
    keys: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    needs: Mapping[str, Any] = field(default_factory=dict)
    layer_prefix: str = "model.layers.{layer}."
    embed_tokens: str = "model.embed_tokens"
    final_norm: str = "model.norm"
    lm_head: str = "lm_head"

    def norm_at(self, place: Place) -> str | None:
        """Return the name of the norm at a place of the block; None if there is none."""
        return next((name for name, norm in self.norms.items() if norm.place == place), None)

    def stored_linears(self) -> dict[str, tuple[str, ...]]:
        """Return the linears as a float checkpoint has them: tensor name -> the linears whose rows it holds."""
        parts = {part: name for name, parts in self.fused.items() for part in parts}
        names = dict.fromkeys(parts.get(name, name) for name in self.linears)
        return {name: self.fused.get(name, (name,)) for name in names}


def gated_linears(*, qkv: str | bool, o: str | bool, mlp: str | bool) -> dict[str, LinearShape]:
    """Return the seven linears of a block with a gated MLP, given what says whether they have biases."""
    return {
        "self_attn.q_proj": LinearShape("query", "hidden", qkv),
        "self_attn.k_proj": LinearShape("key_value", "hidden", qkv),
        "self_attn.v_proj": LinearShape("key_value", "hidden", qkv),
        "self_attn.o_proj": LinearShape("hidden", "query", o),
        "mlp.gate_proj": LinearShape("intermediate", "hidden", mlp),
        "mlp.up_proj": LinearShape("intermediate", "hidden", mlp),
        "mlp.down_proj": LinearShape("hidden", "intermediate", mlp),
    }


def plain_linears(up: str, down: str, *, attention: str | bool, mlp: str | bool) -> dict[str, LinearShape]:
    """Return the six linears of a block whose MLP has no gate."""
    shared = list(gated_linears(qkv=attention, o=attention, mlp=mlp).items())[:4]
    return dict(shared) | {
        up: LinearShape("intermediate", "hidden", mlp),
        down: LinearShape("hidden", "intermediate", mlp),
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
    "phi3": Family(
        "Phi3ForCausalLM",
        NO_BIASES,
        fused={
            "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
        },
        sliding="always",
        defaults={"rms_norm_eps": 1e-5, "partial_rotary_factor": 1.0},
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
