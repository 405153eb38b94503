"""Experiment `alpha`: the loss against the exponent alpha at every site, with the point that was chosen.

    curves   a quantization report -> a row per site and alpha

Source: Lin et al. 2023, arXiv:2306.00978, section 3.2, eq. 4 and 5; docs/paper/alpha.md.
"""

from typing import Any

from awq_ref.paper.bench import open_bench
from awq_ref.paper.experiment import Experiment, Options, Row, Rows, Setup, select
from awq_ref.report.progress import progress
from awq_ref.report.quantization import QuantizationReport
from awq_ref.report.tables import format_table

RECIPE = "awq"


def curves(report: QuantizationReport) -> Rows:
    """Return a row per site and alpha: the objective, and the same relative to round-to-nearest's."""
    rows: Rows = []
    for layer, site in report.sites():
        grid: Row = {"bits": report.spec.bits, "group_size": report.spec.group_size}
        for alpha, loss in zip(site.alphas, site.losses, strict=True):
            rows.append(
                {
                    **grid,
                    "layer": layer,
                    "site": site.site,
                    "alpha": alpha,
                    "loss": loss,
                    "relative": loss / site.loss_rtn if site.loss_rtn else 1.0,
                    "chosen": alpha == site.alpha,
                }
            )
    return rows


def run(options: Options) -> tuple[Rows, Setup]:
    """Return the curves of every grid."""
    with open_bench(options) as bench:
        calibrated = bench.calibrate(bench.windows(0))
        grids = [(bits, group_size) for bits in options.bits for group_size in options.group_size]
        rows: Rows = []
        for bits, group_size in progress(grids, total=len(grids), label="alpha", unit="model"):
            _, report = bench.quantize(RECIPE, calibrated, bits=bits, group_size=group_size)
            rows += curves(report)
        return rows, bench.setup(recipe=RECIPE)


def _sites(rows: Rows) -> list[str]:
    return list(dict.fromkeys(row["site"] for row in rows))


def _grids(rows: Rows) -> list[tuple[int, int]]:
    return list(dict.fromkeys((row["bits"], row["group_size"]) for row in rows))


def table(rows: Rows) -> str:
    """Return what was chosen: a line per grid and layer, a column per site: alpha and the loss that is left."""
    sites, lines = _sites(rows), []
    for bits, group_size in _grids(rows):
        chosen = select(rows, bits=bits, group_size=group_size, chosen=True)
        for layer in sorted({row["layer"] for row in chosen}):
            found = [select(chosen, layer=layer, site=site)[0] for site in sites]
            cells = [f"{row['alpha']:.2f}: {row['relative']:.1%}" for row in found]
            lines.append([f"INT{bits} g{group_size}", str(layer), *cells])
    return format_table(["alpha: loss, of RTN's", "layer", *sites], lines, left=2)


def plot(figure: Any, rows: Rows) -> None:
    """Draw loss relative to round-to-nearest against alpha: a panel per site, a line per layer, the chosen points."""
    bits, group_size = _grids(rows)[0]
    drawn = select(rows, bits=bits, group_size=group_size)
    sites = _sites(drawn)
    figure.set_size_inches(6.4, 4.6)
    panels = figure.subplots(-(-len(sites) // 2), 2, squeeze=False, sharex=True, sharey=True).ravel()
    layers = sorted({row["layer"] for row in drawn})
    for axes, site in zip(panels, sites, strict=False):
        for layer in layers:
            curve = select(drawn, site=site, layer=layer)
            colour = (0.15 + 0.7 * layer / max(1, len(layers) - 1), 0.35, 0.6)
            axes.plot([row["alpha"] for row in curve], [row["relative"] for row in curve], color=colour, lw=1)
            best = select(curve, chosen=True)[0]
            axes.plot(best["alpha"], best["relative"], "o", color=colour, ms=4)
        axes.axhline(1.0, color="0.4", ls="--", lw=1)
        axes.set_title(site)
    panels[0].set_ylim(0.95 * min(row["relative"] for row in drawn), 1.5)
    figure.suptitle(
        f"INT{bits}, groups of {group_size}: a line per layer, the first dark, the last light; dots: chosen",
        fontsize=9,
    )
    figure.supxlabel("alpha", fontsize=9)
    figure.supylabel("loss, relative to round-to-nearest", fontsize=9)


EXPERIMENT = Experiment(
    name="alpha",
    title="the loss against alpha at every site, with the chosen point",
    run=run,
    table=table,
    plot=plot,
    takes=("model", "outliers", "bits", "group_size", "samples", "seq_len"),
    defaults=Options(bits=(3,), group_size=(128,), samples=32, tokens=2),
)
