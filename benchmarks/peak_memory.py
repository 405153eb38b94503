"""Peak memory of quantize_model on a synthetic checkpoint of 1.1 billion parameters (TinyLlama's shapes).

    python benchmarks/peak_memory.py --work build/peak_memory [--layers 22] [--samples 8] [--seq-len 256] [--recipe awq]

Writes the checkpoint (random bfloat16 weights, 2.2 GB, kept for the next run), quantizes it in a process of its own,
and compares that process's peak resident size with the promise

    3 x float32 size of the largest block  +  activations  +  embeddings  +  the bare interpreter

activations   hidden states of all calibration tokens, float32
embeddings    the token embedding as the checkpoint stores it (its rows may be mapped while they are gathered)
interpreter   peak size of a process that only imports awq_ref's pipeline
"""

import argparse
import json
import os
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
import json, resource, sys
import numpy as np
import awq_ref.pipeline
options = json.loads(sys.argv[1])
if options:
    ids = np.random.default_rng(0).integers(0, options["vocab"], options["windows"], dtype=np.int64)
    awq_ref.pipeline.quantize_model(
        options["source"], options["target"], recipe=options["recipe"], calibration=ids, shown=True
    )
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("build/peak_memory"))
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--recipe", default="awq")
    arguments = parser.parse_args()
    hidden, inner, vocab = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["vocab_size"]
    source = arguments.work / f"synthetic-{arguments.layers}"
    if not source.exists():
        arguments.work.mkdir(parents=True, exist_ok=True)
        write_checkpoint(source, arguments.layers)
    target = arguments.work / f"quantized-{os.getpid()}"
    options = {"source": str(source), "target": str(target), "recipe": arguments.recipe}
    options |= {"windows": [arguments.samples, arguments.seq_len], "vocab": vocab}
    interpreter = run_child({})
    started = time.perf_counter()
    peak = run_child(options)
    seconds = time.perf_counter() - started
    key_value = hidden // CONFIG["num_attention_heads"] * CONFIG["num_key_value_heads"]
    block = 4 * (2 * hidden * hidden + 2 * key_value * hidden + 3 * hidden * inner + 2 * hidden)
    activations = 4 * arguments.samples * arguments.seq_len * hidden
    embeddings = 2 * vocab * hidden
    promise = 3 * block + activations + embeddings + interpreter
    n_parameters = arguments.layers * block // 4 + 2 * vocab * hidden + hidden
    rows = {
        "parameters": f"{n_parameters:,}",
        "largest block, float32": f"{block / 2**20:.0f} MiB",
        "activations": f"{activations / 2**20:.0f} MiB",
        "embeddings": f"{embeddings / 2**20:.0f} MiB",
        "interpreter": f"{interpreter / 2**20:.0f} MiB",
        "promise": f"{promise / 2**20:.0f} MiB",
        "peak measured": f"{peak / 2**20:.0f} MiB ({peak / promise:.0%} of the promise)",
        "time": f"{seconds:.0f} s",
        "swap, page cache": "not counted: ru_maxrss is the process's resident set",
    }
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")
    for file in target.iterdir():
        file.unlink()
    target.rmdir()
    sys.exit(peak > promise)


if __name__ == "__main__":
    main()
