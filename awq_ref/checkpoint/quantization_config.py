"""What config.json says about stored weights: one row per layout.

CONFIG_FORMATS    layout -> the quant_method it goes by, a writer and a reader of its keys
READERS           quant_method -> reader; float8 weights, which no layout of integers holds, among them
write_quantization_config      spec, layout, ignored modules -> the quantization_config
read_quantization_config       the quantization_config -> QuantizationConfig or Float8Config
output_config     the source's config.json -> the one of the quantized model
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from awq_ref.checkpoint.awq_config import VERSIONS, read_awq, write_awq
from awq_ref.checkpoint.compressed_config import read_compressed, write_pack_quantized
from awq_ref.checkpoint.declared import MLX
from awq_ref.checkpoint.format_keys import Config, Quantization, get, refuse_unless
from awq_ref.checkpoint.fp8_config import read_fp8
from awq_ref.checkpoint.gptq_config import FORMATS, read_gptq, write_gptq
from awq_ref.checkpoint.mlx_config import METHOD, read_mlx, write_mlx
from awq_ref.checks import require_one_of
from awq_ref.spec import QuantSpec

RECORD = "awq_ref"  # our own key of config.json; top level, so that no reader of quantization_config meets it


@dataclass(frozen=True)
class ConfigFormat:
    """One layout's way to say it: the quant_method it goes by, a writer and a reader."""

    quant_method: str
    write: Callable[[QuantSpec, list[str]], Config]
    read: Callable[[Config], Quantization]


CONFIG_FORMATS: dict[str, ConfigFormat] = {
    **{name: ConfigFormat("awq", partial(write_awq, version=name), read_awq) for name in VERSIONS},
    **{
        name: ConfigFormat("gptq", partial(write_gptq, checkpoint_format=name), read_gptq) for name in FORMATS
    },
    "pack-quantized": ConfigFormat("compressed-tensors", write_pack_quantized, read_compressed),
    METHOD: ConfigFormat(METHOD, write_mlx, read_mlx),
}
READERS = {row.quant_method: row.read for row in CONFIG_FORMATS.values()} | {"fp8": read_fp8}


def write_quantization_config(spec: QuantSpec, layout: str, *, ignored: Iterable[str] = ()) -> Config:
    """Return the quantization_config of a layout, in the keys that its readers expect.

    Parameters
    ----------
    spec : QuantSpec
    layout : a key of CONFIG_FORMATS
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


def read_quantization_config(quantization_config: Config) -> Quantization:
    """Return what a quantization_config says: how integers are stored, or float8 weights.

    Raises
    ------
    FormatError
        If a key is missing or has a value of the wrong kind.
    UnsupportedError
        If it is right but of a kind that awq_ref does not read: says which it reads.
    """
    method = get(quantization_config, "quant_method", str)
    refuse_unless(method in READERS, f"quant_method {method!r}", ", ".join(READERS))
    return READERS[method](quantization_config)


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
    kept = {key: value for key, value in source.items() if key not in ("quantization_config", MLX, RECORD)}
    written = write_quantization_config(spec, layout, ignored=ignored)
    twice = {MLX: written} if layout == METHOD else {}
    return (
        kept
        | twice
        | {
            "quantization_config": written,
            RECORD: {**record, "spec": asdict(spec), "layout": layout},
        }
    )
