"""The parts of a config.json, each read and checked by one function; `config.ModelConfig.from_json` puts them together.

    look_up, by_our_names       what stands under a family's own keys
    read_number, read_whole     a number, or an error that names the key
    read_model_type             which family it is
    read_factors                multipliers and caps
    read_rope, read_window_rope, rope_layers_of     which rope, and which layers have it
    read_alibi                  how scores fall with the distance instead
    read_eos                    the ids that end a text
    read_experts                how many experts, how wide, in which layers
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
from awq_ref.model.windows import FULL, SLIDING, read_rope_layers

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
        f"{near} ({FAMILIES[near].architecture}); a family is a row of FAMILIES in {FILE} (docs/adding_a_family.md "
        "says how to add one)."
    )


def read_eos(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the ids that end a text: config.json has one, a list, or none."""
    value = config.get("eos_token_id")
    values = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(read_whole({"eos_token_id": one}, "eos_token_id") for one in values)


def read_experts(config: Mapping[str, Any], family: Family, n_layers: int) -> dict[str, Any]:
    """Return the fields of ModelConfig that say which layers have experts; none in families without."""
    if family.experts is None:
        return {}
    told = config.get("num_experts")
    told = config.get("num_local_experts") if told is None else told  # as transformers 5 writes it
    n_experts, chosen = (
        read_whole({"num_experts": told}, "num_experts"),
        read_whole(config, "num_experts_per_tok"),
    )
    width = read_whole(config, "moe_intermediate_size", read_whole(config, "intermediate_size"))
    if not 1 <= chosen <= n_experts or width < 1:
        raise FormatError(
            "config.json: num_experts_per_tok must be from 1 to the number of experts, and their width at least 1; "
            f"got {chosen} of {n_experts} experts of width {width}."
        )
    every, dense = read_whole(config, "decoder_sparse_step", 1), config.get("mlp_only_layers") or []
    if every < 1 or not isinstance(dense, list):
        raise FormatError(
            "config.json: decoder_sparse_step must be at least 1 and mlp_only_layers a list of layers; got "
            f"{every} and {dense!r}."
        )
    layers = tuple(layer not in dense and (layer + 1) % every == 0 for layer in range(n_layers))
    return {
        "num_experts": n_experts,
        "num_experts_per_tok": chosen,
        "moe_intermediate_size": width,
        "norm_topk_prob": bool(config.get("norm_topk_prob")),
        "expert_layers": () if all(layers) else layers,
    }


def rope_layers_of(config: Mapping[str, Any], family: Family, n_layers: int) -> tuple[bool, ...]:
    """Return which layers have rope; a family without this default has it everywhere."""
    return read_rope_layers(config, n_layers) if "no_rope_layer_interval" in family.defaults else ()


def _rope_keys(config: Mapping[str, Any], family: Family, kind: str) -> dict[str, Any]:
    """Return what is said of the rope of a kind of layers, in the keys of rope_parameters, and its type."""
    rope: dict[str, Any] = {"rope_theta": config.get("rope_theta")}
    for name in ("rope_scaling", "rope_parameters"):
        said = config.get(name) or {}
        if FULL in said or SLIDING in said:  # transformers 5, where kinds of layers differ
            if "rope_local_base_freq" not in family.defaults:
                raise UnsupportedError(f"config.json: {name} must be the same in all layers; got {said}.")
            said = said.get(kind) or {}
        rope |= {key: value for key, value in said.items() if value is not None}
    rope_type = str(rope.get("rope_type", rope.get("type", "default")))
    if rope_type == "su" or (rope_type == "yarn" and "long_factor" in rope):  # Phi-3's first files
        rope_type = "longrope"
    return rope | {"rope_type": rope_type}


def _original_length(config: Mapping[str, Any], rope: Mapping[str, Any]) -> int:
    """Return the context before it was stretched: told beside the rope or in it; else max_position_embeddings."""
    whole = read_whole(config, "max_position_embeddings")
    if rope["rope_type"] == "dynamic":  # as transformers does, whatever the file says beside it
        return whole
    told = config.get("original_max_position_embeddings") or rope.get("original_max_position_embeddings")
    length = read_whole({"original_max_position_embeddings": told}, "original_max_position_embeddings", whole)
    if length < 2:
        raise FormatError(f"config.json: original_max_position_embeddings must be at least 2; got {length}.")
    return length


def _read_list(rope: Mapping[str, Any], name: str) -> tuple[float, ...]:
    """Return a list of positive numbers, one for every pair of channels."""
    values = rope.get(name)
    if not isinstance(values, list) or not values:
        raise FormatError(f"config.json: {name} must be a list of numbers; got {values!r}.")
    return tuple(_positive({name: value}, name) for value in values)


def _positive(config: Mapping[str, Any], name: str, default: float | None = None) -> float:
    """Return a number above 0 of a config.json."""
    value = float(read_number(config, name, default))
    if value <= 0.0:
        raise FormatError(f"config.json: {name} must be above 0; got {value}.")
    return value


def read_rope(config: Mapping[str, Any], family: Family, kind: str = FULL) -> RopeConfig:
    """Read rope_parameters (transformers 5), or rope_theta beside rope_scaling (before), of a kind of layers."""
    rope = _rope_keys(config, family, kind)
    rope_type = rope["rope_type"]
    share = read_number(rope, "partial_rotary_factor", read_number(config, "partial_rotary_factor", 1.0))
    if share != 1.0 and "partial_rotary_factor" not in family.defaults:
        raise UnsupportedError(f"config.json: partial_rotary_factor must be 1; got {share}.")
    require_known("rope_type", rope_type, ROPE_TYPES)
    row = ROPE_TYPES[rope_type]
    numbers: dict[str, Any] = {name: _read_list(rope, name) for name in row.lists}
    if "original_max_position_embeddings" in row.parameters:
        numbers["original_max_position_embeddings"] = original = _original_length(config, rope)
        if row.attention:  # of these types, factor may be left to the lengths
            rope.setdefault("factor", read_whole(config, "max_position_embeddings") / original)
    numbers |= {name: _positive(rope, name) for name in row.parameters if name not in numbers}
    numbers |= {name: _positive(rope, name) for name in row.optional if rope.get(name)}
    if row.attention:
        scales = {name: float(read_number(rope, name, 0.0)) for name in ("mscale", "mscale_all_dim")}
        usual = row.attention(scales | numbers)
        numbers["attention_factor"] = _positive(rope, "attention_factor", usual)
    return RopeConfig(
        rope_type,
        _positive(rope, "rope_theta", family.defaults.get("rope_theta", 10000.0)),
        **numbers,
        truncate=bool(rope.get("truncate", True)),
        partial_rotary_factor=float(share),
        neighbours=family.rope_neighbours,
    )


def read_window_rope(config: Mapping[str, Any], family: Family) -> RopeConfig | None:
    """Return the rope of the layers with a window, in families where it is another one; None elsewhere."""
    if "rope_local_base_freq" not in family.defaults:
        return None
    if config.get("sliding_window") is None:
        raise UnsupportedError(
            "config.json: sliding_window must be given: which rope a layer has depends on it."
        )
    said = (config.get("rope_parameters") or {}).get(SLIDING) or {}
    local = {"rope_theta": config["rope_local_base_freq"]} | said
    return read_rope({**config, "rope_scaling": None, "rope_parameters": local}, family)
