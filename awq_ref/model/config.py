"""What a config.json says about a model, in Hugging Face's names.

    ModelConfig     sizes, flags and rope of one model; ModelConfig.from_json reads a config.json

Both spellings are read: ``rope_theta``, ``rope_scaling`` and ``torch_dtype``, and the ``rope_parameters`` and
``dtype`` of transformers 5.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from awq_ref.errors import FormatError
from awq_ref.model.alibi import Alibi
from awq_ref.model.config_keys import (
    SIZE_DEFAULTS,
    SIZE_FIELDS,
    by_our_names,
    read_alibi,
    read_eos,
    read_experts,
    read_factors,
    read_model_type,
    read_number,
    read_rope,
    read_whole,
    read_window_rope,
    require_known,
    require_needs,
    rope_layers_of,
)
from awq_ref.model.families import FAMILIES
from awq_ref.model.family import Family
from awq_ref.model.ops import ACTIVATIONS
from awq_ref.model.rope import ROPE_TYPES, RopeConfig
from awq_ref.model.windows import read_windows


@dataclass(frozen=True)
class ModelConfig:
    """The numbers that fix a decoder's shape and arithmetic.

    Raises
    ------
    FormatError
        If a size is below 1, num_key_value_heads does not divide num_attention_heads, or head_dim is odd.
    UnsupportedError
        If model_type, hidden_act or the type of rope is not known.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    rms_norm_eps: float = 1e-6  # of any kind of norm
    rope: RopeConfig = RopeConfig()
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    hidden_act: str = "silu"
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    model_type: str = "llama"
    dtype: str = "float32"
    windows: tuple[int, ...] = ()  # per layer, 0: the layer sees the whole text; (): all layers do
    rope_layers: tuple[bool, ...] = ()  # per layer: it has rope; (): all have
    embedding_multiplier: float = 1.0
    attention_multiplier: float = 0.0  # 0: 1 / sqrt(query_pre_attn_scalar)
    query_pre_attn_scalar: float = 0.0  # 0: head_dim
    residual_multiplier: float = 1.0
    logits_scaling: float = 1.0  # logits are divided by it
    logit_scale: float = 1.0  # logits are multiplied by it
    attn_logit_softcapping: float = 0.0  # 0: none
    final_logit_softcapping: float = 0.0  # 0: none
    clip_qkv: float = 0.0  # queries, keys and values are cut off at it, above and below; 0: they are not
    alibi: Alibi | None = None
    embedding_size: int = 0  # 0: hidden_size
    scale_attn_by_inverse_layer_idx: bool = False  # scores of layer n (from 0) are divided by n + 1 as well
    num_experts: int = 0  # of the layers that have some; 0: none has
    num_experts_per_tok: int = 0  # that a token goes through
    moe_intermediate_size: int = 0  # of an expert
    norm_topk_prob: bool = False  # the weights of a token's experts add up to 1
    expert_layers: tuple[bool, ...] = ()  # per layer: it has experts; (): all have, if num_experts is not 0
    window_rope: RopeConfig | None = None  # of layers with a window; None: they have `rope` too

    def __post_init__(self) -> None:
        require_known("model_type", self.model_type, FAMILIES)
        require_known("hidden_act", self.hidden_act, ACTIVATIONS)
        require_known("rope_type", self.rope.rope_type, ROPE_TYPES)
        for name in SIZE_FIELDS:
            if getattr(self, name) < 1:
                raise FormatError(f"ModelConfig: {name} must be at least 1; got {getattr(self, name)}.")
        if self.num_attention_heads % self.num_key_value_heads:
            raise FormatError(
                "ModelConfig: num_key_value_heads must divide num_attention_heads; got "
                f"{self.num_key_value_heads} and {self.num_attention_heads}."
            )
        if self.head_dim % 2:
            raise FormatError(f"ModelConfig: head_dim must be even, rope turns pairs; got {self.head_dim}.")
        turning = self.rope.channels(self.head_dim)
        if turning % 2 or not 2 <= turning <= self.head_dim:
            raise FormatError(
                f"ModelConfig: partial_rotary_factor must leave pairs of a head's {self.head_dim} channels to turn; "
                f"got {self.rope.partial_rotary_factor}, {turning} channels."
            )
        for name in ROPE_TYPES[self.rope.rope_type].lists:
            if len(getattr(self.rope, name)) != turning // 2:
                raise FormatError(
                    f"ModelConfig: {name} must hold a number for each of {turning // 2} pairs of channels; got "
                    f"{len(getattr(self.rope, name))}."
                )

    @property
    def family(self) -> Family:
        return FAMILIES[self.model_type]

    @property
    def queries_per_key(self) -> int:
        """Query heads that share one key-value head."""
        return self.num_attention_heads // self.num_key_value_heads

    @property
    def softmax_scale(self) -> float:
        """What the products of queries and keys are multiplied by."""
        return self.attention_multiplier or 1.0 / math.sqrt(self.query_pre_attn_scalar or self.head_dim)

    def score_scale(self, layer: int) -> float:
        """Return what the products of queries and keys of a layer are multiplied by."""
        return self.softmax_scale / (layer + 1 if self.scale_attn_by_inverse_layer_idx else 1)

    @property
    def embedding_width(self) -> int:
        """The width of the embedding's rows."""
        return self.embedding_size or self.hidden_size

    @property
    def projects(self) -> bool:
        """Tell whether linears stand between the embedding's width and the stream's."""
        return self.embedding_width != self.hidden_size

    @property
    def context(self) -> int:
        """Tokens that a text may have: max_position_embeddings, or more where rope stretches the original length."""
        original, stretches = (
            self.rope.original_max_position_embeddings,
            ROPE_TYPES[self.rope.rope_type].stretches,
        )
        stretched = int(self.rope.factor * original) if stretches else 0
        return max(self.max_position_embeddings, stretched)

    def n_experts(self, layer: int) -> int:
        """Return how many experts a layer has; 0: it has one MLP."""
        return self.num_experts if not self.expert_layers or self.expert_layers[layer] else 0

    def window(self, layer: int) -> int:
        """Return how many columns a query of a layer sees, its own included; 0: all."""
        return self.windows[layer] if self.windows else 0

    def has_rope(self, layer: int) -> bool:
        """Tell whether a layer turns its queries and keys by their positions."""
        return self.rope_layers[layer] if self.rope_layers else True

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes that a row of `families` may name."""
        return {
            "hidden": self.hidden_size,
            "intermediate": self.intermediate_size,
            "expert": self.moe_intermediate_size,
            "query": self.num_attention_heads * self.head_dim,
            "key_value": self.num_key_value_heads * self.head_dim,
            "head": self.head_dim,
        }

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> "ModelConfig":
        """Read the contents of a config.json.

        Raises
        ------
        FormatError
            If a needed key is missing or holds a value of the wrong type, or the sizes contradict each other.
        UnsupportedError
            If the architecture, the activation or the kind of rope is not known; the message lists those that
            are.
        """
        model_type = read_model_type(config)
        family = FAMILIES[model_type]
        config = by_our_names(config, family)
        require_needs(config, model_type, family)
        alibi = read_alibi(config, family)
        sizes: dict[str, Any] = {}
        for name in SIZE_FIELDS:
            default = SIZE_DEFAULTS.get(name)
            sizes[name] = read_whole(config, name, default and default(sizes))
        return cls(
            **sizes,
            rms_norm_eps=read_number(config, "rms_norm_eps", 1e-6),
            rope=read_rope(config, family),
            **dict[str, Any](
                (name, bool(config.get(name)))
                for name in ("tie_word_embeddings", "attention_bias", "mlp_bias")
            ),
            hidden_act=str(config.get("hidden_act") or family.activation),
            bos_token_id=None if config.get("bos_token_id") is None else read_whole(config, "bos_token_id"),
            eos_token_ids=read_eos(config),
            model_type=model_type,
            dtype=str(config.get("dtype") or config.get("torch_dtype") or "float32"),
            window_rope=read_window_rope(config, family),
            windows=read_windows(config, family.sliding, sizes["num_hidden_layers"]),
            rope_layers=(
                (False,) * sizes["num_hidden_layers"]
                if alibi or family.position_table
                else rope_layers_of(config, family, sizes["num_hidden_layers"])
            ),
            alibi=alibi,
            embedding_size=read_whole(config, "word_embed_proj_dim", 0) if family.project_in else 0,
            scale_attn_by_inverse_layer_idx=bool(config.get("scale_attn_by_inverse_layer_idx"))
            and "scale_attn_by_inverse_layer_idx" in family.defaults,
            **read_experts(config, family, sizes["num_hidden_layers"]),
            **read_factors(config, family, sizes["hidden_size"]),
        )
