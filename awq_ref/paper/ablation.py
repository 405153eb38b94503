"""Experiment `ablation`: the recipe `awq` with one choice changed at a time.

    Variant          a name, a recipe, and the statistic that stands in for mean |x|
    VARIANTS         the list; to add one, add a row
    replaced         statistics in which another number stands where the search reads mean |x|
    largest_inputs   max |x| of every channel

Source: Lin et al. 2023, arXiv:2306.00978, section 3.2 and 5; docs/paper/ablation.md.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from awq_ref.calibration import Observed, SiteStatistics
from awq_ref.dtypes import F32, F64, I64
from awq_ref.model import Block
from awq_ref.paper.bench import Bench, Calibrated, open_bench
from awq_ref.paper.experiment import Experiment, Options, Row, Rows, Setup, select, spread
from awq_ref.pipeline import ModelStatistics
from awq_ref.report.progress import progress
from awq_ref.report.quantization import QuantizationReport
from awq_ref.report.tables import format_table
from awq_ref.search import RECIPES, Recipe, plan_for, site_inputs
from awq_ref.turns import Turn, at_once

WINDOWS = 4  # windows that go through the model at a time


@dataclass
class Largest:
    """A listener that remembers max |x| of every channel."""

    values: F32 | None = None

    def add(self, x: F32, turn: Turn = at_once) -> None:
        """Take note of inputs (..., in_features)."""
        largest = np.abs(x).reshape(-1, x.shape[-1]).max(axis=0)
        with turn("largest"):
            self.values = largest if self.values is None else np.maximum(self.values, largest)


def largest_inputs(bench: Bench, windows: I64) -> dict[str, F32]:
    """Return "LAYER.SITE" -> max |x| over the tokens of the windows, float32 (in_features,)."""
    decoder = bench.model.decoder
    sites = site_inputs(plan_for(bench.model.config.model_type))
    listeners: dict[str, Largest] = {}
    blocks = []
    for layer, block in enumerate(decoder.blocks):
        linears = dict(block.linears)
        for site, name in sites.items():
            listeners[f"{layer}.{site}"] = listener = Largest()
            linears[name] = Observed(linears[name], (listener,))
        blocks.append(Block(block.norms, linears))
    watched = replace(decoder, blocks=blocks)
    for first in range(0, len(windows), WINDOWS):
        watched.hidden(windows[first : first + WINDOWS])
    return {site: found.values for site, found in listeners.items() if found.values is not None}


def replaced(calibrated: Calibrated, values: Callable[[str, SiteStatistics], F32 | F64]) -> Calibrated:
    """Return the calibration with values(site, statistics) where the search reads mean |x|; Gram matrices stay."""
    sites = {
        name: replace(entry, abs_sum=values(name, entry).astype(np.float64) * entry.count)
        for name, entry in calibrated.statistics.sites.items()
    }
    return replace(calibrated, statistics=ModelStatistics(sites, calibrated.statistics.calibration))


def _mean(bench: Bench, calibrated: Calibrated) -> Calibrated:
    return calibrated


def _root_mean_square(bench: Bench, calibrated: Calibrated) -> Calibrated:
    return replaced(calibrated, lambda name, entry: np.sqrt(entry.gram_sum.diagonal() / entry.count))


def _maximum(bench: Bench, calibrated: Calibrated) -> Calibrated:
    largest = largest_inputs(bench, calibrated.windows)
    return replaced(calibrated, lambda name, entry: largest[name])


@dataclass(frozen=True)
class Variant:
    """One row: what is called how, which recipe it is, and what it makes of the calibration."""

    name: str
    recipe: Recipe
    statistic: Callable[[Bench, Calibrated], Calibrated] = _mean


def _without(recipe: Recipe, **choice: Any) -> Recipe:
    """Return a recipe with one choice of its rounding changed."""
    return replace(recipe, rounding=replace(recipe.rounding, **choice))


def variants() -> tuple[Variant, ...]:
    """Return the rows: `awq`, then `awq` with one choice changed; `best` likewise; round-to-nearest."""
    awq, best = RECIPES["awq"], RECIPES["best"]
    return (
        Variant("awq", awq),
        Variant("statistic max abs(x)", awq, _maximum),
        Variant("statistic sqrt(mean x^2)", awq, _root_mean_square),
        Variant("scales not normalized", replace(awq, candidates="unnormalized")),
        Variant("two exponents (duo scaling)", replace(awq, candidates="autoawq")),
        Variant("no refinement of alpha", replace(awq, refine=0.0)),
        Variant("no clip", replace(awq, clip_ratios=())),
        Variant("clip, no guard", replace(awq, clip_guard=False)),
        Variant("clip alone, no scales", replace(awq, alphas=(0.0,), refine=0.0)),
        Variant("judged on modules", replace(awq, objective="module")),
        Variant("v -> o only if shapes agree", replace(awq, tied_sites="skip")),
        Variant("stored norm not compensated", replace(awq, fold="plain")),
        Variant("best", best),
        Variant("best, no scales", replace(best, alphas=(0.0,), objective="gram")),
        Variant("best, scales as awq's", replace(best, objective="gram", refine=awq.refine)),
        Variant("best, columns in their own order", _without(best, act_order=False)),
        Variant("best, ranges of the extremes", _without(best, searched_ranges=False)),
        Variant("best, no descent", _without(best, descent=0)),
        Variant("best, inputs of the float model", replace(best, follows_drift=False, recovers=0.0)),
        Variant("best, the stream's error left", replace(best, recovers=0.0)),
        Variant("best, no guard", _without(best, guard=False)),
        Variant("rtn", RECIPES["rtn"]),
    )


def loss_left(report: QuantizationReport) -> float:
    """Return the loss of what is stored relative to round-to-nearest's, the mean over sites; 1 for none searched."""
    sites = [site for _, site in report.sites() if site.loss_rtn > 0]
    return sum(site.loss / site.loss_rtn for site in sites) / len(sites) if sites else 1.0


