"""Experiment `scale-sweep`: multiply the salient 1 % of the channels by s before rounding, divide by s after.

    scaled_linear   one linear under one s: its weight, and what happened to the steps of its groups

Source: Lin et al. 2023, arXiv:2306.00978, section 3.2, table 2; docs/paper/scale-sweep.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from awq_ref.dtypes import F32, F64, I64
from awq_ref.paper.bench import Bench, Calibrated, open_bench
from awq_ref.paper.experiment import Column, Experiment, Options, Row, Rows, Setup, columns
from awq_ref.paper.linears import exchanged, salient, site_of
from awq_ref.pipeline import Model
from awq_ref.quantize import dequantize_linear, quantize_linear
from awq_ref.report.progress import progress
from awq_ref.spec import QuantSpec

SHARE = 0.01
SCALES = (1.0, 1.25, 1.5, 2.0, 4.0)


@dataclass
class Steps:
    """What s does to the steps of all groups of a model: delta' / delta of every group, linear after linear."""

    ratios: list[F64]

    def row(self, scale: float) -> Row:
        """Return the paper's three numbers, means over all groups, and the ratio where it is not 1."""
        ratios = np.concatenate(self.ratios)
        changed = ratios != 1.0
        mean = float(ratios.mean())
        return {
            "changed": float(changed.mean()),
            "ratio": mean,
            "error_ratio": mean / scale,
            "ratio_changed": float(ratios[changed].mean()) if changed.any() else 1.0,
        }


def scaled_linear(weight: F32, channels: I64, scale: float, spec: QuantSpec) -> tuple[F32, F64]:
    """Quantize a weight whose salient columns are multiplied by s; return what it stands for, and the steps' ratios.

    Equation (the paper's eq. 2)  w_hat = Q(w s) / s;  s_i = s for the salient channels, 1 for the others
        w -> weight, w_hat -> result   (out_features, in_features)
        s -> scale                     on `channels` (n,)

    Returns
    -------
    result : float32 array, shape (out_features, in_features)
    ratios : float64 array, shape (out_features * n_groups,)
        delta' / delta of every group, both as stored.
    """
    scales = np.ones(weight.shape[1], dtype=np.float32)
    scales[channels] = scale
    plain, scaled = (quantize_linear(w, spec=spec) for w in (weight, weight * scales))
    result: F32 = dequantize_linear(scaled) / scales
    return result, (scaled.scales.astype(np.float64) / plain.scales).ravel()


def scaled_model(
    bench: Bench, calibrated: Calibrated, scale: float, *, spec: QuantSpec, share: float = SHARE
) -> tuple[Model, Steps]:
    """Return the float model with all linears treated like this, and what happened to the steps."""
    sites, steps = site_of(bench.model), Steps([])

    def change(layer: int, name: str, weight: F32) -> F32:
        statistics = calibrated.statistics.sites[f"{layer}.{sites[name]}"]
        result, ratios = scaled_linear(weight, salient(statistics.act_mean_abs, share), scale, spec)
        steps.ratios.append(ratios)
        return result

    return exchanged(bench.model, change), steps


def sweep(bench: Bench, calibrated: Calibrated, *, spec: QuantSpec, scales: Sequence[float]) -> Rows:
    """Return a row for each s."""
    rows: Rows = []
    for scale in progress(scales, total=len(scales), label="scale-sweep", unit="model"):
        model, steps = scaled_model(bench, calibrated, scale, spec=spec)
        grid: Row = {"bits": spec.bits, "group_size": spec.group_size, "s": scale}
        rows.append({**grid, **steps.row(scale), **bench.measures(model)})
    return rows


def run(options: Options) -> tuple[Rows, Setup]:
    """Return the rows of `sweep` for every grid, after one for FP16."""
    with open_bench(options) as bench:
        calibrated = bench.calibrate(bench.windows(0))
        rows: Rows = [{"bits": 16, **bench.measures(bench.model)}]
        for bits in options.bits:
            for group_size in options.group_size:
                spec = QuantSpec(bits=bits, group_size=group_size)
                rows += sweep(bench, calibrated, spec=spec, scales=SCALES)
        return rows, bench.setup(salient_share=SHARE)


def plot(figure: Any, rows: Rows) -> None:
    """Draw perplexity against s, and beneath it what the salient and the other channels' steps do."""
    upper, lower = figure.subplots(2, 1, sharex=True)
    grids = sorted({(row["bits"], row["group_size"]) for row in rows if "s" in row}, reverse=True)
    for bits, group_size in grids:
        chosen = [row for row in rows if (row["bits"], row.get("group_size")) == (bits, group_size)]
        s = [row["s"] for row in chosen]
        name = f"INT{bits} g{group_size}"
        upper.plot(s, [row["perplexity"] for row in chosen], "o-", label=name)
        lower.plot(s, [row["ratio"] for row in chosen], "s-", label=f"{name}: other channels, delta' / delta")
        lower.plot(
            s, [row["error_ratio"] for row in chosen], "v-", label=f"{name}: salient, delta' / (s delta)"
        )
    upper.set(
        xscale="log",
        ylabel="perplexity",
        title=f"the salient {SHARE:.0%} of the channels, multiplied by s before rounding",
    )
    upper.legend()
    lower.set(xlabel="s", ylabel="step, relative", ylim=(0, None))
    lower.set_xticks(SCALES, [f"{scale:g}" for scale in SCALES])
    lower.minorticks_off()
    lower.legend()


EXPERIMENT = Experiment(
    name="scale-sweep",
    title="multiply the salient 1 % by s = 1 ... 4: how many steps grow, how much error is left, perplexity",
    run=run,
    table=columns(
        Column("bits", "bits"),
        Column("group", "group_size"),
        Column("s", "s", "g"),
        Column("groups with delta' != delta", "changed", ".1%"),
        Column("mean delta' / delta", "ratio", ".3f"),
        Column("mean delta' / delta / s", "error_ratio", ".3f"),
        Column("delta' / delta where changed", "ratio_changed", ".3f"),
        Column("perplexity", "perplexity", ".3f"),
        Column("KL", "kl", ".4f"),
    ),
    plot=plot,
    takes=("model", "outliers", "bits", "group_size", "samples", "seq_len", "tokens"),
    defaults=Options(bits=(3,), group_size=(128,), samples=32, tokens=8192),
)
