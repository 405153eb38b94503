"""Which channel scales a quantized checkpoint holds, site by site, and how that is known.

    ScaleSource       what may be known beside the weights: a report, or a recipe that scales nothing
    require_same_run  a report belongs to a quantized model
    stored_folds      one block -> a LinearFold and its source for every linear

Norm-fed sites are exact. Sites between two linears are exact with the report of the quantization and estimated
without (docs/equations.md#eval-3).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from awq_ref.dtypes import F32, I64
from awq_ref.errors import FormatError
from awq_ref.report.quantization import QuantizationReport
from awq_ref.search import LinearFold, ScaleGroup
from awq_ref.search.unfolding import column_gains, estimate_scales, norm_scales, row_gains
from awq_ref.spec import QuantSpec

# A stored norm is rounded to 16 bits, and a recipe may have scaled its consumers by the number before rounding.
NORM_ROUNDING = 2.0**-7


@dataclass(frozen=True)
class ScaleSource:
    """What is known of the scales beside the weights.

    report    : of the run that made the quantized model, or None
    scaled    : False if the model's own record names a recipe that scales nothing
    """

    report: QuantizationReport | None = None
    scaled: bool = True

    def scales(self, layer: int, site: str, size: int) -> tuple[F32, str] | None:
        """Return a linear-fed site's scales (size,) and where they come from; None if they must be estimated."""
        if self.report is not None:
            found = {(number, entry.site): entry.channel_scales for number, entry in self.report.sites()}
            return found.get((layer, site), np.ones(size, dtype=np.float32)), "report"
        return None if self.scaled else (np.ones(size, dtype=np.float32), "recipe")


@dataclass(frozen=True)
class BlockFolds:
    """Scales per linear, and the words that say how its columns' and rows' are known."""

    folds: dict[str, LinearFold]
    columns_from: dict[str, str] = field(default_factory=dict)
    rows_from: dict[str, str] = field(default_factory=dict)

    def put(self, group: ScaleGroup, scales: F32, producer_scales: F32 | None, source: str) -> None:
        """Write the scales of one site into the folds of its consumers and its producer."""
        for name in group.consumers:
            self.folds[name] = replace(self.folds[name], columns=scales)
            self.columns_from[name] = source
        if producer_scales is not None:
            self.folds[group.producer] = replace(self.folds[group.producer], rows=producer_scales)
            self.rows_from[group.producer] = source


def require_same_run(report: QuantizationReport, spec: QuantSpec, n_layers: int) -> None:
    """Raise FormatError unless a report may be that of a model with this grid and number of layers."""
    same = (report.spec.bits, report.spec.group_size, report.spec.symmetric) == (
        spec.bits, spec.group_size, spec.symmetric
    )  # fmt: skip
    if not same or len(report.layers) != n_layers:
        raise FormatError(
            f"inspect --errors: the report must be that of the quantized model; it is of {report.spec}, "
            f"{len(report.layers)} layers, the model of {spec}, {n_layers} layers."
        )


def _check_norm_site(source: ScaleSource, layer: int, site: str, scales: F32, norm: F32) -> None:
    """Compare what the report says with what the norms say, where both speak."""
    if source.report is None:
        return
    claimed, _ = source.scales(layer, site, len(scales)) or (scales, "")
    live = norm != 0
    if claimed.shape != scales.shape or (abs(claimed - scales) > NORM_ROUNDING * scales)[live].any():
        raise FormatError(
            f"inspect --errors: the report must be that of the quantized model; its channel scales of layer {layer}, "
            f"{site} are not those of the model's norms."
        )


def _producer_scales(scales: F32, tie: I64) -> F32:
    """Return one scale per producer row from one per consumer column: tied columns have the same."""
    rows = np.ones(int(tie.max()) + 1, dtype=np.float32)
    rows[tie] = scales
    return rows


def _checked_size(scales: F32, size: int, layer: int, site: str) -> F32:
    if scales.shape != (size,):
        raise FormatError(
            f"inspect --errors: the report must be that of the quantized model; layer {layer}, {site} has "
            f"{len(scales)} channel scales in it, the model {size} channels."
        )
    return scales


def stored_folds(
    plan: tuple[ScaleGroup, ...],
    weights: Mapping[str, F32],
    norms: tuple[Mapping[str, F32], Mapping[str, F32]],
    stored: Callable[[str], F32],
    *,
    ties: Mapping[str, I64],
    source: ScaleSource,
    layer: int,
) -> BlockFolds:
    """Return the scales that one block's stored weights hold.

    Parameters
    ----------
    plan : tuple of ScaleGroup
    weights : linear -> float weight
    norms : two mappings norm -> weight, of the float and of the quantized model
    stored : linear -> its dequantized weight; called for the linears of sites that must be estimated
    ties : site -> the producer's row of every channel, for tied sites
    source, layer
        What else is known, and of which layer.

    Raises
    ------
    RangeError
        If the norms are not those of one model, before and after a fold.
    FormatError
        If the report is that of another model.
    """
    found = BlockFolds({name: LinearFold() for name in weights})
    scaled = [group for group in plan if not group.fixed]
    for group in sorted(
        scaled, key=lambda entry: entry.producer_kind != "norm"
    ):  # columns of v, up come first
        if group.producer_kind == "norm":
            norm = norms[0][group.producer]
            scales = norm_scales(norm, norms[1][group.producer])
            _check_norm_site(source, layer, group.site, scales, norm)
            found.put(group, scales, None, "norm")
            continue
        size = weights[group.consumers[0]].shape[1]
        tie = ties[group.site] if group.tied else np.arange(size, dtype=np.int64)
        known = source.scales(layer, group.site, size)
        if known is not None:
            scales = _checked_size(known[0], size, layer, group.site)
            found.put(group, scales, _producer_scales(scales, tie), known[1])
            continue
        rows = _estimated(group, weights, found.folds[group.producer], stored, tie)
        found.put(group, rows[tie], rows, "estimate")
    return found


def _estimated(
    group: ScaleGroup,
    weights: Mapping[str, F32],
    producer_fold: LinearFold,
    stored: Callable[[str], F32],
    tie: I64,
) -> F32:
    """Return the producer's row scales by least squares: (out_features of the producer,)."""
    name, consumer = group.producer, group.consumers[0]
    down = row_gains(weights[name], stored(name), producer_fold.columns)
    up = column_gains(weights[consumer], stored(consumer))
    return estimate_scales(down, up.pooled(tie, len(weights[name])))
