"""Experiment `calibration-size`: how many calibration sequences does a recipe need.

    sizes            1, 2, 4, ... and the largest
    growing          statistics of the first 1, 2, 4, ... windows; each window goes through the model once

Source: Lin et al. 2023, arXiv:2306.00978, section 5.3, figure 8 (a); docs/paper/calibration-size.md.
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from awq_ref.calibration import merge
from awq_ref.dtypes import I64
from awq_ref.errors import CalibrationWarning, UnsupportedError
from awq_ref.paper.bench import Bench, Calibrated, open_bench
from awq_ref.paper.experiment import Experiment, Options, Row, Rows, Setup, select, spread
from awq_ref.pipeline import ModelStatistics
from awq_ref.report.progress import progress
from awq_ref.report.tables import format_table
from awq_ref.search import RECIPES

CHOSEN = ("awq", "gptq")  # those of the paper's figure


def sizes(largest: int) -> list[int]:
    """Return the powers of two below the largest size, and the largest.

    Examples
    --------
    >>> sizes(12)
    [1, 2, 4, 8, 12]
    """
    powers = [2**i for i in range(largest.bit_length()) if 2**i < largest]
    return [*powers, largest]


def merged(first: ModelStatistics, second: ModelStatistics) -> ModelStatistics:
    """Return the statistics of both sets of windows together; the fingerprint is left to the caller."""
    return ModelStatistics(
        {name: merge(entry, second.sites[name]) for name, entry in first.sites.items()}, {}
    )


def growing(bench: Bench, windows: I64, *, name: str) -> Iterator[Calibrated]:
    """Yield the calibrations on the first 1, 2, 4, ... windows: each is the one before and what is new."""
    done, statistics = 0, None
    for size in sizes(len(windows)):
        new = bench.calibrate(windows[done:size], name=name).statistics
        statistics = new if statistics is None else merged(statistics, new)
        done = size
        yield Calibrated(windows[:size], statistics)
    bench.remember(name, windows)


def chosen_recipes(options: Options) -> Sequence[str]:
    """Return the recipes that are asked for, or those of the paper's figure.

    Raises UnsupportedError for one that judges on tokens: growing sets of those are not kept.
    """
    names = options.recipes or CHOSEN
    for name in names:
        if RECIPES[name].needs_tokens:
            raise UnsupportedError(
                f"paper calibration-size: a recipe must work on statistics alone; {name} judges on tokens. "
                f"Leave it out of --recipes."
            )
    return names


def run(options: Options) -> tuple[Rows, Setup]:
    """Return a row for FP16, then one per seed, size, grid and recipe."""
    names = chosen_recipes(options)
    with open_bench(options) as bench:
        rows: Rows = [{"recipe": "fp16", "bits": 16, **bench.measures(bench.model)}]
        grids = [(bits, group_size) for bits in options.bits for group_size in options.group_size]
        total = len(sizes(options.samples)) * options.seeds
        jobs = (
            (seed, found)
            for seed in range(options.seeds)
            for found in growing(bench, bench.windows(seed), name=f"seed {seed}")
        )
        for seed, found in progress(jobs, total=total, label="calibration-size", unit="size"):
            for bits, group_size in grids:
                for name in names:
                    with warnings.catch_warnings():  # too few tokens: that is what is tried here
                        warnings.simplefilter("ignore", CalibrationWarning)
                        model, _ = bench.quantize(name, found, bits=bits, group_size=group_size)
                    row: Row = {"recipe": name, "bits": bits, "group_size": group_size, "seed": seed}
                    row |= {"windows": len(found.windows), "tokens": found.windows.size}
                    rows.append({**row, **bench.measures(model)})
        return rows, bench.setup()


def _series(rows: Rows) -> list[tuple[str, int, int]]:
    measured = [row for row in rows if row["recipe"] != "fp16"]
    return list(dict.fromkeys((row["recipe"], row["bits"], row["group_size"]) for row in measured))


def _windows(rows: Rows) -> list[int]:
    return sorted({row["windows"] for row in rows if "windows" in row})


def table(rows: Rows) -> str:
    """Return perplexities: a line per number of sequences, a column per recipe and grid."""
    series = _series(rows)
    lines = []
    for windows in _windows(rows):
        found = select(rows, windows=windows)
        cells = [
            spread([row["perplexity"] for row in select(found, recipe=r, bits=b, group_size=g)])
            for r, b, g in series
        ]
        lines.append([str(windows), str(found[0]["tokens"]), *cells])
    headers = [f"{recipe} INT{bits} g{group_size}" for recipe, bits, group_size in series]
    note = f"FP16: {rows[0]['perplexity']:.3f}"
    return f"{format_table(['sequences', 'tokens', *headers], lines)}\n\n{note}"


def plot(figure: Any, rows: Rows) -> None:
    """Draw perplexity against the number of sequences; the band spans the seeds."""
    axes = figure.subplots()
    windows = _windows(rows)
    for recipe, bits, group_size in _series(rows):
        chosen = select(rows, recipe=recipe, bits=bits, group_size=group_size)
        values = [[row["perplexity"] for row in select(chosen, windows=n)] for n in windows]
        axes.plot(windows, [sum(v) / len(v) for v in values], "o-", label=f"{recipe} INT{bits} g{group_size}")
        axes.fill_between(windows, [min(v) for v in values], [max(v) for v in values], alpha=0.15)
    axes.set(xscale="log", xlabel="calibration sequences", ylabel="perplexity")
    axes.set_xticks(windows, [str(n) for n in windows])
    axes.minorticks_off()
    axes.legend()


EXPERIMENT = Experiment(
    name="calibration-size",
    title="perplexity against 1 ... 192 calibration sequences",
    run=run,
    table=table,
    plot=plot,
    takes=("model", "outliers", "bits", "group_size", "recipes", "seeds", "samples", "seq_len", "tokens"),
    defaults=Options(bits=(3,), group_size=(128,), seeds=2, samples=192, tokens=4096),
)
