"""How long the parts of `quantize` take on the embedded model, without start-up and saving.

python benchmarks/quantize_time.py [--windows N] [--recipe NAME] [--repeats N] [--quick]

The model: 6 blocks, hidden 256, intermediate 768, 5.8 M parameters; INT4, groups of 128; 16 windows of 512 tokens, made
from text before the clock starts. Per part the median and the quartiles of the repeats, in seconds: `walk` (weights
read, all windows put through each block, Gram matrices added up), `search` (scales and clips), `round` (integers).
Packing and files are not in it; one run before the first is not counted.
"""

import argparse
import os
import statistics
import time
from collections.abc import Iterator

import numpy as np

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

PARTS = ("walk", "search", "round")


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
    spec = recipe.storage_spec(QuantSpec(bits=4, group_size=128))
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--recipe", default="awq", choices=("awq", "gptq", "gptq-r", "awq+gptq"))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one repeat, two windows: does it run?")
    arguments = parser.parse_args()
    repeats, samples = (1, 2) if arguments.quick else (arguments.repeats, arguments.windows)
    _, config = open_float(demo_model_path())
    windows, _ = calibration_windows(
        open_tokenizer(demo_model_path(), config),
        None,
        samples=samples,
        seq_len=512,
        vocab_size=config.vocab_size,
    )
    recipe = recipe_named(arguments.recipe)
    runs = [run_once(windows, recipe) for _ in range(repeats + 1)][1:]
    threads = os.environ.get("OPENBLAS_NUM_THREADS", f"as BLAS chooses, {os.cpu_count()} processors")
    print(f"{recipe.name}, {samples} windows; BLAS threads: {threads}; NumPy {np.__version__}\n")
    print("| part | seconds | quartiles |\n| :--- | ---: | ---: |")
    columns = {part: [run[part] for run in runs] for part in PARTS}
    columns["all"] = [sum(run.values()) for run in runs]
    for part, taken in columns.items():
        low, median, high = statistics.quantiles(taken, n=4) if len(taken) > 1 else taken * 3
        print(f"| {part} | {median:.3f} | {low:.3f} to {high:.3f} |")


if __name__ == "__main__":
    main()
