"""The range search: a group's two ends, moved to where the error that counts is least.

    search_ranges   weight and the importance of each column -> low, high

The extreme weights are one choice of a range. A narrower one cuts a few weights and gives all others a finer step.
Source: docs/equations.md#gptq-3; the idea of a mean-squared-error range is in many quantizers (GPTQ's option `mse`,
compressed-tensors' observers), there with one factor for both ends.
"""

from collections.abc import Callable

import numpy as np

from awq_ref.checks import require_shape
from awq_ref.dtypes import F32
from awq_ref.errors import RangeError
from awq_ref.quantize.affine import TILE_WEIGHTS, split_groups
from awq_ref.quantize.grid import grid_of_range, group_range
from awq_ref.spec import QuantSpec

SHRINKS = tuple(1.0 - i / 20 for i in range(1, 13))  # of both ends together: 0.95, 0.9, ..., 0.4
MOVES = (0.85, 0.9, 0.95, 1.05, 1.1)  # of one end alone, around the best so far
ROUNDS = 2  # how often each end is moved


def _group_error(groups: F32, importance: F32, low: F32, high: F32, spec: QuantSpec) -> F32:
    """Return sum_i m_i (w_i - w_hat_i)^2 (rows, n_groups) of rounding groups (rows, n_groups, group_size)."""
    scales, zero_point = grid_of_range(low, high, spec=spec, who="search_ranges")
    delta = scales.astype(np.float32)[:, :, None]  # (rows, n_groups, 1)
    z = zero_point.astype(np.float32)[:, :, None]  # (rows, n_groups, 1)
    error = groups / delta  # (rows, n_groups, group_size)
    np.rint(error, out=error)
    np.clip(error, -z, spec.qmax - z, out=error)
    error *= delta
    error -= groups
    error *= error
    total: F32 = np.einsum("rgk,gk->rg", error, importance)
    return total


def _search_rows(low: F32, high: F32, error: Callable[[F32, F32], F32]) -> tuple[F32, F32]:
    """Search the ranges of a few rows; each candidate is kept in the groups where it is better."""
    best_low, best_high = low.copy(), high.copy()
    best = error(low, high)

    def attempt(low: F32, high: F32) -> None:
        candidate = error(low, high)
        better = candidate < best
        for kept, new in ((best_low, low), (best_high, high), (best, candidate)):
            np.copyto(kept, new, where=better)

    for shrink in SHRINKS:
        attempt(low * shrink, high * shrink)
    for _ in range(ROUNDS):
        for move in MOVES:
            attempt(best_low * move, best_high)
            attempt(best_low, best_high * move)
    return best_low, best_high


def search_ranges(weight: F32, importance: F32, *, spec: QuantSpec) -> tuple[F32, F32]:
    """Return for every group the range whose grid has the least weighted error.

    Equation [GPTQ-3]  (lo, hi) = argmin sum_i m_i (w_i - w_hat_i)^2 over the candidates
        w       -> weight         (out_features, in_features)
        m       -> importance     (in_features,)
        lo, hi  -> low, high      (out_features, n_groups)
    Candidates: the extremes; both ends times 0.95 ... 0.4; then, twice, each end alone times 0.85 ... 1.1.
    Source: docs/equations.md#gptq-3.

    Parameters
    ----------
    weight : float32 array, shape (out_features, in_features)
    importance : float32 array, shape (in_features,), >= 0
        What a squared error in a column costs: `FeedbackFactor.importance` when feedback follows.
    spec : QuantSpec

    Returns
    -------
    low, high : float32 arrays, shape (out_features, n_groups)
        Never worse, by this measure, than the extremes; equal to them where nothing is better.

    Raises
    ------
    ShapeError, DtypeError, RangeError
        As `choose_grid`; RangeError also if an importance is negative or not finite.

    Notes
    -----
    Numerics: float32. Works in tiles of rows; memory beyond the result is a few tiles.

    Examples
    --------
    >>> weight = np.array([[-8.0, 0.5, 0.25, 7.0]], dtype=np.float32)
    >>> spec = QuantSpec(bits=4, group_size=4)
    >>> [end.tolist() for end in search_ranges(weight, np.ones(4, dtype=np.float32), spec=spec)]
    [[[-8.0]], [[7.0]]]
    >>> [end.tolist() for end in search_ranges(weight, np.float32([0, 1, 1, 0]), spec=spec)][0][0][0] > -8.0
    True
    """
    who = "search_ranges"
    low, high = group_range(weight, spec=spec, who=who)
    require_shape(who, "importance", importance, (weight.shape[1],))
    if not (np.isfinite(importance) & (importance >= 0.0)).all():
        raise RangeError(f"{who}: importance must be finite and at least 0; it is not.")
    by_group = importance.astype(np.float32).reshape(low.shape[1], -1)  # (n_groups, group_size)
    step = max(1, TILE_WEIGHTS // weight.shape[1])
    for first in range(0, len(weight), step):
        rows = slice(first, min(first + step, len(weight)))
        groups = split_groups(weight[rows], low.shape[1])  # (rows, n_groups, group_size)

        def error(low: F32, high: F32, groups: F32 = groups) -> F32:
            return _group_error(groups, by_group, low, high, spec)

        low[rows], high[rows] = _search_rows(low[rows], high[rows], error)
    return low, high
