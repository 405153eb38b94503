"""The search's operations for `awq_ref.vectors.backend`.

SEARCH_OPS   op -> function of parameters and inputs
spec_of      the parameters of a request -> QuantSpec
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from awq_ref.calibration.statistics import SiteStatistics
from awq_ref.dtypes import F32, AnyArray
from awq_ref.quantize import pseudo_quantize
from awq_ref.search.candidates import CANDIDATES
from awq_ref.search.channel_scales import search_channel_scales
from awq_ref.search.clipping import diagonal_blocks, search_clip
from awq_ref.search.objective import GramObjective
from awq_ref.spec import QuantSpec, ScaleDtype

Outputs = dict[str, AnyArray]


def scale_dtype(scales: AnyArray) -> ScaleDtype:
    """Return the dtype in which a request's scales are stored."""
    return "float16" if scales.dtype == np.float16 else "float32"


def spec_of(params: Mapping[str, Any]) -> QuantSpec:
    """Return the QuantSpec that a request's parameters describe."""
    return QuantSpec(
        params["bits"],
        params["group_size"],
        params["symmetric"],
        params["range_rule"],
        params["scale_dtype"],
    )


def _act_mean_abs(params: Mapping[str, Any], inputs: Mapping[str, AnyArray]) -> Outputs:
    return {"act_mean_abs": SiteStatistics.from_inputs(inputs["x"]).act_mean_abs}


def _gram(params: Mapping[str, Any], inputs: Mapping[str, AnyArray]) -> Outputs:
    return {"gram": SiteStatistics.from_inputs(inputs["x"]).gram}


def _channel_scales(params: Mapping[str, Any], inputs: Mapping[str, AnyArray]) -> Outputs:
    return {"channel_scales": CANDIDATES[params["formula"]](inputs["act_mean_abs"], params["alpha"])}


def _objective(params: Mapping[str, Any], inputs: Mapping[str, AnyArray]) -> GramObjective:
    """Return the loss of channel scales; the request's Gram matrix is already a mean, of one token so to speak."""
    gram = inputs["gram"]
    statistics = SiteStatistics(1, np.zeros(len(gram), dtype=np.float64), gram)
    quantizer = partial(pseudo_quantize, spec=spec_of(params))
    return GramObjective([inputs["weight"]], statistics, quantizer)


def _search_loss(params: Mapping[str, Any], inputs: Mapping[str, AnyArray]) -> Outputs:
    loss = _objective(params, inputs)(inputs["channel_scales"])
    return {"loss": np.array(loss, dtype=np.float64)}


def _search_scales(params: Mapping[str, Any], inputs: Mapping[str, AnyArray]) -> Outputs:
    found = search_channel_scales(
        _objective(params, inputs),
        inputs["act_mean_abs"],
        alphas=params["alphas"],
        candidate=CANDIDATES[params["formula"]],
    )
    return {
        "losses": np.array(found.losses, dtype=np.float64),
        "choice": np.array(found.alphas.index(found.alpha), dtype=np.int64),
    }


def _ratio_losses(weight: F32, blocks: F32, ratio: float, spec: QuantSpec) -> F32:
    """Return e_g C_gg e_g^T (O, G) of one ratio."""
    n_groups, size = blocks.shape[:2]
    groups = weight.reshape(len(weight), n_groups, size)
    limit = (np.abs(groups).max(axis=2) * np.float32(ratio)).astype(np.float32)  # (O, G)
    error = pseudo_quantize(weight, spec=spec, clip=limit) - weight
    by_group = error.reshape(groups.shape).transpose(1, 0, 2)  # (G, O, size)
    losses: F32 = np.einsum("gok,gkl,gol->og", by_group, blocks, by_group)
    return losses


def _search_clip(params: Mapping[str, Any], inputs: Mapping[str, AnyArray]) -> Outputs:
    weight, ratios, spec = inputs["weight"], params["ratios"], spec_of(params)
    group_size = weight.shape[1] if spec.group_size == -1 else spec.group_size
    blocks = diagonal_blocks(inputs["gram"], group_size)
    one_group = QuantSpec(spec.bits, -1, spec.symmetric, spec.range_rule, spec.scale_dtype)
    found = search_clip(weight, blocks, quantizer=partial(pseudo_quantize, spec=one_group), ratios=ratios)
    losses = np.stack([_ratio_losses(weight, blocks, ratio, spec) for ratio in ratios])  # (R, O, G)
    largest = np.abs(weight.reshape(len(weight), len(blocks), -1)).max(axis=2)  # (O, G)
    limits = np.stack([largest * np.float32(ratio) for ratio in ratios])
    choice = (limits == found.clip).argmax(axis=0)
    return {"losses": losses.astype(np.float64), "choice": choice.astype(np.int64)}


SEARCH_OPS: dict[str, Callable[[Mapping[str, Any], Mapping[str, AnyArray]], Outputs]] = {
    "act_mean_abs": _act_mean_abs,
    "gram": _gram,
    "channel_scales": _channel_scales,
    "search_loss": _search_loss,
    "search_scales": _search_scales,
    "search_clip": _search_clip,
}
