"""How long the parts of `quantize` take on the embedded model, without start-up and saving, beside rivals in one run.

    python benchmarks/quantize_time.py [--windows N] [--recipe NAME] [--repeats N] [--json FILE] [--quick]
    python benchmarks/quantize_time.py --llm-compressor PYTHON --autoawq PYTHON [--rival-repeats N]

The model: 6 blocks, hidden 256, intermediate 768, 5.8 M parameters; INT4, groups of 128; 16 windows of 512 tokens, made
from text before the clock starts. Per part the median and the quartiles of the repeats, in seconds: `walk` (weights
read, all windows put through each block, Gram matrices added up), `search` (scales and clips), `round` (integers).
Packing and files are not in it; one run before the first is not counted.

PYTHON is an interpreter that has the rival (`pip install llmcompressor`; `pip install transformers==4.51.3`, then `pip
install --no-deps autoawq==0.2.9`). The same windows, groups and number of threads; every run is a process of its own,
in turns with ours, and warms up on one window. What a rival does otherwise stands in its script (`benchmarks/rivals`).
"Times ours" is the median of the ratios of the turns that both had. A rival without its packages is left out.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from load_and_generate import has, run

from awq_ref.checkpoint import demo_model_path
from awq_ref.dtypes import I64
from awq_ref.pipeline.block_search import search_sites
from awq_ref.pipeline.load import open_tokenizer
from awq_ref.pipeline.observation import ObservedBlock, open_float
from awq_ref.pipeline.rounding import round_site
from awq_ref.pipeline.texts import calibration_windows
from awq_ref.pipeline.walk import observed_blocks
from awq_ref.search import Recipe, recipe_named
from awq_ref.spec import QuantSpec
from awq_ref.threads import default_threads

PARTS = ("walk", "search", "round")
GROUP_SIZE = 128
RIVALS = {  # name -> script, its number format and what else it is told
    "llm-compressor": ("llm_compressor.py", {"dtype": "bfloat16", "batch": 1}),
    "autoawq": ("autoawq.py", {"dtype": "bfloat16"}),
}


def timed_blocks(blocks: Iterator[ObservedBlock], seconds: dict[str, float]) -> Iterator[ObservedBlock]:
    """Yield the blocks, adding up the time that they took."""
    while True:
        start = time.perf_counter()
        found = next(blocks, None)
        seconds["walk"] += time.perf_counter() - start
        if found is None:
            return
        yield found


def run_once(windows: I64, recipe: Recipe) -> dict[str, float]:
    """Quantize once, keeping nothing; return the seconds of each part."""
    checkpoint, config = open_float(demo_model_path())
    spec = recipe.storage_spec(QuantSpec(bits=4, group_size=GROUP_SIZE))
    seconds = dict.fromkeys(PARTS, 0.0)
    for found in timed_blocks(observed_blocks(checkpoint, config, windows, recipe=recipe), seconds):
        start = time.perf_counter()
        result = search_sites(found, config, recipe=recipe, spec=spec, norm_dtype="F16")
        searched = time.perf_counter()
        weights, known = found.weights(), found.observations.statistics
        for report in result.reports:
            layers = {name: weights[name] for name in report.linears}
            round_site(layers, result.folds, known[report.site], spec=spec, rounding=recipe.rounding)
        seconds["search"] += searched - start
        seconds["round"] += time.perf_counter() - searched
    return seconds


def take_turns(windows: I64, given: argparse.Namespace) -> tuple[list[dict], dict[str, list[dict]]]:
    """Return our parts' seconds and what each rival's process found, repeat by repeat."""
    recipe, threads = recipe_named(given.recipe), default_threads()
    rivals = {name: getattr(given, name.replace("-", "_")) for name in RIVALS}
    rivals = {name: python for name, python in rivals.items() if python and has(python, RIVALS[name][0])}
    ours: list[dict] = []
    found: dict[str, list[dict]] = {name: [] for name in rivals}
    run_once(windows, recipe)
    with tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder, "windows.npy")
        np.save(tokens, windows)
        common = {"folder": str(demo_model_path()), "windows": str(tokens), "group_size": GROUP_SIZE}
        for repeat in range(given.repeats):
            ours.append(run_once(windows, recipe))
            for name, python in rivals.items() if repeat < given.rival_repeats else ():
                print(f"repeat {repeat + 1} of {given.rival_repeats}: {name}", file=sys.stderr, flush=True)
                script, options = RIVALS[name]
                found[name].append(run(python, script, common | options | {"threads": threads}, threads))
    return ours, found


def table(ours: list[dict], found: dict[str, list[dict]]) -> str:
    """Return the medians as a Markdown table: our parts, their sum, the rivals."""
    columns = {part: [parts[part] for parts in ours] for part in PARTS}
    columns["all"] = whole = [sum(parts.values()) for parts in ours]
    columns |= {name: [one["seconds"] for one in runs] for name, runs in found.items()}
    lines = ["| part | seconds | quartiles | times ours |", "| :--- | ---: | ---: | ---: |"]
    for name, taken in columns.items():
        low, median, high = statistics.quantiles(taken, n=4) if len(taken) > 1 else taken * 3
        ratios = [one / total for one, total in zip(taken, whole, strict=False)]
        lines.append(f"| {name} | {median:.3f} | {low:.3f} to {high:.3f} | {statistics.median(ratios):.2f} |")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--recipe", default="awq", choices=("awq", "gptq", "gptq-r", "awq+gptq"))
    parser.add_argument("--repeats", type=int, default=7)
    for rival in RIVALS:
        parser.add_argument(f"--{rival}", metavar="PYTHON", help="an interpreter that has it")
    parser.add_argument(
        "--rival-repeats", type=int, default=3, help="how many of the repeats a rival has a turn in"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every repeat here")
    parser.add_argument("--quick", action="store_true", help="one repeat, two windows: does it run?")
    given = parser.parse_args()
    if given.quick:
        given.repeats, given.windows = 1, 2
    given.rival_repeats = min(given.rival_repeats, given.repeats)
    return given


def main() -> None:
    given = arguments()
    _, config = open_float(demo_model_path())
    windows, _ = calibration_windows(
        open_tokenizer(demo_model_path(), config),
        None,
        samples=given.windows,
        seq_len=512,
        vocab_size=config.vocab_size,
    )
    threads = os.environ.get("OPENBLAS_NUM_THREADS", f"as BLAS chooses, {os.cpu_count()} processors")
    where = f"{given.recipe}, {given.windows} windows; BLAS threads: {threads}; NumPy {np.__version__}"
    print(f"{where}; {default_threads()} threads of ours and of each rival\n")
    ours, found = take_turns(windows, given)
    for name, runs in found.items():
        print(f"{name}: {', '.join(map(' '.join, runs[0]['versions'].items()))}\n")
    print(table(ours, found))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        facts = {"machine": where, "threads": default_threads(), "ours": ours, "rivals": found}
        given.json.write_text(json.dumps(facts, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
