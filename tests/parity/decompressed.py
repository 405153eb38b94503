"""What the compressed-tensors library makes of integers, as a float checkpoint.

decompressed   a folder quantized here with 4 bits, symmetric, in groups of 16 -> a float folder
"""

import json
from pathlib import Path

from compressed_tensors.compressors import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import load_file, save_file


def decompressed(folder: Path, target: Path) -> Path:
    """Write a float32 folder of what the compressed-tensors library makes of the integers; return it."""
    args = {"num_bits": 4, "symmetric": True, "strategy": "group", "group_size": 16}
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**args))
    stored = load_file(folder / "model.safetensors")
    found = {name: tensor for name, tensor in stored.items() if ".weight_" not in name}
    for name in [name for name in stored if name.endswith(".weight_packed")]:
        module = name.removesuffix("weight_packed")
        parts = {end: stored[f"{module}{end}"] for end in ("weight_packed", "weight_scale", "weight_shape")}
        parts["weight_scale"] = parts["weight_scale"].float()  # or it would compute in float16
        found[f"{module}weight"] = PackedQuantizationCompressor.decompress(parts, scheme)["weight"]
    target.mkdir()
    save_file(found, target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["quantization_config"]
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return target
