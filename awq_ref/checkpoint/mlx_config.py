"""The keys of MLX: "quantization" in config.json, with the modules that differ in it.

    METHOD      the quant_method that such a configuration is given on reading; the files themselves have none
    write_mlx   spec and ignored modules -> the configuration
    read_mlx    the reverse

Source: mlx-lm, utils.py (quantize_model, load_model).
"""

from typing import Any

from awq_ref.checkpoint.format_keys import Config, QuantizationConfig, get, refuse_unless, spec_of
from awq_ref.errors import FormatError
from awq_ref.spec import QuantSpec

METHOD = "mlx"
KEYS = (
    "group_size",
    "bits",
    "mode",
    "quant_method",
    "linear_class",
    "quantize_activations",
    "quantize_input",
)


def write_mlx(spec: QuantSpec, ignored: list[str]) -> Config:
    """Return MLX's keys; a module that is left in float is named with the value false."""
    return {"group_size": spec.group_size, "bits": spec.bits, "mode": "affine"} | dict.fromkeys(
        ignored, False
    )


def _spec(entry: Config, whole: Config) -> QuantSpec:
    mode = entry.get("mode") or "affine"
    refuse_unless(mode == "affine", f"the MLX mode {mode!r}", "affine")
    entry = {key: value for key, value in whole.items() if key in KEYS} | entry
    return spec_of(get(entry, "bits", int), get(entry, "group_size", int), False)


def _override(module: str, entry: Any, whole: Config) -> QuantSpec | None:
    """Return the spec of a module: its own, that of all (true), or None (false: left in float)."""
    if isinstance(entry, bool):
        return _spec({}, whole) if entry else None
    if not isinstance(entry, dict):
        raise FormatError(
            f"read_quantization_config: {module} must be true, false, or an object with bits and group_size; got "
            f"{entry!r}."
        )
    return _spec(entry, whole)


def read_mlx(config: Config) -> QuantizationConfig:
    """Read the bits and the group size of all modules, and of those that differ."""
    spec = _spec(config, config)
    others = {module: entry for module, entry in config.items() if module not in KEYS}
    overrides = {module: _override(module, entry, config) for module, entry in others.items()}
    return QuantizationConfig(spec, METHOD, (), overrides)
