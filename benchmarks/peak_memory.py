"""Peak memory of quantize_model on synthetic checkpoints with the shapes of real models, block by block.

    python benchmarks/peak_memory.py [--shape tinyllama-1.1b|qwen2.5-0.5b|llama-7b] [--layers N] [--recipe awq]
                                     [--samples 128] [--seq-len 512] [--memory 4GB] [--work build/peak_memory]
    python benchmarks/peak_memory.py --quick

Writes the checkpoint (random bfloat16 weights, kept for the next run), quantizes it in a process of its own, and prints

- what `plan_memory` predicted, by parts, beside the process's peak resident size (Linux: VmHWM), and the limit that
  belongs to the shape: exceeding it is exit code 1;
- for every block the peak while it was done: the kernel's mark is set back after each, so growth would show.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
QWEN = LLAMA | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "tie_word_embeddings": True}
# hidden, intermediate, heads, kv heads, layers; and the promise in bytes for 128 x 512 tokens
SHAPES = {
    "tinyllama-1.1b": (LLAMA, (2048, 5632, 32, 4, 22), 3 * 10**9),
    "qwen2.5-0.5b": (QWEN | {"vocab_size": 151936}, (896, 4864, 14, 2, 24), 1_500_000_000),
    "llama-7b": (LLAMA, (4096, 11008, 32, 32, 32), 6 * 10**9),
}
KEYS = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers")
CHILD = """
import json, sys
from pathlib import Path
import numpy as np
import awq_ref.pipeline
from awq_ref.pipeline.footprint import peak_bytes
from awq_ref.pipeline.resume import FinishedBlocks

options, peaks, add = json.loads(sys.argv[1]), [], FinishedBlocks.add

def add_and_measure(self, report):
    add(self, report)
    peaks.append(peak_bytes())
    Path("/proc/self/clear_refs").write_text("5")  # the mark goes back to what the process holds now
    print(f"block {report.layer}: {peaks[-1] / 2**20:.0f} MiB", file=sys.stderr, flush=True)

FinishedBlocks.add = add_and_measure
ids = np.random.default_rng(0).integers(0, options.pop("vocab"), options.pop("windows"), dtype=np.int64)
report = awq_ref.pipeline.quantize_model(calibration=ids, shown=False, **options)
print(json.dumps({"peaks": [*peaks, peak_bytes()], "predicted": report.predicted_bytes, "seconds": report.seconds}))
"""


def model_config(shape: str, layers: int | None) -> dict[str, object]:
    """Return the config.json of a shape, with so many layers."""
    config, sizes, _ = SHAPES[shape]
    config = config | dict(zip(KEYS, sizes, strict=True))
    return config | ({} if layers is None else {"num_hidden_layers": layers})


def write_checkpoint(folder: Path, config: dict[str, object]) -> int:
    """Write random weights tensor by tensor; return the number of parameters."""
    from awq_ref.checkpoint import ShardWriter, new_folder
    from awq_ref.model import ModelConfig, model_tensor_shapes

    shapes = model_tensor_shapes(ModelConfig.from_json(config))
    rng = np.random.default_rng(0)
    with new_folder(folder) as partial:
        with ShardWriter(partial) as writer:
            for name, shape in shapes.items():
                values = rng.standard_normal(shape, dtype=np.float32) * 0.02
                if len(shape) == 1:
                    values = 1.0 + values
                words = (values.view(np.uint32) >> 16).astype(
                    "<u2"
                )  # truncated to bfloat16: good enough for noise
                writer.add_raw(name, "BF16", shape, words.tobytes())
        (partial / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return sum(int(np.prod(shape)) for shape in shapes.values())


def run_child(options: dict[str, object]) -> dict[str, object]:
    """Run the child process and return what it prints."""
    command = [sys.executable, "-c", CHILD, json.dumps(options)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("build/peak_memory"))
    parser.add_argument("--shape", default="tinyllama-1.1b", choices=SHAPES)
    parser.add_argument("--layers", type=int, help="of the shape's; default: all")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--recipe", default="awq")
    parser.add_argument("--memory", help="a budget, such as 4GB")
    parser.add_argument("--activations", default="float32", choices=("float32", "float16"))
    parser.add_argument("--quick", action="store_true", help="two layers: shows the way, proves little")
    given = parser.parse_args()
    if given.quick:
        given.layers, given.samples = 2, 2
    return given


def print_blocks(peaks: list[int]) -> None:
    """Print the peak while each block was done; the first has the embedding in it."""
    print("\n| block | peak, MiB | more than the one before, MiB |\n| :--- | ---: | ---: |")
    before = None
    for layer, peak in enumerate(peaks):
        grown = "-" if before is None else f"{(peak - before) / 2**20:+.1f}"
        print(f"| {layer} | {peak / 2**20:.1f} | {grown} |")
        before = peak


def main() -> None:
    given = arguments()
    config, limit = model_config(given.shape, given.layers), SHAPES[given.shape][2]
    name = f"{given.shape}-{config['num_hidden_layers']}"
    source, target = given.work / f"synthetic-{name}", given.work / f"quantized-{name}-{os.getpid()}"
    if not source.exists():
        given.work.mkdir(parents=True, exist_ok=True)
        print(f"{write_checkpoint(source, config):,} random parameters written to {source}")
    options = {"source": str(source), "destination": str(target), "recipe": given.recipe}
    options |= {"memory": given.memory, "activations": given.activations}
    started = time.perf_counter()
    found = run_child(options | {"windows": [given.samples, given.seq_len], "vocab": config["vocab_size"]})
    seconds = time.perf_counter() - started
    shutil.rmtree(target)
    *blocks, last = found["peaks"]
    peak, predicted = max(*blocks, last), found["predicted"]
    budget = f", budget {given.memory}" if given.memory else ""
    print(f"{name}, recipe {given.recipe}, {given.samples} x {given.seq_len} tokens{budget}")
    print("\n| | MiB |\n| :--- | ---: |")
    for what, n_bytes in {"predicted": predicted, "measured": peak, "limit": limit}.items():
        print(f"| {what} | {n_bytes / 2**20:.0f} |")
    print_blocks(blocks)
    print(f"\n{peak / predicted:.0%} of the prediction, {peak / limit:.0%} of the limit, {seconds:.0f} s")
    sys.exit(peak > limit)


if __name__ == "__main__":
    main()
