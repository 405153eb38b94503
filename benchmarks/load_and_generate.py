"""Loading and running a checkpoint with the shapes of Qwen2.5-0.5B, beside transformers in float32.

    python benchmarks/load_and_generate.py --work build/qwen [--transformers PYTHON] [--repeats 5] [--threads 2]
    python benchmarks/load_and_generate.py --quick

Writes the checkpoint (494 M random bfloat16 weights, 1 GB) and its INT4 form (round-to-nearest: the time does not know
how the integers were chosen), both kept for the next run. Every measurement is a process of its own: it loads a
folder, reads a prompt of 128 tokens and generates 32 more, greedily. Repeats take turns. Printed: seconds to load, with
the imports; tokens of the prompt per second; new tokens per second, the first one not counted; the process's peak
memory: medians, quartiles of the new tokens, and the median of the repeats' ratios to transformers' new tokens. PYTHON
is an interpreter that has torch and transformers, by default the one that `make parity` installs; without it only ours
are measured.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}
QUICK = {"num_hidden_layers": 2, "vocab_size": 4096}
PROMPT, NEW = 128, 32

OURS = """
import json, sys, time
started = time.perf_counter()
import numpy as np
import awq_ref
folder, residency, vocabulary, prompt, new = json.loads(sys.argv[1])
model = awq_ref.load_model(folder, residency=residency)
loaded = time.perf_counter()
ids = np.random.default_rng(0).integers(0, vocabulary, prompt)
times = [time.perf_counter()]
for _ in model.stream(ids, max_new_tokens=new, eos_token_ids=()):
    times.append(time.perf_counter())
"""
THEIRS = """
import json, sys, time
started = time.perf_counter()
import numpy as np, torch, transformers
folder, threads, vocabulary, prompt, new = json.loads(sys.argv[1])
torch.set_num_threads(threads)
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
loaded = time.perf_counter()
step = torch.from_numpy(np.random.default_rng(0).integers(0, vocabulary, (1, prompt)))
times, cache = [time.perf_counter()], None
with torch.inference_mode():
    for _ in range(new):
        out = model(step, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache, step = out.past_key_values, out.logits[:, -1:].argmax(-1)
        times.append(time.perf_counter())
"""
RESULT = """
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "load": loaded - started, "prompt": prompt / (times[1] - times[0]), "new": (new - 1) / (times[-1] - times[1]),
    "memory": int(status["VmHWM"].split()[0]) * 1024,
}))
"""


def write_float(folder: Path, config: dict[str, object]) -> None:
    """Write random weights tensor by tensor, truncated to bfloat16: good enough for noise."""
    from awq_ref.checkpoint import ShardWriter, new_folder
    from awq_ref.model import ModelConfig, model_tensor_shapes

    rng = np.random.default_rng(0)
    with new_folder(folder) as partial:
        with ShardWriter(partial) as writer:
            for name, shape in model_tensor_shapes(ModelConfig.from_json(config)).items():
                values = rng.standard_normal(shape, dtype=np.float32) * 0.02 + (len(shape) == 1)
                words = (values.view(np.uint32) >> 16).astype("<u2")
                writer.add_raw(name, "BF16", shape, words.tobytes())
        (partial / "config.json").write_text(json.dumps(config), encoding="utf-8")


def prepare(work: Path, config: dict[str, object]) -> dict[str, Path]:
    """Return the two folders, written if they are not there."""
    from awq_ref import quantize_model

    folders = {"float": work / "float", "int4": work / "int4"}
    if not folders["float"].exists():
        write_float(folders["float"], config)
    if not folders["int4"].exists():
        quantize_model(folders["float"], folders["int4"], recipe="rtn", bits=4, group_size=128)
    return folders


def run(python: str, script: str, arguments: list[object], threads: int) -> dict[str, float]:
    """Run one measurement in a process of its own."""
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run(
        [python, "-c", script + RESULT, json.dumps(arguments)],
        env=os.environ | limits, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return dict(json.loads(done.stdout.splitlines()[-1]))


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Return the medians as a Markdown table."""
    lines = [
        "| | load, s | prompt, tokens/s | new, tokens/s | quartiles | peak memory, MiB | new, of transformers' |",
        "| :--- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    rival = found.get("transformers, float32")
    for name, runs in found.items():
        load, prompt, new, memory = (
            statistics.median(r[key] for r in runs) for key in ("load", "prompt", "new", "memory")
        )
        rates = [r["new"] for r in runs]
        low, _, high = statistics.quantiles(rates, n=4) if len(runs) > 1 else rates * 3
        ratio = "-"
        if rival:
            ratio = f"{statistics.median(r['new'] / t['new'] for r, t in zip(runs, rival, strict=True)):.2f}"
        cells = [
            f"{load:.1f}", f"{prompt:.0f}", f"{new:.1f}", f"{low:.1f} to {high:.1f}", f"{memory / 2**20:.0f}", ratio,
        ]  # fmt: skip
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("build/load_and_generate"))
    parser.add_argument("--transformers", default=".venv-parity/bin/python", metavar="PYTHON")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--quick", action="store_true", help="two layers, a small vocabulary, one repeat: does it run?"
    )
    arguments = parser.parse_args()
    config = CONFIG | (QUICK if arguments.quick else {})
    repeats = 1 if arguments.quick else arguments.repeats
    work = arguments.work / ("quick" if arguments.quick else "full")
    folders = {name: str(path) for name, path in prepare(work, config).items()}
    size = [config["vocab_size"], PROMPT, NEW]
    jobs: dict[str, tuple[str, str, list[object]]] = {
        f"awq_ref, INT4 {residency}": (sys.executable, OURS, [folders["int4"], residency, *size])
        for residency in ("packed", "codes", "dense")
    }
    jobs["awq_ref, float32"] = (sys.executable, OURS, [folders["float"], "packed", *size])
    if Path(arguments.transformers).exists():
        jobs["transformers, float32"] = (
            arguments.transformers, THEIRS, [folders["float"], arguments.threads, *size],
        )  # fmt: skip
    found: dict[str, list[dict[str, float]]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, (python, script, options) in jobs.items():
            found[name].append(run(python, script, options, arguments.threads))
    print(f"\n{repeats} repeats, {arguments.threads} threads, prompt of {PROMPT} tokens, {NEW} new ones\n")
    print(table(found))


if __name__ == "__main__":
    main()
