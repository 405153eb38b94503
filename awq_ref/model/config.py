"""What a config.json says about a model, in Hugging Face's names.

    ModelConfig     sizes, flags and rope of one model; ModelConfig.from_json reads a config.json

Both spellings are read: ``rope_theta``, ``rope_scaling`` and ``torch_dtype``, and the ``rope_parameters`` and
``dtype`` of transformers 5.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from awq_ref.errors import FormatError, UnsupportedError
from awq_ref.model.families import FAMILIES, FILE, Family, nearest
from awq_ref.model.ops import ACTIVATIONS
from awq_ref.model.rope import ROPE_TYPES, RopeConfig
from awq_ref.model.windows import read_rope_layers, read_windows


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

    def __post_init__(self) -> None:
        _require_known("model_type", self.model_type, FAMILIES)
        _require_known("hidden_act", self.hidden_act, ACTIVATIONS)
        _require_known("rope_type", self.rope.rope_type, ROPE_TYPES)
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
        model_type = _read_model_type(config)
        family = FAMILIES[model_type]
        config = {**family.defaults, **config}
        config |= {name: config.get(key) for name, key in family.keys.items()}
        _require_needs(config, model_type, family)
        sizes: dict[str, Any] = {}
        for name in SIZE_FIELDS:
            default = SIZE_DEFAULTS.get(name)
            sizes[name] = _whole(config, name, default and default(sizes))
        return cls(
            **sizes,
            rms_norm_eps=_number(config, "rms_norm_eps", 1e-6),
            rope=_read_rope(config, family),
            **{
                name: bool(config.get(name)) for name in ("tie_word_embeddings", "attention_bias", "mlp_bias")
            },
            hidden_act=str(config.get("hidden_act") or family.activation),
            bos_token_id=None if config.get("bos_token_id") is None else _whole(config, "bos_token_id"),
            eos_token_ids=_read_eos(config),
            model_type=model_type,
            dtype=str(config.get("dtype") or config.get("torch_dtype") or "float32"),
            windows=read_windows(config, family.sliding, sizes["num_hidden_layers"]),
            rope_layers=_read_rope_layers(config, family, sizes["num_hidden_layers"]),
            **_read_factors(config, family, sizes["hidden_size"]),
        )


# Fields that hold a size; those with a default are computed from the others where config.json is silent.
SIZE_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
)
SIZE_DEFAULTS: dict[str, Callable[[dict[str, Any]], int]] = {
    "num_key_value_heads": lambda sizes: sizes["num_attention_heads"],
    "head_dim": lambda sizes: sizes["hidden_size"] // max(1, sizes["num_attention_heads"]),
}


# Numbers that only some families have: those whose row names them among its defaults.
FACTOR_FIELDS = (
    "embedding_multiplier",
    "attention_multiplier",
    "query_pre_attn_scalar",
    "residual_multiplier",
    "logits_scaling",
    "logit_scale",
    "attn_logit_softcapping",
    "final_logit_softcapping",
)


def _require_known(name: str, value: str, known: Mapping[str, object]) -> None:
    if value not in known:
        raise UnsupportedError(
            f"ModelConfig: {name} must be one of {', '.join(sorted(known))}; got {value!r}. "
            "Other models do not run yet."
        )


def _require_needs(config: Mapping[str, Any], model_type: str, family: Family) -> None:
    for name, value in family.needs.items():
        if config.get(name) not in (value, None):
            raise UnsupportedError(
                f"config.json: {name} must be {json.dumps(value)} for {model_type}; got {config[name]!r}. Other "
                "models of the family do not run yet."
            )


def _read_factors(config: Mapping[str, Any], family: Family, hidden_size: int) -> dict[str, Any]:
    """Return the multipliers and caps of a family that has some; a null is none."""
    names = [name for name in FACTOR_FIELDS if name in family.defaults and config[name] is not None]
    factors = {name: float(_number(config, name)) for name in names}
    for name, value in factors.items():
        if value <= 0.0:
            raise FormatError(f"config.json: {name} must be above 0; got {value}.")
    if family.scaled_embedding:
        factors["embedding_multiplier"] = math.sqrt(hidden_size)
    return factors


def _number(config: Mapping[str, Any], name: str, default: float | None = None) -> float:
    """Return a number of a config.json; FormatError if it is missing without a default, or no number."""
    value = config.get(name, default)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        came = "nothing" if value is None else repr(value)
        raise FormatError(f"config.json: {name} must be a finite number; got {came}.")
    return value


def _whole(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """Return a whole number of a config.json; FormatError as for `_number`."""
    value = _number(config, name, default)
    if int(value) != value:
        raise FormatError(f"config.json: {name} must be a whole number; got {value!r}.")
    return int(value)


def _read_model_type(config: Mapping[str, Any]) -> str:
    """Return the family: the row that the architecture names, or else model_type."""
    architectures = [str(name) for name in config.get("architectures") or []]
    rows = [name for name, family in FAMILIES.items() if family.architecture in architectures]
    name = rows[0] if rows else str(config.get("model_type"))
    if rows or (not architectures and name in FAMILIES):
        return name
    known, came = ("architectures", architectures) if architectures else ("model_type", [name])
    names = [family.architecture for family in FAMILIES.values()] if architectures else sorted(FAMILIES)
    near = nearest(came[0])
    raise UnsupportedError(
        f"config.json: {known} must name one of {', '.join(names)}; got {', '.join(came)}. The nearest is "
        f"{near} ({FAMILIES[near].architecture}); a family is a row of FAMILIES in {FILE} (docs/architecture.md says "
        "how to add one)."
    )


def _read_eos(config: Mapping[str, Any]) -> tuple[int, ...]:
    value = config.get("eos_token_id")
    values = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(_whole({"eos_token_id": one}, "eos_token_id") for one in values)


def _read_rope_layers(config: Mapping[str, Any], family: Family, n_layers: int) -> tuple[bool, ...]:
    """Return which layers have rope; a family without this default has it everywhere."""
    return read_rope_layers(config, n_layers) if "no_rope_layer_interval" in family.defaults else ()


def _read_rope(config: Mapping[str, Any], family: Family) -> RopeConfig:
    """Read rope_parameters (transformers 5), or rope_theta beside rope_scaling (before)."""
    rope: dict[str, Any] = {"rope_theta": config.get("rope_theta")}
    for name in ("rope_scaling", "rope_parameters"):
        rope |= {key: value for key, value in (config.get(name) or {}).items() if value is not None}
    rope_type = str(rope.get("rope_type", rope.get("type", "default")))
    share = _number(rope, "partial_rotary_factor", _number(config, "partial_rotary_factor", 1.0))
    if share != 1.0 and "partial_rotary_factor" not in family.defaults:
        raise UnsupportedError(f"config.json: partial_rotary_factor must be 1; got {share}.")
    _require_known("rope_type", rope_type, ROPE_TYPES)
    numbers = {name: _number(rope, name) for name in ROPE_TYPES[rope_type].parameters}
    original = int(numbers.pop("original_max_position_embeddings", 0))
    theta = float(_number(rope, "rope_theta", family.defaults.get("rope_theta", 10000.0)))
    return RopeConfig(
        rope_type,
        theta,
        **numbers,
        original_max_position_embeddings=original,
        partial_rotary_factor=float(share),
        neighbours=family.rope_neighbours,
    )
