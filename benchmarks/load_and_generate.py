"""Loading and running a checkpoint with the shapes of Qwen2.5-0.5B, and one linear, beside rivals in the same run.

    python benchmarks/load_and_generate.py [--transformers PYTHON] [--llama-cpp PYTHON] [--onnxruntime PYTHON]
    python benchmarks/load_and_generate.py --quick

Writes the checkpoint (494 M random bfloat16 weights, 1 GB) and its INT4 forms (round-to-nearest: the time does not know
how the integers were chosen; a GGUF file of Q4_0 if llama.cpp is there), kept for the next run. Every measurement is a
process of its own (`benchmarks/rivals`): it loads, reads prompts of 128 and 512 tokens and generates 32 more after
each, greedily. Then one linear, packed, float32 and in MatMulNBits. Repeats take turns, and what is printed are medians
of them, quartiles of the new tokens, and medians of the repeats' ratios. PYTHON is an interpreter that has the rival:
torch and transformers, xllamacpp, onnx and onnxruntime; by default the one that `make parity` and `make witnesses`
fill. A rival that is not there is left out.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
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
PROMPTS, NEW = (128, 512), 32
LINEARS, TOKENS, GROUP_SIZE = ((4096, 4096), (11008, 4096)), (1, 8, 128), 128
RIVALS = Path(__file__).parent / "rivals"
NEEDS = {
    "torch_model.py": ("torch", "transformers"),
    "llama_cpp.py": ("xllamacpp",),
    "onnx_linear.py": ("onnx", "onnxruntime"),
    "llm_compressor.py": ("torch", "llmcompressor"),
    "autoawq.py": ("torch", "awq"),
}
TORCH, OURS, FLOAT = "transformers, float32", "awq_ref, float32", "float32 NumPy"
NEW_RATE = ("rates", "128", "new")


def write_float(folder: Path, config: dict[str, object]) -> None:
    """Write random weights tensor by tensor, truncated to bfloat16, none so small that float16 would not hold it."""
    from awq_ref.checkpoint import ShardWriter, new_folder
    from awq_ref.model import ModelConfig, model_tensor_shapes

    rng = np.random.default_rng(0)
    with new_folder(folder) as partial:
        with ShardWriter(partial) as writer:
            for name, shape in model_tensor_shapes(ModelConfig.from_json(config)).items():
                values = rng.standard_normal(shape, dtype=np.float32) * 0.02 + (len(shape) == 1)
                values[np.abs(values) < 2.0**-14] = 0.0
                words = (values.view(np.uint32) >> 16).astype("<u2")
                writer.add_raw(name, "BF16", shape, words.tobytes())
        (partial / "config.json").write_text(json.dumps(config), encoding="utf-8")


def write_words(folder: Path, vocabulary: int) -> None:
    """Write a tokenizer whose tokens are words that no text holds: a GGUF file must have one."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    inner = Tokenizer(models.BPE({f"t{i}": i for i in range(vocabulary)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.save(str(folder / "tokenizer.json"))


def prepare(work: Path, config: dict[str, object], gguf: bool) -> dict[str, str]:
    """Return the folders and the file, written if they are not there."""
    from awq_ref import quantize_model
    from awq_ref.pipeline import convert_to_gguf

    paths = {"float": work / "float", "int4": work / "int4", "gguf": work / "q4_0.gguf"}
    if not paths["float"].exists():
        write_float(paths["float"], config)
    if not paths["int4"].exists():
        quantize_model(paths["float"], paths["int4"], recipe="rtn", bits=4, group_size=128)
    if gguf and not paths["gguf"].exists():
        symmetric = work / "symmetric"
        if not symmetric.exists():
            quantize_model(paths["float"], symmetric, recipe="rtn", bits=4, group_size=32, symmetric=True)
            write_words(symmetric, int(str(config["vocab_size"])))
        convert_to_gguf(symmetric, paths["gguf"])
    return {name: str(path) for name, path in paths.items()}


