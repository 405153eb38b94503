"""The keys of float8 weights as DeepSeek and Qwen publish them: quant_method "fp8".

    read_fp8   -> Float8Config

Activations, which such a checkpoint's own kernels round to float8 as well, stay float32 here.
Source: transformers, FineGrainedFP8Config.
"""

from awq_ref.checkpoint.format_keys import Config, Float8Config, get_names, refuse_unless
from awq_ref.errors import FormatError


def read_fp8(config: Config) -> Float8Config:
    """Read the size of the blocks that share a scale; without one, a weight has a single scale."""
    number = str(config.get("fmt") or "e4m3").lower()
    refuse_unless(number == "e4m3", f"the float8 format {number!r}", "e4m3")
    scheme = config.get("activation_scheme") or "dynamic"
    refuse_unless(scheme == "dynamic", f"the activation_scheme {scheme!r}", "dynamic")
    ignored = get_names(config, "modules_to_not_convert") + get_names(config, "ignored_layers")
    block = config.get("weight_block_size")
    if block is None:
        return Float8Config((0, 0), "weight_scale", ignored)
    if not isinstance(block, list) or len(block) != 2 or not all(type(n) is int and n > 0 for n in block):
        raise FormatError(
            f"read_quantization_config: weight_block_size must be two positive numbers; got {block!r}."
        )
    return Float8Config((block[0], block[1]), "weight_scale_inv", ignored)
