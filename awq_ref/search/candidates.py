"""Candidates: the channel scales that one alpha stands for, in the forms that are known.

    candidate               ours: dead channels stay out of it, the range is bounded
    candidate_llm_awq       as llm-awq makes them
    candidate_autoawq       as AutoAWQ makes them, from activations and weights ("duo scaling")
    relative_weight_mean    the statistic of the weights that it uses
    candidate_unnormalized  without their common factor
    CANDIDATES, WEIGHTED_CANDIDATES    by name, as recipes have them

Source: Lin et al. 2023, arXiv:2306.00978, section 3.2, eq. 5; docs/equations.md#awq-6.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from awq_ref.checks import require_between, require_finite, require_group_size, require_shape
from awq_ref.dtypes import F32

# Activations below this share of the largest one count as this share. Then for every alpha in [0, 1] the
# scales lie in [2**-8, 2**8]: norm weights, rows and group scales divided by them stay inside float16.
FLOOR = 2.0**-16
LLM_AWQ_FLOOR = 1e-4  # llm-awq's clamp of act_mean_abs ** alpha

Candidate: TypeAlias = Callable[[F32, float], F32]


def _require_candidate(who: str, act_mean_abs: F32, alpha: float) -> None:
    require_shape(who, "act_mean_abs", act_mean_abs, (None,))
    require_finite(who, "act_mean_abs", act_mean_abs)
    require_between(who, "alpha", alpha, 0.0, 1.0)


def candidate(act_mean_abs: F32, alpha: float) -> F32:
    """Return the channel scales of one alpha.

    Equation [AWQ-6]  s_i = t_i / sqrt(max t * min t),   t_i = max(a_i / max a, 2**-16) ** alpha
        a     -> act_mean_abs      (in_features,)
        s     -> channel_scales    (in_features,)
    max and min run over the channels with a_i > 0; the others, dead ones, get s_i = 1.
    Source: Lin et al. 2023, arXiv:2306.00978, eq. 5; docs/equations.md#awq-6.

    Parameters
    ----------
    act_mean_abs : float32 array, shape (in_features,), >= 0
    alpha : float in [0, 1]

    Returns
    -------
    channel_scales : float32 array, shape (in_features,), values in [2**-8, 2**8] (one float32 rounding aside)
        alpha = 0 gives ones exactly.

    Raises
    ------
    ShapeError
        If act_mean_abs is not 1-D.
    RangeError
        If it holds a NaN or an infinity, or alpha lies outside [0, 1].

    Notes
    -----
    Differs from: llm-awq, where one dead channel sets min t = 1e-4 and moves the scales of all others
    (docs/decisions.md#dead-channels).

    Examples
    --------
    >>> candidate(np.float32([1.0, 4.0, 16.0, 0.0]), 0.5).tolist()
    [0.5, 1.0, 2.0, 1.0]
    """
    _require_candidate("candidate", act_mean_abs, alpha)
    live = act_mean_abs > 0
    if not live.any():
        return np.ones_like(act_mean_abs)
    powers = np.maximum(act_mean_abs / act_mean_abs.max(), FLOOR) ** alpha
    middle = math.sqrt(float(powers[live].max()) * float(powers[live].min()))
    return np.where(live, powers / middle, np.float32(1.0))


def candidate_llm_awq(act_mean_abs: F32, alpha: float) -> F32:
    """Return the channel scales of one alpha, as llm-awq has them.

    Equation [AWQ-6]  s_i = t_i / sqrt(max t * min t),   t_i = max(a_i ** alpha, 1e-4)

    Source: llm-awq, awq/quantize/auto_scale.py.

    Parameters
    ----------
    act_mean_abs : float32 array, shape (in_features,)
    alpha : float
        In [0, 1].

    Raises
    ------
    ShapeError, DtypeError, RangeError
        As `candidate`.

    Examples
    --------
    >>> candidate_llm_awq(np.float32([1.0, 4.0, 16.0]), 0.5).tolist()
    [0.5, 1.0, 2.0]
    """
    _require_candidate("candidate_llm_awq", act_mean_abs, alpha)
    powers = np.maximum(act_mean_abs**alpha, LLM_AWQ_FLOOR)
    scales: F32 = powers / np.sqrt(powers.max() * powers.min())
    return scales


def relative_weight_mean(weights: Sequence[F32], group_size: int) -> F32:
    """Return for every input channel the mean of |w| / (max |w| of its group) over all rows: (in_features,).

    Equation  m_i = mean_o |W_oi| / (max_(j in the group of i) |W_oj| + 1e-6), over the rows of all layers of a site.
    Source: AutoAWQ, awq/quantize/quantizer.py.

    weights : float32 arrays (out_features, in_features); group_size divides in_features, or is -1.

    Examples
    --------
    >>> relative_weight_mean([np.float32([[1.0, -4.0], [2.0, 2.0]])], 2).round(3).tolist()
    [0.625, 1.0]
    """
    total = np.zeros(weights[0].shape[1], dtype=np.float64)
    for weight in weights:
        size = require_group_size("relative_weight_mean", weight.shape[1], group_size)
        groups = np.abs(weight).reshape(len(weight), -1, size)  # (out_features, n_groups, group_size)
        share = groups / (groups.max(axis=2, keepdims=True) + np.float32(1e-6))
        total += share.reshape(weight.shape).sum(axis=0, dtype=np.float64)
    mean: F32 = (total / sum(len(weight) for weight in weights)).astype(np.float32)
    return mean


def candidate_autoawq(act_mean_abs: F32, alpha: float, *, weight_mean: F32) -> F32:
    """Return the channel scales of one alpha, as AutoAWQ's duo scaling has them.

    Equation  s_i = t_i / sqrt(max t * min t),   t_i = max(a_i ** alpha / (m_i ** (1 - alpha) + 1e-4), 1e-4)
        a -> act_mean_abs,  m -> weight_mean  (in_features,)
    A scale that is not finite becomes 1. alpha = 0 gives 1 / m, so identity is never a candidate.
    Source: AutoAWQ, awq/quantize/quantizer.py; shapes, dtypes and errors as `candidate`.

    Examples
    --------
    >>> candidate_autoawq(np.float32([1, 4, 16]), 1.0, weight_mean=np.float32([1, 1, 1])).round(3).tolist()
    [0.25, 1.0, 4.0]
    """
    _require_candidate("candidate_autoawq", act_mean_abs, alpha)
    powers = np.maximum(
        act_mean_abs**alpha / (weight_mean ** (1.0 - alpha) + np.float32(1e-4)), LLM_AWQ_FLOOR
    )
    scales: F32 = powers / np.sqrt(powers.max() * powers.min())
    scales[~np.isfinite(scales)] = 1.0
    return scales


def candidate_unnormalized(act_mean_abs: F32, alpha: float) -> F32:
    """Return max(a_i, 2**-16 max a) ** alpha, 1 for dead channels: [AWQ-6] without its common factor.

    Shapes, dtypes and errors as `candidate`. The factor matters only through the rounding of what is stored.
    """
    _require_candidate("candidate_unnormalized", act_mean_abs, alpha)
    floored = np.maximum(act_mean_abs, act_mean_abs.max() * np.float32(FLOOR))
    return np.where(act_mean_abs > 0, floored**alpha, np.float32(1.0))


CANDIDATES: dict[str, Candidate] = {
    "awq": candidate,
    "llm-awq": candidate_llm_awq,
    "unnormalized": candidate_unnormalized,
}
WEIGHTED_CANDIDATES: dict[str, Callable[..., F32]] = {
    "autoawq": candidate_autoawq
}  # take weight_mean as well
