"""Look into a checkpoint that someone else quantized: what it holds, and one linear of it, as integers.

python examples/inspect_checkpoint.py [FOLDER]      default: the embedded model in GPTQ's layout stands in for it
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

import awq_ref
from awq_ref.checkpoint import Checkpoint, demo_model_path, read_quantization_config
from awq_ref.pack import unpack_linear
from awq_ref.pipeline import describe_model


def main(folder: Path) -> None:
    """Describe the folder, then unpack its first quantized linear."""
    print(describe_model(folder))
    checkpoint = Checkpoint.open(folder)
    config = read_quantization_config(checkpoint.quantization_config)
    first = min(name for name in checkpoint.names if name.endswith(".qweight")).removesuffix(".qweight")
    ends = ("qweight", "qzeros", "scales", "g_idx")
    tensors = {
        end: checkpoint.read_stored(f"{first}.{end}") for end in ends if f"{first}.{end}" in checkpoint
    }
    linear = unpack_linear(tensors, layout=config.layout, spec=config.spec)
    print(f"\n{first}, layout {config.layout}: codes {linear.int_weight.shape}, scales {linear.scales.shape}")
    print("codes of output 0:      ", linear.int_weight[0, :12])
    print("scale, zero point of it:", linear.scales[0, 0], linear.zero_point[0, 0])
    counts = np.bincount(linear.int_weight.ravel(), minlength=linear.spec.qmax + 1)
    print("share of each code:     ", np.round(counts / counts.sum(), 3))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            someone_elses = Path(scratch) / "gptq"
            awq_ref.quantize_model(demo_model_path(), someone_elses, recipe="rtn", layout="gptq")
            main(someone_elses)
