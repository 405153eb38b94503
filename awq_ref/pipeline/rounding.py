"""Where error feedback meets a block: what it knows before the search, and what it makes of the folds after it.

site_importance   what an error in each channel will cost, for a search that judges by that
round_site        the layers of one site -> QuantizedLinear each, and their loss
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from awq_ref.calibration import DriftStatistics, SiteStatistics
from awq_ref.dtypes import F32
from awq_ref.errors import CalibrationWarning
from awq_ref.pipeline.observation import located
from awq_ref.quantize import Evidence, dequantize_linear, feedback_factor, moved_weight, round_linear
from awq_ref.search import LinearFold, Recipe, gram_loss, scaled_gram
from awq_ref.spec import QuantizedLinear, QuantSpec, Rounding


@dataclass(frozen=True)
class RoundedSite:
    """The layers of one site as integers.

    linears : by name
    loss    : mean squared error of an output element [AWQ-7]; None where weights were rounded to nearest
    damping : of the feedback; None without
    """

    linears: dict[str, QuantizedLinear]
    loss: float | None = None
    damping: float | None = None


def _warn_if_few(statistics: SiteStatistics) -> None:
    if statistics.count < statistics.in_features:
        warnings.warn(
            f"calibration saw {statistics.count} tokens, fewer than the {statistics.in_features} channels of a layer: "
            "its Gram matrix is singular, so error feedback fits these tokens and may serve others worse than rounding "
            "to nearest. Calibrate on more.",
            CalibrationWarning,
            stacklevel=2,
        )


def _loss(
    weights: Mapping[str, F32],
    folds: Mapping[str, LinearFold],
    linears: Mapping[str, QuantizedLinear],
    gram: F32,
) -> float:
    """Return tr(E C E^T) summed over layers, E in terms of the layers as they came; gram is that of x / s."""
    losses = []
    for name, linear in linears.items():
        fold = folds[name]
        error = dequantize_linear(linear) - fold.scale(weights[name])
        losses.append(gram_loss(error if fold.rows is None else error * fold.rows[:, None], gram))
    return math.fsum(losses)


def _wanted(weight: F32, evidence: Evidence, drift: DriftStatistics | None) -> F32:
    """Return the weight to round to."""
    if drift is None:
        return weight
    return moved_weight(weight, evidence.factor, drift.drift_sum, drift.stream_sum)


def site_importance(statistics: Mapping[str, SiteStatistics], recipe: Recipe) -> dict[str, F32]:
    """Return site -> 1 / U_ii^2, float32 (in_features,); nothing for a recipe that does not judge by feedback.

    Raises RangeError, naming the site, if a Gram matrix cannot be inverted (`feedback_factor`).
    """
    if recipe.objective != "feedback":
        return {}
    found = {}
    for site, seen in statistics.items():
        with located(site):
            factor = feedback_factor(
                seen.gram, act_order=recipe.rounding.act_order, damping=recipe.rounding.damping
            )
        found[site] = factor.importance
    return found


def round_site(
    weights: Mapping[str, F32],
    folds: Mapping[str, LinearFold],
    statistics: SiteStatistics | None,
    *,
    spec: QuantSpec,
    rounding: Rounding,
    drift: DriftStatistics | None = None,
) -> RoundedSite:
    """Round the layers that read one input.

    Parameters
    ----------
    weights : mapping of layer -> float32 array, shape (out_features, in_features)
        As they came.
    folds : mapping of layer -> LinearFold
        Theirs, at least.
    statistics : SiteStatistics or None
        Of the input; None will do for rounding to nearest.
    spec : QuantSpec
    rounding : Rounding
    drift : DriftStatistics or None
        What the scaled layers will really see, and what they are to make of it [GPTQ-6]; None: the input of the float
        model, divided by the scales.

    Raises
    ------
    RangeError
        If error feedback lacks statistics, or the Gram matrix cannot be inverted (`feedback_factor`).
    """
    scaled = {name: folds[name].scale(weight) for name, weight in weights.items()}
    if statistics is None or not rounding.feeds_back:
        linears = {
            n: round_linear(w, spec=spec, rounding=rounding, clip=folds[n].clip) for n, w in scaled.items()
        }
        return RoundedSite(linears)
    _warn_if_few(statistics)
    columns = folds[next(iter(weights))].columns  # one for all: they share the input
    gram = statistics.gram_sum if columns is None else scaled_gram(statistics.gram_sum, columns)
    evidence = Evidence.of(gram if drift is None else drift.gram_sum, rounding)
    linears = {
        name: round_linear(
            _wanted(weight, evidence, drift),
            spec=spec, rounding=rounding, evidence=evidence, clip=folds[name].clip, original=weight,
        )
        for name, weight in scaled.items()
    }  # fmt: skip
    elements = statistics.count * sum(len(weight) for weight in weights.values())
    return RoundedSite(linears, _loss(weights, folds, linears, gram) / elements, evidence.factor.damping)
