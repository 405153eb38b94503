"""The keys of AutoAWQ: quant_method "awq", one version per layout.

    write_awq   spec and ignored modules -> the quantization_config of a version
    read_awq    the reverse; also of llm-awq, of GPTQModel, and of AutoAWQ's first versions

Sources: AutoAWQ, awq/models/_config.py; transformers, AwqConfig; llm-awq, examples/convert_to_hf.py.
"""

from awq_ref.checkpoint.format_keys import (
    Config,
    QuantizationConfig,
    get,
    get_names,
    refuse_unless,
    require_agreement,
    spec_of,
)
from awq_ref.errors import UnsupportedError
from awq_ref.spec import QuantSpec

VERSIONS = ("gemm", "gemv", "gemv_fast", "llm-awq")
LLM_AWQ = "llm-awq"  # a layout here, a backend there: its files say version gemv, or gemv_fast


def write_awq(spec: QuantSpec, ignored: list[str], *, version: str) -> Config:
    """Return AutoAWQ's keys. zero_point is always true: all versions store zero points, also where all are 8."""
    if spec.bits != 4 or spec.scale_dtype != "float16":
        raise UnsupportedError(
            f"write_quantization_config: layout {version} holds 4 bits with float16 scales; got {spec.bits} bits, "
            f"{spec.scale_dtype}. Use pack-quantized."
        )
    backend = {"version": "gemv_fast", "backend": LLM_AWQ} if version == LLM_AWQ else {"version": version}
    return {
        "quant_method": "awq",
        "bits": spec.bits,
        "group_size": spec.group_size,
        "zero_point": True,
        **backend,
        "modules_to_not_convert": ignored or None,
    }


def _layout(config: Config) -> str:
    """Return the layout that the keys name: by version, by GPTQModel's names for it, or by the backend."""
    if str(config.get("backend")).lower() == LLM_AWQ:
        return LLM_AWQ
    keys = ("version", "checkpoint_format", "format")
    given = {key: str(config[key]).lower() for key in keys if config.get(key)}
    require_agreement(given)
    return next(iter(given.values()), "gemm")


def read_awq(config: Config) -> QuantizationConfig:
    """Read AutoAWQ's keys, those of its first versions, GPTQModel's and llm-awq's."""
    layout = _layout(config)
    refuse_unless(layout in VERSIONS, f"the AWQ layout {layout!r}", f"version {', '.join(VERSIONS)}")
    bits = get(config, "bits", int, "w_bit")
    refuse_unless(bits == 4, f"layout {layout} with {bits} bits", "4")
    symmetric = not get(config, "zero_point", bool)
    spec = spec_of(bits, get(config, "group_size", int, "q_group_size"), symmetric)
    return QuantizationConfig(spec, layout, get_names(config, "modules_to_not_convert"))