def run(python: str, script: str, options: dict[str, object], threads: int) -> dict[str, object]:
    """Run one measurement in a process of its own."""
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [python, str(RIVALS / script), json.dumps(options)]
    done = subprocess.run(command, env=os.environ | limits, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{script} {options}:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


@cache
def has(python: str, script: str) -> bool:
    """Tell whether an interpreter is there and has what a script imports; say so if not."""
    if script not in NEEDS:
        return True
    test = f"import sys, importlib.util as u; sys.exit(not all(map(u.find_spec, {NEEDS[script]})))"
    there = Path(python).exists() and subprocess.run([python, "-c", test], check=False).returncode == 0
    if not there:
        print(f"{' and '.join(NEEDS[script])}: not in {python}, left out", file=sys.stderr)
    return there


def take_turns(
    jobs: dict[str, tuple[str, str, dict[str, object]]], repeats: int, threads: int
) -> dict[str, list]:
    """Return name -> what each repeat found."""
    found: dict[str, list] = {name: [] for name in jobs}
    for repeat in range(repeats):
        for name, (python, script, options) in jobs.items():
            print(f"repeat {repeat + 1} of {repeats}: {name}", file=sys.stderr, flush=True)
            found[name].append(run(python, script, options, threads))
    return found


def model_jobs(given: argparse.Namespace, config: dict[str, object]) -> dict[str, tuple]:
    """One row per rival: its interpreter, its script, its options. What is missing has none."""
    paths = prepare(given.work, config, has(given.llama_cpp, "llama_cpp.py"))
    common = {"prompts": PROMPTS, "new": NEW, "threads": given.threads, "vocabulary": config["vocab_size"]}
    ways = {residency: {"residency": residency} for residency in ("packed", "codes", "dense")}
    ways["packed, head int8"] = {"residency": "packed", "head": "int8"}
    ours = {
        f"awq_ref, INT4 {name}": (sys.executable, "ours.py", {"folder": paths["int4"], "load": load})
        for name, load in ways.items()
    }
    ours["awq_ref, float32"] = (sys.executable, "ours.py", {"folder": paths["float"], "load": {}})
    theirs = {
        f"transformers, {dtype}": (
            given.transformers,
            "torch_model.py",
            {"folder": paths["float"], "dtype": dtype},
        )
        for dtype in ("float32", "bfloat16")
    }
    theirs["llama.cpp, Q4_0"] = (given.llama_cpp, "llama_cpp.py", {"file": paths["gguf"]})
    return {
        name: (python, script, common | options)
        for name, (python, script, options) in (ours | theirs).items()
        if has(python, script)
    }


def linear_jobs(given: argparse.Namespace, shape: tuple[int, int]) -> dict[str, tuple]:
    """One row per way to hold a linear."""
    common = {"shape": shape, "threads": given.threads, "tokens": TOKENS, "group_size": GROUP_SIZE}
    jobs = {
        "packed": (sys.executable, "our_linear.py", {"residency": "packed"}),
        FLOAT: (sys.executable, "our_linear.py", {"residency": "dense"}),
        "MatMulNBits, float32": (given.onnxruntime, "onnx_linear.py", {"accuracy_level": 0}),
        "MatMulNBits, int8": (given.onnxruntime, "onnx_linear.py", {"accuracy_level": 4}),
    }
    return {
        name: (python, script, common | options)
        for name, (python, script, options) in jobs.items()
        if has(python, script)
    }


def number(found: dict, path: Sequence[str]) -> float:
    """Return one number of what a process found."""
    for name in path:
        found = found[name]
    return float(found)


def median(runs: list, *path: str) -> float:
    """Return the median of one number of all repeats."""
    return statistics.median(number(run, path) for run in runs)


def ratio(runs: list, rivals: list | None, *path: str) -> str:
    """Return the median of the repeats' ratios to a rival's, if it is there."""
    if rivals is None:
        return "-"
    pairs = zip(runs, rivals, strict=True)
    return f"{statistics.median(number(run, path) / number(rival, path) for run, rival in pairs):.2f}"


def model_table(found: dict[str, list]) -> str:
    """Return the medians as a Markdown table, a row per rival."""
    heads = [
        "load, s", *(f"prompt {prompt}" for prompt in PROMPTS), *(f"new after {prompt}" for prompt in PROMPTS),
        "quartiles after 128", "MiB", "new, of torch float32", "new, of our float32", "prompt 512, of our float32",
    ]  # fmt: skip
    lines = [f"| | {' | '.join(heads)} |", "| :--- |" + " ---: |" * len(heads)]
    for name, runs in found.items():
        rates = [number(run, NEW_RATE) for run in runs]
        low, _, high = statistics.quantiles(rates, n=4) if len(runs) > 1 else rates * 3
        cells = [
            f"{median(runs, 'load'):.1f}",
            *(f"{median(runs, 'rates', str(prompt), 'prompt'):.0f}" for prompt in PROMPTS),
            *(f"{median(runs, 'rates', str(prompt), 'new'):.1f}" for prompt in PROMPTS),
            f"{low:.1f} to {high:.1f}",
            f"{median(runs, 'memory') / 2**20:.0f}",
            ratio(runs, found.get(TORCH), *NEW_RATE),
            ratio(runs, found.get(OURS), *NEW_RATE),
            ratio(runs, found.get(OURS), "rates", "512", "prompt"),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def linear_table(found: dict[str, dict[str, list]]) -> str:
    """Return the medians of each shape as a Markdown table."""
    heads = [f"{tokens} token{'s' * (tokens > 1)}, us | float32 / it" for tokens in TOKENS]
    lines = [
        f"| out x in | held as | MiB | {' | '.join(heads)} |",
        "| :--- | :--- |" + " ---: |" * (1 + 2 * len(TOKENS)),
    ]
    for shape, rivals in found.items():
        for name, runs in rivals.items():
            cells = [f"{median(runs, 'weight') / 2**20:.1f}"]
            for tokens in map(str, TOKENS):
                dense = ratio(rivals[FLOAT], runs, "times", tokens)
                cells += [f"{median(runs, 'times', tokens):.0f}", dense]
            lines.append(f"| {shape} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("build/load_and_generate"))
    for rival in ("--transformers", "--llama-cpp", "--onnxruntime"):
        parser.add_argument(rival, default=".venv-parity/bin/python", metavar="PYTHON")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every repeat here")
    parser.add_argument(
        "--quick", action="store_true", help="two layers, a small linear, one repeat: does it run?"
    )
    given = parser.parse_args()
    given.work /= "quick" if given.quick else "full"
    given.repeats = 1 if given.quick else given.repeats
    return given


def main() -> None:
    given = arguments()
    versions = f"NumPy {np.__version__}, Python {platform.python_version()}"
    where = f"{platform.machine()}, {os.cpu_count()} processors, {versions}"
    print(f"{where}; {given.threads} threads, {given.repeats} repeats, {NEW} new tokens; rates in tokens/s\n")
    models = take_turns(
        model_jobs(given, CONFIG | (QUICK if given.quick else {})), given.repeats, given.threads
    )
    print(model_table(models), end="\n\n", flush=True)
    shapes = ((896, 896),) if given.quick else LINEARS
    linears = {
        f"{out} x {into}": take_turns(linear_jobs(given, (out, into)), given.repeats, given.threads)
        for out, into in shapes
    }
    print(linear_table(linears))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        facts = {"machine": where, "threads": given.threads, "prompts": PROMPTS, "new": NEW}
        given.json.write_text(
            json.dumps(facts | {"models": models, "linears": linears}, indent=2), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
