"""Write a recipe of your own: a row of choices, searched, compared with two that are there.

python examples/write_recipe.py

`half` takes the square root of the activations, alpha = 1/2 everywhere, and searches nothing but that; so one sees what
the search of alpha is worth.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import awq_ref
from awq_ref.checkpoint import demo_model_path
from awq_ref.pipeline import ModelStatistics
from awq_ref.report.tables import format_table
from awq_ref.search import Recipe, recipe_named

HALF = replace(recipe_named("awq"), name="half", alphas=(0.5,), refine=0.0)


def losses(recipe: Recipe, statistics: ModelStatistics) -> dict[str, float]:
    """Quantize and return, for every site, the loss with its scales as a share of round-to-nearest's."""
    with tempfile.TemporaryDirectory() as scratch:
        source = demo_model_path()
        report = awq_ref.quantize_model(
            source, Path(scratch) / "out", recipe=recipe, bits=3, statistics=statistics
        )
    return {f"{layer}.{site.site}": site.loss_scaled / site.loss_rtn for layer, site in report.sites()}


def main() -> None:
    """Print the share of the loss that each recipe leaves, site by site."""
    statistics = awq_ref.calibrate(demo_model_path(), samples=8)
    half, awq = (losses(recipe, statistics) for recipe in (HALF, recipe_named("awq")))
    print(format_table(["site", "half", "awq"], [[s, f"{half[s]:.3f}", f"{awq[s]:.3f}"] for s in awq]))
    print(f"mean: half {sum(half.values()) / len(half):.3f}, awq {sum(awq.values()) / len(awq):.3f}")


if __name__ == "__main__":
    main()
