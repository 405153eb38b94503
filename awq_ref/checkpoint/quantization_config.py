"""What config.json says about the integers: one row per layout.

    CONFIG_FORMATS    "gemm" (AutoAWQ's keys) and "pack-quantized" (compressed-tensors' keys)
    write_quantization_config      spec, layout, ignored modules -> the quantization_config
    read_quantization_config       the quantization_config -> (spec, layout, ignored modules)
    output_config     the source's config.json -> the one of the quantized model

Sources: AutoAWQ's AwqConfig.to_dict; transformers' AwqConfig; compressed-tensors' QuantizationConfig and
QuantizationArgs.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, TypeVar

from awq_ref.checks import require_one_of
from awq_ref.errors import FormatError, RangeError, UnsupportedError
from awq_ref.spec import QuantSpec

Config = dict[str, Any]
Value = TypeVar("Value")

RECORD = "awq_ref"  # our own key of config.json; top level, so that no reader of quantization_config meets it


class QuantizationConfig(NamedTuple):
    """How a checkpoint stores its integers.

    spec : range_rule and scale_dtype are the defaults: formats do not record them
    layout : a name in awq_ref.pack's LAYOUTS
    ignored : modules left in float, as the config names them
    """

    spec: QuantSpec
    layout: str
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class ConfigFormat:
    """One layout's way to say it: the quant_method it goes by, a writer and a reader."""

    quant_method: str
    write: Callable[[QuantSpec, list[str]], Config]
    read: Callable[[Config], QuantizationConfig]


def _get(config: Mapping[str, Any], key: str, kind: type[Value], *other_names: str) -> Value:
    """Return the value of a key, under the first of its names that is there."""
    for name in (key, *other_names):
        if name in config:
            if type(config[name]) is not kind:  # not isinstance: True is no bit width
                raise FormatError(
                    f"read_quantization_config: {name} must be of type {kind.__name__}; got "
                    f"{config[name]!r}. Compare it with the original."
                )
            value: Value = config[name]
            return value
    raise FormatError(
        f"read_quantization_config: quantization_config has no {key}. Compare it with the original."
    )


def _names(config: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Return a list of names; absent and null mean none."""
    names = config.get(key) or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FormatError(f"read_quantization_config: {key} must be a list of module names; got {names!r}.")
    return tuple(names)


def _refuse_unless(fits: bool, what: str, known: str) -> None:
    """Raise UnsupportedError: the file is right, awq_ref does not know this kind."""
    if not fits:
        raise UnsupportedError(f"read_quantization_config: {what} is not supported; awq_ref reads {known}.")


def _spec(bits: int, group_size: int, symmetric: bool) -> QuantSpec:
    """Return the spec of a stored checkpoint; say that the file is wrong, not the caller."""
    try:
        return QuantSpec(bits=bits, group_size=group_size, symmetric=symmetric)
    except RangeError as error:
        raise FormatError(f"read_quantization_config: quantization_config cannot be read. {error}") from None


def _write_gemm(spec: QuantSpec, ignored: list[str]) -> Config:
    """AutoAWQ's keys. zero_point is always true: this layout stores zero points, also where all are 8."""
    if spec.bits != 4 or spec.scale_dtype != "float16":
        raise UnsupportedError(
            f"write_quantization_config: layout gemm holds 4 bits with float16 scales; got {spec.bits} bits, "
            f"{spec.scale_dtype}. Use pack-quantized."
        )
    return {
        "quant_method": "awq",
        "bits": spec.bits,
        "group_size": spec.group_size,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": ignored or None,
    }


def _read_gemm(config: Config) -> QuantizationConfig:
    """AutoAWQ's keys, those of its first versions, and GPTQModel's."""
    given = (config[key] for key in ("version", "checkpoint_format", "format") if config.get(key))
    version = str(next(given, "gemm")).lower()
    _refuse_unless(version == "gemm", f"the AWQ layout {version!r}", "version gemm")
    bits = _get(config, "bits", int, "w_bit")
    _refuse_unless(bits == 4, f"layout gemm with {bits} bits", "4")
    symmetric = not _get(config, "zero_point", bool)
    spec = _spec(bits, _get(config, "group_size", int, "q_group_size"), symmetric)
    return QuantizationConfig(spec, "gemm", _names(config, "modules_to_not_convert"))


def _write_pack_quantized(spec: QuantSpec, ignored: list[str]) -> Config:
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
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "ignore": ignored,
        "config_groups": {"group_0": group},
        "kv_cache_scheme": None,
    }


