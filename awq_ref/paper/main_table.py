"""Experiment `main`: perplexity and divergence of every recipe at every grid.

    measured   one recipe at one grid, as a row

Source: Lin et al. 2023, arXiv:2306.00978, section 5.2, table 4; docs/paper/main.md.
"""

from collections.abc import Iterator
from typing import Any

from awq_ref.paper.bench import Bench, Calibrated, open_bench
from awq_ref.paper.experiment import Experiment, Options, Row, Rows, Setup, select, spread
from awq_ref.report.progress import progress
from awq_ref.report.tables import format_table
from awq_ref.search import RECIPES

# The paper's, and ours. Those that judge on tokens (llm-awq, autoawq) take minutes: by --recipes.
CHOSEN = ("rtn", "gptq", "gptq-r", "awq", "awq+gptq", "best")

Job = tuple[int, str, int, int]  # seed, recipe, bits, group size


def jobs(options: Options) -> Iterator[Job]:
    """Yield what is to be measured; a recipe that uses no calibration is not repeated."""
    for seed in range(options.seeds):
        for recipe in options.recipes or CHOSEN:
            if seed > 0 and not RECIPES[recipe].searches:
                continue
            for bits in options.bits:
                for group_size in options.group_size:
                    yield seed, recipe, bits, group_size


def measured(bench: Bench, calibrated: Calibrated, job: Job) -> Row:
    """Return the row of one recipe at one grid."""
    seed, recipe, bits, group_size = job
    model, report = bench.quantize(recipe, calibrated, bits=bits, group_size=group_size)
    return {
        "recipe": recipe,
        "bits": bits,
        "group_size": group_size,
        "seed": seed,
        **bench.measures(model),
        "bits_per_weight": report.bits_per_weight,
        "quantize_seconds": round(report.seconds, 2),
    }


def run(options: Options) -> tuple[Rows, Setup]:
    """Return a row for FP16, then one per seed, recipe and grid."""
    with open_bench(options) as bench:
        rows: Rows = [{"recipe": "fp16", "bits": 16, "group_size": None, **bench.measures(bench.model)}]
        todo = list(jobs(options))
        calibrated: dict[int, Calibrated] = {}
        for job in progress(todo, total=len(todo), label="main", unit="model"):
            seed = job[0]
            if seed not in calibrated:  # those of the seed before are not needed any more
                calibrated = {seed: bench.calibrate(bench.windows(seed), name=f"seed {seed}")}
            rows.append(measured(bench, calibrated[seed], job))
        return rows, bench.setup()


def _grids(rows: Rows) -> list[tuple[int, int]]:
    found = dict.fromkeys((row["bits"], row["group_size"]) for row in rows if row["recipe"] != "fp16")
    return list(found)


def _recipes(rows: Rows) -> list[str]:
    return [name for name in dict.fromkeys(row["recipe"] for row in rows) if name != "fp16"]


def _lines(rows: Rows, key: str, form: str) -> list[list[str]]:
    lines = []
    for recipe in _recipes(rows):
        cells = [select(rows, recipe=recipe, bits=bits, group_size=size) for bits, size in _grids(rows)]
        lines.append([recipe, *[spread([row[key] for row in cell], form) for cell in cells]])
    return lines


def table(rows: Rows) -> str:
    """Return two tables, perplexity and KL: a line per recipe, a column per grid."""
    headers = [f"INT{bits} g{group_size}" for bits, group_size in _grids(rows)]
    reference = f"{rows[0]['perplexity']:.3f}"
    first = [["fp16", *[reference] * len(headers)], *_lines(rows, "perplexity", ".3f")]
    kl = _lines(rows, "kl", ".4f")
    return "\n\n".join(
        [
            format_table(["perplexity", *headers], first),
            format_table(["KL from FP16, nats per token", *headers], kl),
        ]
    )


def plot(figure: Any, rows: Rows) -> None:
    """Draw KL per recipe as bars, a panel per grid; the whiskers span the seeds."""
    grids, recipes = _grids(rows), _recipes(rows)
    n_columns = max(1, len({group_size for _, group_size in grids}))
    n_rows = -(-len(grids) // n_columns)
    figure.set_size_inches(6.4, 1.2 + 1.5 * n_rows)
    panels = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True).ravel()
    for axes, (bits, group_size) in zip(panels, grids, strict=False):
        grid = select(rows, bits=bits, group_size=group_size)
        values = [[row["kl"] for row in select(grid, recipe=recipe)] for recipe in recipes]
        means = [sum(v) / len(v) for v in values]
        below = [m - min(v) for m, v in zip(means, values, strict=True)]
        above = [max(v) - m for m, v in zip(means, values, strict=True)]
        colours = [f"C{i}" for i in range(len(recipes))]
        axes.bar(recipes, means, color=colours, yerr=[below, above], ecolor="0.2", capsize=3)
        axes.set_title(f"INT{bits}, groups of {group_size}")
        axes.tick_params(axis="x", rotation=40)
        axes.grid(visible=False, axis="x")
    figure.supylabel("KL from FP16, nats per token", fontsize=9)


EXPERIMENT = Experiment(
    name="main",
    title="FP16 against every recipe at INT4, INT3, INT2, groups of 128 and 64: perplexity, KL",
    run=run,
    table=table,
    plot=plot,
    takes=("model", "outliers", "bits", "group_size", "recipes", "seeds", "samples", "seq_len", "tokens"),
    defaults=Options(bits=(4, 3, 2), group_size=(128, 64), samples=32, tokens=8192),
)
