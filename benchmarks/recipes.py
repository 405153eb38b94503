"""How long the recipes take on the embedded model, against `awq`.

python benchmarks/recipes.py [--quick]

Every repeat quantizes once by each recipe, in one process, each time from another one on, so that a disturbance hits
all of them alike. The calibration text is made tokens before, once for all; each recipe observes the model on them
itself (`rtn` does not need to). Printed per recipe: seconds from checkpoint to checkpoint, median and quartiles; the
median of the repeats' ratios to `awq`.
"""

import argparse
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory

from awq_ref import quantize_model
from awq_ref.checkpoint import demo_model_path
from awq_ref.pipeline.load import open_tokenizer
from awq_ref.pipeline.observation import open_float
from awq_ref.pipeline.texts import calibration_windows

RECIPES = ("awq", "rtn", "gptq", "gptq-r", "awq+gptq", "best")


def measure(repeats: int, samples: int) -> dict[str, list[float]]:
    """Return recipe -> seconds, one per repeat."""
    source = demo_model_path()
    _, config = open_float(source)
    windows, _ = calibration_windows(
        open_tokenizer(source, config), None, samples=samples, seq_len=512, vocab_size=config.vocab_size
    )
    seconds: dict[str, list[float]] = {name: [] for name in RECIPES}
    for repeat in range(repeats):
        first = repeat % len(RECIPES)
        for name in RECIPES[first:] + RECIPES[:first]:
            with TemporaryDirectory() as folder:
                report = quantize_model(source, Path(folder) / "out", recipe=name, calibration=windows)
            seconds[name].append(report.seconds)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one repeat, few windows: does it run?")
    quick = parser.parse_args().quick
    repeats, samples = (1, 8) if quick else (3, 128)
    seconds = measure(repeats, samples)
    print(f"\nINT4, groups of 128; {repeats} repeats, {samples} windows\n")
    print("| recipe | seconds | quartiles | time of awq |\n| :--- | ---: | ---: | ---: |")
    for name, taken in seconds.items():
        low, median, high = statistics.quantiles(taken, n=4) if len(taken) > 1 else taken * 3
        ratio = statistics.median(t / a for t, a in zip(taken, seconds["awq"], strict=True))
        print(f"| {name} | {median:.2f} | {low:.2f} to {high:.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