def _read_pack_quantized(config: Config) -> QuantizationConfig:
    """Return the format of a checkpoint with one group of integer weights in all linears."""
    layout = _get(config, "format", str)
    _refuse_unless(layout == "pack-quantized", f"the format {layout!r}", "pack-quantized")
    groups = list(_get(config, "config_groups", dict).values())
    _refuse_unless(len(groups) == 1 and isinstance(groups[0], dict), f"{len(groups)} config_groups", "one")
    targets = _names(groups[0], "targets")
    _refuse_unless(targets == ("Linear",), f"the targets {list(targets)}", "Linear")
    _refuse_unless(not groups[0].get("input_activations"), "quantization of activations", "weights alone")
    weights = _get(groups[0], "weights", dict)
    kind, strategy = weights.get("type", "int"), _get(weights, "strategy", str)
    _refuse_unless(kind == "int", f"the weight type {kind!r}", "int")
    _refuse_unless(strategy in ("group", "channel"), f"the strategy {strategy!r}", "group and channel")
    order = weights.get("actorder")
    _refuse_unless(
        order in (None, False, "weight", "static"), f"actorder {order!r}", "none, weight and static"
    )
    group_size = _get(weights, "group_size", int) if strategy == "group" else -1
    spec = _spec(_get(weights, "num_bits", int), group_size, _get(weights, "symmetric", bool))
    return QuantizationConfig(spec, layout, _names(config, "ignore"))


CONFIG_FORMATS: dict[str, ConfigFormat] = {
    "gemm": ConfigFormat("awq", _write_gemm, _read_gemm),
    "pack-quantized": ConfigFormat("compressed-tensors", _write_pack_quantized, _read_pack_quantized),
}


def write_quantization_config(spec: QuantSpec, layout: str, *, ignored: Iterable[str] = ()) -> Config:
    """Return the quantization_config of a layout, in the keys that its readers expect.

    Parameters
    ----------
    spec : QuantSpec
    layout : "gemm" or "pack-quantized"
    ignored : names of modules left in float, e.g. "lm_head"

    Raises
    ------
    RangeError
        If the layout is unknown.
    UnsupportedError
        If the layout cannot hold this spec.
    """
    require_one_of("write_quantization_config", "layout", layout, CONFIG_FORMATS)
    return CONFIG_FORMATS[layout].write(spec, list(ignored))


def read_quantization_config(quantization_config: Config) -> QuantizationConfig:
    """Return (spec, layout, ignored) from a quantization_config.

    Raises
    ------
    FormatError
        If a key is missing or has a value of the wrong kind.
    UnsupportedError
        If it is right but of a kind that awq_ref does not read: says which it reads.
    """
    method = _get(quantization_config, "quant_method", str)
    by_method = {row.quant_method: row for row in CONFIG_FORMATS.values()}
    _refuse_unless(method in by_method, f"quant_method {method!r}", " and ".join(by_method))
    return by_method[method].read(quantization_config)


def output_config(
    source: Mapping[str, Any],
    spec: QuantSpec,
    layout: str,
    *,
    ignored: Iterable[str] = (),
    record: Mapping[str, Any],
) -> Config:
    """Return the config.json of the quantized model.

    Parameters
    ----------
    source : the config.json of the float model; not written to
        All keys are kept, except an older quantization_config.
    spec, layout, ignored : as `write_quantization_config`
    record : what made it: version, recipe, calibration fingerprint
        Goes under the top-level key "awq_ref", with the spec added.

    Raises
    ------
    RangeError, UnsupportedError
        As `write_quantization_config`.
    """
    kept = {key: value for key, value in source.items() if key not in ("quantization_config", RECORD)}
    return kept | {
        "quantization_config": write_quantization_config(spec, layout, ignored=ignored),
        RECORD: {**record, "spec": asdict(spec), "layout": layout},
    }
