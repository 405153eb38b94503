"""The keys of compressed-tensors: integers packed ("pack-quantized"), or float8 weights ("float-quantized").

    write_pack_quantized     spec and ignored modules -> the quantization_config
    read_compressed          the reverse

Sources: compressed-tensors, QuantizationConfig, QuantizationScheme and QuantizationArgs.
"""

from typing import Any

from awq_ref.checkpoint.format_keys import (
    Config,
    Float8Config,
    Quantization,
    QuantizationConfig,
    get,
    get_names,
    refuse_unless,
    spec_of,
)
from awq_ref.errors import FormatError
from awq_ref.spec import QuantSpec

PACKED, FLOAT8 = "pack-quantized", "float-quantized"
# Of a group's weights: what decides how they are stored. Observers and the like say how they were found.
WEIGHT_KEYS = (
    "num_bits",
    "type",
    "symmetric",
    "strategy",
    "group_size",
    "block_structure",
    "actorder",
    "dynamic",
)
# Whole parts of the library that change what a model computes; absent, null, empty, and sparsity of the format "dense"
# mean that they are not used.
UNREAD = {
    "kv_cache_scheme": "quantization of the cache",
    "sparsity_config": "sparse weights",
    "transform_config": "transforms (rotations) of activations",
}


def write_pack_quantized(spec: QuantSpec, ignored: list[str]) -> Config:
    """Return compressed-tensors' keys: one group of linears, weights only."""
    per_row = spec.group_size == -1
    weights = {
        "num_bits": spec.bits,
        "type": "int",
        "symmetric": spec.symmetric,
        "strategy": "channel" if per_row else "group",
        "group_size": None if per_row else spec.group_size,
        "actorder": None,
        "observer": "minmax",
        "dynamic": False,
    }
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": PACKED,
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "ignore": ignored,
        "config_groups": {"group_0": group},
        "kv_cache_scheme": None,
    }


def _groups(config: Config) -> list[Config]:
    """Return the groups that quantize weights: their targets are checked, not needed, for tensors say what they are."""
    groups = list(get(config, "config_groups", dict).values())
    refuse_unless(bool(groups), "0 config_groups", "one or more")
    for group in groups:
        if not isinstance(group, dict):
            raise FormatError(
                f"read_quantization_config: config_groups must hold objects; got {group!r}. Compare with the original."
            )
        get_names(group, "targets")
        refuse_unless(not group.get("output_activations"), "quantization of outputs", "weights alone")
    return [group for group in groups if group.get("weights")] or groups


def _weights(groups: list[Config]) -> Config:
    """Return what all groups say about their weights."""
    stored = [{key: get(group, "weights", dict).get(key) for key in WEIGHT_KEYS} for group in groups]
    differing = [key for key in WEIGHT_KEYS if any(weights[key] != stored[0][key] for weights in stored)]
    said = ", ".join(differing)
    refuse_unless(
        not differing, f"{len(groups)} config_groups that differ in {said}", "groups with equal weights"
    )
    return {key: value for key, value in stored[0].items() if value is not None}


def _read_packed(config: Config, groups: list[Config], weights: Config) -> QuantizationConfig:
    for group in groups:
        refuse_unless(not group.get("input_activations"), "quantization of activations", "weights alone")
    kind, strategy = weights.get("type", "int"), get(weights, "strategy", str)
    refuse_unless(kind == "int", f"the weight type {kind!r}", "int")
    refuse_unless(strategy in ("group", "channel"), f"the strategy {strategy!r}", "group and channel")
    order = weights.get("actorder")
    known = (None, False, "weight", "static", "group")
    refuse_unless(order in known, f"actorder {order!r}", "none, weight, static and group")
    group_size = get(weights, "group_size", int) if strategy == "group" else -1
    symmetric = get(weights, "symmetric", bool) if "symmetric" in weights else True
    spec = spec_of(get(weights, "num_bits", int), group_size, symmetric)
    return QuantizationConfig(spec, PACKED, get_names(config, "ignore"))


def _block(weights: Config) -> Any:
    structure = weights.get("block_structure")
    if not isinstance(structure, list) or len(structure) != 2 or not all(type(n) is int for n in structure):
        raise FormatError(
            f"read_quantization_config: block_structure must be two numbers; got {structure!r}."
        )
    return tuple(structure)


def _read_float8(config: Config, groups: list[Config], weights: Config) -> Float8Config:
    """Read float8 weights; activations, which the checkpoint's kernels round as well, stay float32 here."""
    for group in groups:
        activations = group.get("input_activations")
        dynamic = activations is None or (
            isinstance(activations, dict) and activations.get("dynamic") is True
        )
        refuse_unless(dynamic, "static quantization of activations", "none and dynamic")
    kind, bits, strategy = weights.get("type"), get(weights, "num_bits", int), get(weights, "strategy", str)
    refuse_unless((kind, bits) == ("float", 8), f"{bits}-bit weights of type {kind!r}", "float of 8 bits")
    refuse_unless(
        strategy in ("tensor", "channel", "block"), f"the strategy {strategy!r}", "tensor, channel and block"
    )
    block = {"tensor": (0, 0), "channel": (1, 0)}.get(strategy) or _block(weights)
    return Float8Config(block, "weight_scale", get_names(config, "ignore"))


def read_compressed(config: Config) -> Quantization:
    """Read a checkpoint whose groups of linears all have equal weights."""
    layout = get(config, "format", str)
    refuse_unless(layout in (PACKED, FLOAT8), f"the format {layout!r}", f"{PACKED} and {FLOAT8}")
    for key, what in UNREAD.items():
        said = config.get(key)
        unused = not said or (isinstance(said, dict) and said.get("format") == "dense")
        refuse_unless(unused, f"{what} ({key})", "weights alone")
    groups = _groups(config)
    weights = _weights(groups)
    read = _read_packed if layout == PACKED else _read_float8
    return read(config, groups, weights)
