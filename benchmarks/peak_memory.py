"""Peak memory of quantize_model on a synthetic checkpoint of 1.1 billion parameters (TinyLlama's shapes).

    python benchmarks/peak_memory.py --work build/peak_memory [--layers 22] [--samples 8] [--seq-len 256] [--recipe awq]
    python benchmarks/peak_memory.py --quick

Writes the checkpoint (random bfloat16 weights, 2.2 GB, kept for the next run), quantizes it in a process of its own,
and compares that process's peak resident size with the promise

    3 x float32 size of the largest block  +  activations  +  embeddings  +  the bare interpreter

activations   hidden states of all calibration tokens, float32
embeddings    the token embedding as the checkpoint stores it (its rows may be mapped while they are gathered)
interpreter   peak size (Linux: VmHWM) of a process that only imports awq_ref's pipeline
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

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
CHILD = """
import json, sys
import numpy as np
import awq_ref.pipeline
options = json.loads(sys.argv[1])
if options:
    ids = np.random.default_rng(0).integers(0, options["vocab"], options["windows"], dtype=np.int64)
    awq_ref.pipeline.quantize_model(
        options["source"], options["target"], recipe=options["recipe"], calibration=ids, shown=True
    )
# VmHWM, not ru_maxrss: the latter begins with the size of the process that started this one.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) * 1024)
"""


def write_checkpoint(folder: Path, layers: int) -> int:
    """Write random weights tensor by tensor; return the number of parameters."""
    from awq_ref.checkpoint import ShardWriter, new_folder
    from awq_ref.model import ModelConfig, model_tensor_shapes

    config = CONFIG | {"num_hidden_layers": layers}
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


def run_child(options: dict[str, object]) -> int:
    """Run the child process and return its peak resident size in bytes."""
    command = [sys.executable, "-c", CHILD, json.dumps(options)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
    return int(done.stdout.split()[-1])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("build/peak_memory"))
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--recipe", default="awq")
    parser.add_argument("--quick", action="store_true", help="two layers: shows the way, proves little")
    given = parser.parse_args()
    if given.quick:
        given.layers, given.samples = 2, 2
    return given


def promised_parts(samples: int, seq_len: int) -> dict[str, int]:
    """Return the bytes of the promise's parts that follow from the shapes."""
    hidden, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    key_value = hidden // CONFIG["num_attention_heads"] * CONFIG["num_key_value_heads"]
    block = 4 * (2 * hidden * hidden + 2 * key_value * hidden + 3 * hidden * inner + 2 * hidden)
    return {
        "3 x largest block, float32": 3 * block,
        "activations": 4 * samples * seq_len * hidden,
        "embeddings": 2 * CONFIG["vocab_size"] * hidden,
    }


def main() -> None:
    given = arguments()
    source, target = given.work / f"synthetic-{given.layers}", given.work / f"quantized-{os.getpid()}"
    if not source.exists():
        given.work.mkdir(parents=True, exist_ok=True)
        print(f"{write_checkpoint(source, given.layers):,} random parameters written to {source}")
    options = {"source": str(source), "target": str(target), "recipe": given.recipe}
    options |= {"windows": [given.samples, given.seq_len], "vocab": CONFIG["vocab_size"]}
    parts = promised_parts(given.samples, given.seq_len) | {"interpreter": run_child({})}
    promise = sum(parts.values())
    started = time.perf_counter()
    peak = run_child(options)
    seconds = time.perf_counter() - started
    shutil.rmtree(target)
    print("| part | MiB |\n| :--- | ---: |")
    for name, n_bytes in (parts | {"promise": promise, "peak measured": peak}).items():
        print(f"| {name} | {n_bytes / 2**20:.0f} |")
    print(f"\n{peak / promise:.0%} of the promise, {seconds:.0f} s for {given.layers} blocks")
    sys.exit(peak > promise)


if __name__ == "__main__":
    main()
