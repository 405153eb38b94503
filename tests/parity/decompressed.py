"""A folder quantized here as a float folder, by the compressed-tensors library: of models transformers cannot load so.

write_decompressed  a pack-quantized folder -> the same model in float, weights by their decompressor

transformers takes every `nn.Linear` for a layer to be decompressed; GPT-2's are of the class Conv1D, Falcon's of one
that reads its weight before it is there. Of experts, which it holds stacked, it makes float16 weights.
"""

import json
import shutil
from pathlib import Path

import torch
from compressed_tensors.compressors import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import load_file, save_file

ENDS = ("weight_packed", "weight_scale", "weight_shape")


def write_decompressed(folder: Path, target: Path, *, group_size: int, transposed: bool) -> Path:
    """Write a symmetric 4-bit model in float32; transposed: its linears are stored as (in_features, out_features)."""
    weights = QuantizationArgs(num_bits=4, symmetric=True, strategy="group", group_size=group_size)
    scheme = QuantizationScheme(targets=["Linear"], weights=weights)
    tensors = load_file(folder / "model.safetensors")
    for name in [name.removesuffix(".weight_packed") for name in tensors if name.endswith(".weight_packed")]:
        packed = {end: tensors.pop(f"{name}.{end}") for end in ENDS}
        packed["weight_scale"] = packed["weight_scale"].float()
        weight = PackedQuantizationCompressor.decompress(packed, scheme)["weight"]
        tensors[f"{name}.weight"] = (weight.T if transposed else weight).contiguous()
    shutil.copytree(folder, target)
    save_file(
        {name: tensor.to(torch.float32) for name, tensor in tensors.items()}, target / "model.safetensors"
    )
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["quantization_config"]
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return target