def run(options: Options) -> tuple[Rows, Setup]:
    """Return a row for FP16, then one per seed, variant and grid."""
    with open_bench(options) as bench:
        rows: Rows = [{"variant": "fp16", "bits": 16, **bench.measures(bench.model)}]
        grids = [(bits, group_size) for bits in options.bits for group_size in options.group_size]
        jobs = [(seed, variant) for seed in range(options.seeds) for variant in variants()]
        calibrated: dict[int, Calibrated] = {}
        for seed, variant in progress(jobs, total=len(jobs), label="ablation", unit="variant"):
            if seed not in calibrated:  # those of the seed before are not needed any more
                calibrated = {seed: bench.calibrate(bench.windows(seed), name=f"seed {seed}")}
            found = variant.statistic(bench, calibrated[seed])
            for bits, group_size in grids:
                model, report = bench.quantize(variant.recipe, found, bits=bits, group_size=group_size)
                row: Row = {"variant": variant.name, "bits": bits, "group_size": group_size, "seed": seed}
                rows.append({**row, **bench.measures(model), "loss_left": loss_left(report)})
        return rows, bench.setup()


def _grids(rows: Rows) -> list[tuple[int, int]]:
    return list(dict.fromkeys((row["bits"], row["group_size"]) for row in rows if "group_size" in row))


def _names(rows: Rows) -> list[str]:
    return [name for name in dict.fromkeys(row["variant"] for row in rows) if name != "fp16"]


def table(rows: Rows) -> str:
    """Return a line per grid and variant: loss that is left, perplexity, KL."""
    lines = [["FP16", "fp16", "", f"{rows[0]['perplexity']:.3f}", ""]]
    for bits, group_size in _grids(rows):
        for name in _names(rows):
            found = select(rows, variant=name, bits=bits, group_size=group_size)
            cells = [
                spread([row[key] for row in found], form)
                for key, form in (("loss_left", ".3f"), ("perplexity", ".3f"), ("kl", ".4f"))
            ]
            lines.append([f"INT{bits} g{group_size}", name, *cells])
    headers = ["grid", "variant", "loss, of RTN's", "perplexity", "KL from FP16"]
    return format_table(headers, lines, left=2)


def plot(figure: Any, rows: Rows) -> None:
    """Draw KL of every variant as a dot per seed, `awq` as a line; a panel per grid."""
    grids, names = _grids(rows), _names(rows)
    figure.set_size_inches(3.0 + 3.6 * len(grids), 1.0 + 0.25 * len(names))
    panels = figure.subplots(1, len(grids), squeeze=False, sharey=True)[0]
    for axes, (bits, group_size) in zip(panels, grids, strict=True):
        grid = select(rows, bits=bits, group_size=group_size)
        for height, name in enumerate(names):
            values = [row["kl"] for row in select(grid, variant=name)]
            axes.plot(values, [height] * len(values), "o", color="C0" if height else "C3")
        base = [row["kl"] for row in select(grid, variant="awq")]
        axes.axvline(sum(base) / len(base), color="C3", lw=1, ls="--")
        axes.set(xlabel="KL from FP16, nats per token", title=f"INT{bits}, groups of {group_size}")
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)


EXPERIMENT = Experiment(
    name="ablation",
    title="the recipe awq with one choice changed at a time: statistic, normalization, clip, objective, ...",
    run=run,
    table=table,
    plot=plot,
    takes=("model", "outliers", "bits", "group_size", "seeds", "samples", "seq_len", "tokens"),
    defaults=Options(bits=(3,), group_size=(128,), seeds=2, samples=16, tokens=4096),
)
