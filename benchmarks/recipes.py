"""How long the recipes take on the embedded model, against `awq`.

python benchmarks/recipes.py [--quick]

Every repeat quantizes once by each recipe, in one process, each time from another one on, so that a disturbance hits
all of them alike. Statistics are observed before, once for all: calibration would take the same time for every recipe
and hide the difference. Printed per recipe: seconds from checkpoint to checkpoint, median and quartiles; the median of
the repeats' ratios to `awq`.
"""

import argparse
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory

from awq_ref import calibrate, quantize_model
from awq_ref.checkpoint import demo_model_path

RECIPES = ("awq", "rtn", "gptq", "gptq-r", "awq+gptq", "best")


def measure(repeats: int, samples: int, bits: int) -> dict[str, list[float]]:
    """Return recipe -> seconds, one per repeat."""
    source = demo_model_path()
    seen = calibrate(source, samples=samples)
    seconds: dict[str, list[float]] = {name: [] for name in RECIPES}
    for repeat in range(repeats):
        first = repeat % len(RECIPES)
        for name in RECIPES[first:] + RECIPES[:first]:
            with TemporaryDirectory() as folder:
                report = quantize_model(source, Path(folder) / "out", recipe=name, bits=bits, statistics=seen)
            seconds[name].append(report.seconds)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one repeat, few windows: does it run?")
    quick = parser.parse_args().quick
    repeats, samples = (1, 8) if quick else (9, 64)
    for bits in (4, 3):
        seconds = measure(repeats, samples, bits)
        print(f"\nINT{bits}, groups of 128; {repeats} repeats, statistics of {samples} windows\n")
        print("| recipe | seconds | quartiles | time of awq |\n| :--- | ---: | ---: | ---: |")
        for name, taken in seconds.items():
            low, median, high = statistics.quantiles(taken, n=4) if len(taken) > 1 else taken * 3
            ratio = statistics.median(t / a for t, a in zip(taken, seconds["awq"], strict=True))
            print(f"| {name} | {median:.2f} | {low:.2f} to {high:.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
