"""Experiment `salient`: a few channels kept in FP16 beside integers, and which of them matter.

    choose      the channels of one linear: by activation, by weight norm, at random
    keep        a quantized model with those columns put back

Mixed precision by channel is an experiment here, not a storage format.
Source: Lin et al. 2023, arXiv:2306.00978, section 3.1, table 1; docs/paper/salient.md.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from awq_ref.dtypes import F32, F64, I64
from awq_ref.paper.bench import Bench, Calibrated, open_bench
from awq_ref.paper.experiment import Experiment, Options, Row, Rows, Setup, select, spread
from awq_ref.paper.linears import dense_weight, exchanged, salient, site_of
from awq_ref.pipeline import Model
from awq_ref.report.progress import progress
from awq_ref.report.tables import format_table

SHARES = (0.001, 0.01, 0.03)
WAYS = ("activation", "weight norm", "random")

Score = Callable[[int, str, F32], F32 | F64]  # layer, linear, weight -> a value per channel


def choose(way: str, model: Model, calibrated: Calibrated, *, seed: int = 0) -> Score:
    """Return what gives every input channel of a linear its value; the largest are kept.

    activation: mean |x|. weight norm: || W[:, i] ||. random: numbers drawn with the seed.
    """
    sites, rng = site_of(model), np.random.default_rng(seed)

    def by_activation(layer: int, name: str, weight: F32) -> F32:
        return calibrated.statistics.sites[f"{layer}.{sites[name]}"].act_mean_abs

    def by_weight(layer: int, name: str, weight: F32) -> F64:
        norms: F64 = np.linalg.norm(weight.astype(np.float64), axis=0)  # (in_features,)
        return norms

    def at_random(layer: int, name: str, weight: F32) -> F64:
        return rng.random((weight.shape[1],))

    ways: dict[str, Score] = {"activation": by_activation, "weight norm": by_weight, "random": at_random}
    return ways[way]


def keep(quantized: Model, model: Model, score: Score, share: float) -> Model:
    """Return the quantized model with a share of every linear's columns as in the float model."""

    def put_back(layer: int, name: str, weight: F32) -> F32:
        original = dense_weight(model.decoder.blocks[layer].linears[name])
        kept: I64 = salient(score(layer, name, original), share)
        mixed = weight.copy()
        mixed[:, kept] = original[:, kept]
        return mixed

    return exchanged(quantized, put_back)


def variants(seeds: int, shares: Sequence[float]) -> Iterator[tuple[float, str, int]]:
    """Yield (share, way, seed): only what is random is repeated."""
    for share in shares:
        for way in WAYS:
            for seed in range(seeds if way == "random" else 1):
                yield share, way, seed


def kept_rows(
    bench: Bench, options: Options, calibrated: Calibrated, *, shares: Sequence[float] = SHARES
) -> Rows:
    """Return a row for FP16, one for plain rounding per grid, and one per grid, share, way and seed."""
    rows: Rows = [{"kept": "all", "bits": 16, "share": 1.0, **bench.measures(bench.model)}]
    grids = [(bits, group_size) for bits in options.bits for group_size in options.group_size]
    for bits, group_size in grids:
        grid: Row = {"bits": bits, "group_size": group_size}
        quantized, _ = bench.quantize("rtn", calibrated, bits=bits, group_size=group_size)
        rows.append({"kept": "nothing", **grid, "share": 0.0, **bench.measures(quantized)})
        jobs = list(variants(options.seeds, shares))
        for share, way, seed in progress(jobs, total=len(jobs), label=f"salient INT{bits}", unit="model"):
            score = choose(way, bench.model, calibrated, seed=seed)
            mixed = keep(quantized, bench.model, score, share)
            rows.append({"kept": way, **grid, "share": share, "seed": seed, **bench.measures(mixed)})
    return rows


def run(options: Options) -> tuple[Rows, Setup]:
    """Return the rows of `kept_rows` for the shares of the paper."""
    with open_bench(options) as bench:
        calibrated = bench.calibrate(bench.windows(0))
        return kept_rows(bench, options, calibrated), bench.setup()


def _grids(rows: Rows) -> list[tuple[int, int]]:
    return [(row["bits"], row["group_size"]) for row in select(rows, kept="nothing")]


def _how(way: str) -> str:
    return "at random" if way == "random" else f"by {way}"


def table(rows: Rows) -> str:
    """Return perplexities: a line per way to choose, a column per share."""
    shares = sorted({row["share"] for row in rows} - {0.0, 1.0})
    lines = [["FP16", f"{select(rows, kept='all')[0]['perplexity']:.3f}", *[""] * len(shares)]]
    for bits, group_size in _grids(rows):
        grid = select(rows, bits=bits, group_size=group_size)
        plain = f"{select(grid, kept='nothing')[0]['perplexity']:.3f}"
        lines.append([f"INT{bits} g{group_size} (RTN)", plain, *[""] * len(shares)])
        for way in WAYS:
            found = [[row["perplexity"] for row in select(grid, kept=way, share=share)] for share in shares]
            lines.append([f"INT{bits} g{group_size}, kept {_how(way)}", "", *map(spread, found)])
    return format_table(["perplexity", "as it is", *[f"{share:.1%} in FP16" for share in shares]], lines)


def plot(figure: Any, rows: Rows) -> None:
    """Draw perplexity against the share that is kept, a line per way to choose it; one panel per grid."""
    grids = _grids(rows)
    panels = figure.subplots(1, len(grids), squeeze=False)[0]
    for axes, (bits, group_size) in zip(panels, grids, strict=True):
        grid = select(rows, bits=bits, group_size=group_size)
        for way, marker in zip(WAYS, "os^", strict=True):
            chosen = select(grid, kept=way)
            shares = sorted({row["share"] for row in chosen})
            values = [[row["perplexity"] for row in select(chosen, share=share)] for share in shares]
            means = np.array([np.mean(v) for v in values], dtype=np.float64)
            axes.plot([100 * s for s in shares], means, marker=marker, label=_how(way))
            low, high = [min(v) for v in values], [max(v) for v in values]
            axes.fill_between([100 * s for s in shares], low, high, alpha=0.15)
        plain = select(grid, kept="nothing")[0]["perplexity"]
        axes.axhline(plain, color="0.4", ls="--", lw=1, label="nothing kept")
        axes.axhline(
            select(rows, kept="all")[0]["perplexity"], color="0.4", ls=":", lw=1, label="all in FP16"
        )
        axes.set(xscale="log", xlabel="channels kept in FP16, %", title=f"INT{bits}, groups of {group_size}")
        axes.set_xticks([100 * s for s in shares], [f"{100 * s:g}" for s in shares])
        axes.minorticks_off()
    panels[0].set_ylabel("perplexity")
    panels[-1].legend(loc="best")


EXPERIMENT = Experiment(
    name="salient",
    title="keep 0.1, 1, 3 % of the channels in FP16, chosen by activation, by weight norm, at random",
    run=run,
    table=table,
    plot=plot,
    takes=("model", "outliers", "bits", "group_size", "seeds", "samples", "seq_len", "tokens"),
    defaults=Options(bits=(3,), group_size=(128,), seeds=3, samples=32, tokens=8192),
)
