"""The keys of AutoGPTQ and GPTQModel: quant_method "gptq".

    write_gptq   spec and ignored modules -> the quantization_config of a checkpoint_format
    read_gptq    the reverse; also of AutoGPTQ's quantize_config.json

Sources: AutoGPTQ, quantization/config.py; GPTQModel, quantization/config.py; transformers, GPTQConfig.
"""

from awq_ref.checkpoint.format_keys import (
    Config,
    QuantizationConfig,
    get,
    refuse_unless,
    require_agreement,
    spec_of,
)
from awq_ref.errors import FormatError
from awq_ref.spec import QuantSpec

FORMATS = ("gptq", "gptq_v2")
HEAD = "lm_head"


def write_gptq(spec: QuantSpec, ignored: list[str], *, checkpoint_format: str) -> Config:
    """Return GPTQModel's keys. What is left in float needs no key: its tensors say so."""
    return {
        "quant_method": "gptq",
        "bits": spec.bits,
        "group_size": spec.group_size,
        "desc_act": False,
        "sym": spec.symmetric,
        "lm_head": False,
        "checkpoint_format": checkpoint_format,
        "pack_dtype": "int32",
    }


def read_gptq(config: Config) -> QuantizationConfig:
    """Read the keys of both formats; desc_act needs none, for files say themselves to which group an input belongs."""
    given = {key: str(config[key]).lower() for key in ("checkpoint_format", "format") if config.get(key)}
    require_agreement(given)
    layout = next(iter(given.values()), "gptq")
    refuse_unless(layout in FORMATS, f"the GPTQ format {layout!r}", " and ".join(FORMATS))
    refuse_unless(not config.get("dynamic"), "`dynamic`, bits that differ by module,", "one width for all")
    refuse_unless(not config.get("is_marlin_format"), "the marlin format", " and ".join(FORMATS))
    words = config.get("pack_dtype") or "int32"
    refuse_unless(words == "int32", f"pack_dtype {words!r}", "int32")
    symmetric = get(config, "sym", bool) if "sym" in config else False
    head = get(config, HEAD, bool) if config.get(HEAD) is not None else False
    if "desc_act" in config and not isinstance(config["desc_act"], bool):
        raise FormatError(
            f"read_quantization_config: desc_act must be true or false; got {config['desc_act']!r}."
        )
    spec = spec_of(get(config, "bits", int), get(config, "group_size", int), symmetric)
    return QuantizationConfig(spec, layout, () if head else (HEAD,))
