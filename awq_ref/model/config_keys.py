"""The parts of a config.json, each read and checked by one function; `config.ModelConfig.from_json` puts them together.

    look_up, by_our_names       what stands under a family's own keys
    read_number, read_whole     a number, or an error that names the key
    read_model_type             which family it is
    read_factors                multipliers and caps
    read_rope, rope_layers_of   which rope, and which layers have it;  read_alibi: the bias of others
    read_eos                    the ids that end a text
    require_known, require_needs    what runs here

Both spellings are read: ``rope_theta``, ``rope_scaling`` and ``torch_dtype``, and the ``rope_parameters`` and
``dtype`` of transformers 5.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from awq_ref.errors import FormatError, UnsupportedError
from awq_ref.model.alibi import Alibi
from awq_ref.model.families import FAMILIES, FILE, nearest
from awq_ref.model.family import Family
from awq_ref.model.rope import ROPE_TYPES, RopeConfig
from awq_ref.model.windows import read_rope_layers

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
    "clip_qkv",
)


def require_known(name: str, value: str, known: Mapping[str, object]) -> None:
    """Raise UnsupportedError unless a value is among those that run here."""
    if value not in known:
        raise UnsupportedError(
            f"ModelConfig: {name} must be one of {', '.join(sorted(known))}; got {value!r}. "
            "Other models do not run yet."
        )


def look_up(config: Mapping[str, Any], key: str) -> Any:
    """Return what a config.json says under a key; "a.b": under key b of the object a; None if nothing."""
    outer, dot, inner = key.partition(".")
    found = config.get(outer)
    return look_up(found, inner) if dot and isinstance(found, Mapping) else None if dot else found


def by_our_names(config: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """Return a config.json with the family's defaults, and with what its keys say under the names of our fields."""
    named = {**family.defaults, **config}
    for name, keys in family.keys.items():
        values = (look_up(named, key) for key in ((keys,) if isinstance(keys, str) else keys))
        named[name] = next((value for value in values if value is not None), None)
    for name, rule in family.derived.items():
        named[name] = rule(named)
    return named


def read_alibi(config: Mapping[str, Any], family: Family) -> Alibi | None:
    """Return by how much scores fall with the distance; None in a model with rope or learned positions."""
    if family.alibi is None or config.get("alibi") is False:
        return None
    return replace(family.alibi, bias_max=float(read_number(config, "alibi_bias_max", family.alibi.bias_max)))


def require_needs(config: Mapping[str, Any], model_type: str, family: Family) -> None:
    """Raise UnsupportedError where a config.json asks for what no model of the family has here."""
    for name, value in family.needs.items():
        said, runs = look_up(config, name), value if isinstance(value, tuple) else (value,)
        if said not in (*runs, None):
            wanted = " or ".join(map(json.dumps, runs))
            raise UnsupportedError(
                f"config.json: {name} must be {wanted} for {model_type}; got {said!r}. Other "
                "models of the family do not run yet."
            )


def read_factors(config: Mapping[str, Any], family: Family, hidden_size: int) -> dict[str, Any]:
    """Return the multipliers and caps of a family that has some; a null is none."""
    names = [name for name in FACTOR_FIELDS if name in family.defaults and config[name] is not None]
    factors = {name: float(read_number(config, name)) for name in names}
    for name, value in factors.items():
        if value <= 0.0:
            raise FormatError(f"config.json: {name} must be above 0; got {value}.")
    if family.scaled_embedding:
        factors["embedding_multiplier"] = math.sqrt(hidden_size)
    return factors


def read_number(config: Mapping[str, Any], name: str, default: float | None = None) -> float:
    """Return a number of a config.json; FormatError if it is missing without a default, or no number."""
    value = config.get(name, default)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        came = "nothing" if value is None else repr(value)
        raise FormatError(f"config.json: {name} must be a finite number; got {came}.")
    return value


def read_whole(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """Return a whole number of a config.json; FormatError as for `_number`."""
    value = read_number(config, name, default)
    if int(value) != value:
        raise FormatError(f"config.json: {name} must be a whole number; got {value!r}.")
    return int(value)


def _variant(config: Mapping[str, Any], name: str) -> str:
    """Return the row of a family that describes the model: its own, or that of a variant."""
    told = {**FAMILIES[name].defaults, **config}
    for keys, row in FAMILIES[name].variants:
        said = [(look_up(told, key), value) for key, value in keys.items()]
        if all(value(found) if callable(value) else found == value for found, value in said):
            return row
    return name


def read_model_type(config: Mapping[str, Any]) -> str:
    """Return the family: the row that the architecture names, or else model_type."""
    architectures = [str(name) for name in config.get("architectures") or []]
    rows = [
        name
        for name, family in FAMILIES.items()
        if any(known in architectures for known in (family.architecture, *family.other_architectures))
    ]
    name = rows[0] if rows else str(config.get("model_type"))
    if rows or (not architectures and name in FAMILIES):
        return _variant(config, name)
    known, came = ("architectures", architectures) if architectures else ("model_type", [name])
    names = [family.architecture for family in FAMILIES.values()] if architectures else sorted(FAMILIES)
    names = list(dict.fromkeys(names))
    near = nearest(came[0])
    raise UnsupportedError(
        f"config.json: {known} must name one of {', '.join(names)}; got {', '.join(came)}. The nearest is "
        f"{near} ({FAMILIES[near].architecture}); a family is a row of FAMILIES in {FILE} (docs/architecture.md says "
        "how to add one)."
    )


def read_eos(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the ids that end a text: config.json has one, a list, or none."""
    value = config.get("eos_token_id")
    values = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(read_whole({"eos_token_id": one}, "eos_token_id") for one in values)


def rope_layers_of(config: Mapping[str, Any], family: Family, n_layers: int) -> tuple[bool, ...]:
    """Return which layers have rope; a family without this default has it everywhere."""
    return read_rope_layers(config, n_layers) if "no_rope_layer_interval" in family.defaults else ()


def read_rope(config: Mapping[str, Any], family: Family) -> RopeConfig:
    """Read rope_parameters (transformers 5), or rope_theta beside rope_scaling (before)."""
    rope: dict[str, Any] = {"rope_theta": config.get("rope_theta")}
    for name in ("rope_scaling", "rope_parameters"):
        rope |= {key: value for key, value in (config.get(name) or {}).items() if value is not None}
    rope_type = str(rope.get("rope_type", rope.get("type", "default")))
    share = read_number(rope, "partial_rotary_factor", read_number(config, "partial_rotary_factor", 1.0))
    if share != 1.0 and "partial_rotary_factor" not in family.defaults:
        raise UnsupportedError(f"config.json: partial_rotary_factor must be 1; got {share}.")
    require_known("rope_type", rope_type, ROPE_TYPES)
    numbers = {name: read_number(rope, name) for name in ROPE_TYPES[rope_type].parameters}
    original = int(numbers.pop("original_max_position_embeddings", 0))
    theta = float(read_number(rope, "rope_theta", family.defaults.get("rope_theta", 10000.0)))
    return RopeConfig(
        rope_type,
        theta,
        **numbers,
        original_max_position_embeddings=original,
        partial_rotary_factor=float(share),
        neighbours=family.rope_neighbours,
    )
