"""What quantization did to one linear layer, from its weights and the statistics of its inputs alone.

    relative_error           || E || / || W ||
    channel_contributions    the output error, split over the input channels
    ErrorTerms, error_terms  the factors of the paper's equations 2 and 3: step, rounding error, activation
    linear_errors            all of them, for one layer
    LinearErrors             what comes out

`effective` is the quantized weight in the float model's terms (`search.unfolding`), E = effective - weight. The
statistics are those of the float model's inputs: errors of the layers before are not in them.
Sources: Lin et al. 2023, arXiv:2306.00978, equations 2, 3 and 4; docs/equations.md#eval-4.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from awq_ref.checks import require_dtype, require_finite, require_shape
from awq_ref.dtypes import F16, F32, F64
from awq_ref.search.folding import LinearFold
from awq_ref.search.objective import ROWS, Statistics, gram_row_losses

SALIENT_SHARE = 0.01  # "the top 1 % of the channels", at least one


def ratio(part: float, whole: float) -> float:
    """Return part / whole; 0 for 0 / 0, infinity for more than nothing out of nothing."""
    if part == 0.0:
        return 0.0
    return part / whole if whole > 0.0 else math.inf


def _slabs(rows: int) -> Iterator[slice]:
    for first in range(0, rows, ROWS):
        yield slice(first, min(first + ROWS, rows))


def _sum_of_squares(array: F32) -> float:
    return sum(float(np.square(array[rows], dtype=np.float64).sum()) for rows in _slabs(len(array)))


def relative_error(weight: F32, error: F32) -> float:
    """Return || E ||_F / || W ||_F, in float64.

    Parameters
    ----------
    weight, error : float32 arrays, shape (out_features, in_features)

    Examples
    --------
    >>> relative_error(np.float32([[3.0, 4.0]]), np.float32([[0.0, 0.5]]))
    0.1
    """
    return math.sqrt(ratio(_sum_of_squares(error), _sum_of_squares(weight)))


def channel_contributions(error: F32, gram: F32) -> F64:
    """Return what each input channel adds to tr(E C E^T).

    Equation [EVAL-4]  phi_i = sum_o E_oi (E C)_oi,   sum_i phi_i = tr(E C E^T)
        E -> error    (out_features, in_features)
        C -> gram     (in_features, in_features), symmetric
    Source: docs/equations.md#eval-4.

    Parameters
    ----------
    error : float32 array, shape (out_features, in_features)
    gram : float32 array, shape (in_features, in_features)
        X^T X instead of its mean gives n times the result.

    Returns
    -------
    contributions : float64 array, shape (in_features,)
        A negative one takes away error that other, correlated channels make.

    Raises
    ------
    ShapeError
        If the shapes do not fit.

    Notes
    -----
    Numerics: float32 products (BLAS), summed over rows in float64. Memory: ROWS rows.

    Examples
    --------
    >>> error, gram = np.float32([[1.0, 2.0]]), np.float32([[1.0, 0.5], [0.5, 3.0]])
    >>> channel_contributions(error, gram).tolist()
    [2.0, 13.0]
    """
    require_shape("channel_contributions", "error", error, (None, None))
    require_shape("channel_contributions", "gram", gram, (error.shape[1], error.shape[1]))
    contributions = np.zeros(error.shape[1], dtype=np.float64)
    for rows in _slabs(len(error)):
        product = error[rows] @ gram  # (rows, in_features)
        product *= error[rows]
        contributions += product.sum(axis=0, dtype=np.float64)
    return contributions


@dataclass(frozen=True)
class ErrorTerms:
    """The factors of Err(Q(w) x) = delta RoundErr(w / delta) x, each as a mean over the layer.

    delta         : the step, in the float model's terms
    round_error   : |RoundErr|, in steps: 1/4 when rounding to nearest
    act_mean_abs  : |x|, or |x / s|
    error         : the whole, |Err|, over weights and tokens
    """

    delta: float
    round_error: float
    act_mean_abs: float
    error: float


def error_terms(
    error: F32, delta: F16 | F32, act_mean_abs: F32, fold: LinearFold | None = None
) -> ErrorTerms:
    """Return the means of the factors of the paper's equation 2, or of equation 3 when weights were scaled.

    Equation [EVAL-5]  Err(Q(w) x)         = delta  RoundErr(w / delta) x
                       Err(Q(w s) (x / s)) = delta' RoundErr(w s / delta') x / s
        delta, delta' -> delta           (out_features, n_groups)
        |RoundErr|    -> |E| s / delta'  (out_features, in_features), E in the float model's terms
        |x|           -> act_mean_abs    (in_features,)
        s             -> fold.columns    (in_features,)
    Source: Lin et al. 2023, arXiv:2306.00978, equations 2 and 3; docs/equations.md#eval-5.

    Parameters
    ----------
    error : float32 array, shape (out_features, in_features)
    delta : float array, shape (out_features, n_groups), > 0
        The steps as stored.
    act_mean_abs : float32 array, shape (in_features,)
    fold : LinearFold, optional
        columns s and rows r of the stored weight w s / r, whose steps delta are: in the float model's terms a step
        is r delta.

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    """
    fold = LinearFold() if fold is None else fold
    require_shape("error_terms", "delta", delta, (len(error), None))
    require_shape("error_terms", "act_mean_abs", act_mean_abs, (error.shape[1],))
    steps = delta.astype(np.float64)  # (out_features, n_groups)
    if fold.rows is not None:
        steps *= fold.rows[:, None]
    columns = 1.0 if fold.columns is None else fold.columns
    rounding = total = 0.0
    for rows in _slabs(len(error)):
        size = np.abs(error[rows])  # (rows, in_features)
        total += float(size.sum(axis=0, dtype=np.float64) @ act_mean_abs)
        scaled = (size * columns).reshape(len(size), delta.shape[1], -1)  # (rows, n_groups, group_size)
        rounding += float((scaled.sum(axis=2, dtype=np.float64) / steps[rows]).sum())
    act = float((act_mean_abs / columns).mean(dtype=np.float64))
    return ErrorTerms(float(steps.mean()), rounding / error.size, act, total / error.size)


@dataclass(frozen=True)
class LinearErrors:
    """What quantization did to one layer.

    weight_error   : || E || / || W ||
    output_error   : tr(E C E^T) / tr(W C W^T), the mean squared error of the outputs over their mean square
    contributions  : float64 (in_features,), each channel's part of tr(E C E^T)
    act_mean_abs   : float32 (in_features,)
    rounded        : equation 2: what rounding the float weight to nearest would do
    scaled         : equation 3: what is stored
    delta_ratio    : mean over groups of delta' / delta, in the float model's terms
    inverse_scale  : mean of 1 / s over the channels
    inverse_scale_salient : the same over the top 1 % of the channels by act_mean_abs
    """

    weight_error: float
    output_error: float
    contributions: F64
    act_mean_abs: F32
    rounded: ErrorTerms
    scaled: ErrorTerms
    delta_ratio: float
    inverse_scale: float
    inverse_scale_salient: float

    @property
    def sqnr_db(self) -> float:
        """Signal to quantization noise of the outputs, in decibels: -10 log10(output_error)."""
        if self.output_error == 0.0:
            return math.inf
        return -10.0 * math.log10(self.output_error) if self.output_error < math.inf else -math.inf

    def shares(self) -> F64:
        """Return each channel's share of the output error, float64 (in_features,); zeros if there is no error."""
        total = self.contributions.sum()
        return self.contributions / total if total > 0.0 else np.zeros_like(self.contributions)

    def top_channels(self, n: int) -> list[tuple[int, float]]:
        """Return the n channels with the largest shares, as (channel, share)."""
        shares = self.shares()
        return [(int(i), float(shares[i])) for i in np.argsort(-shares, kind="stable")[:n]]

    def top_share(self) -> float:
        """Return the share of the output error that the top 1 % of the channels carry, those with the largest."""
        return sum(share for _, share in self.top_channels(salient_count(len(self.contributions))))

    def salient_share(self) -> float:
        """Return the share of the output error that the top 1 % of the channels by act_mean_abs carry."""
        return float(self.shares()[salient_channels(self.act_mean_abs)].sum())


def salient_count(in_features: int) -> int:
    """Return how many channels are the top 1 %: rounded, at least one."""
    return max(1, round(SALIENT_SHARE * in_features))


def salient_channels(act_mean_abs: F32) -> np.ndarray:
    """Return the top 1 % of the channels by mean |x|, largest first.

    Parameters
    ----------
    act_mean_abs : float32 array, shape (in_features,)
    """
    return np.argsort(-act_mean_abs, kind="stable")[: salient_count(len(act_mean_abs))]


def _mean_ratio(stored: F16 | F32, nearest: F16 | F32, fold: LinearFold) -> float:
    """Return the mean of delta' / delta, both in the float model's terms."""
    ratios = stored.astype(np.float64) / nearest.astype(np.float64)  # (out_features, n_groups)
    if fold.rows is not None:
        ratios *= fold.rows[:, None]
    return float(ratios.mean())


def linear_errors(
    weight: F32,
    effective: F32,
    rounded: F32,
    statistics: Statistics,
    *,
    delta: F16 | F32,
    delta_rounded: F16 | F32,
    fold: LinearFold,
) -> LinearErrors:
    """Return all errors of one layer.

    Equation [EVAL-4]  tr(E C E^T) / tr(W C W^T),   E = W_hat - W
        W      -> weight        (out_features, in_features)
        W_hat  -> effective     (out_features, in_features)
        n C    -> statistics.gram_sum
    Source: docs/equations.md#eval-4.

    Parameters
    ----------
    weight, effective, rounded : float32 arrays, shape (out_features, in_features)
        The float weight, the stored one in its terms, and the float weight rounded to nearest without scales.
    statistics : Statistics
        Of the layer's inputs in the float model.
    delta, delta_rounded : float arrays, shape (out_features, n_groups), > 0
        Steps of the stored weight, as stored, and of `rounded`.
    fold : LinearFold
        The columns' and rows' scales that the stored weight holds.

    Raises
    ------
    ShapeError, DtypeError
        If the arrays do not fit.
    RangeError
        If a weight or the Gram matrix holds a NaN or an infinity.

    Notes
    -----
    Memory: two arrays as large as the weight, and slabs. Sums in float64 of float32 products.
    """
    who = "linear_errors"
    for name, array in (("weight", weight), ("effective", effective), ("rounded", rounded)):
        require_shape(who, name, array, weight.shape)
        require_dtype(who, name, array, np.float32)
        require_finite(who, name, array)
    require_finite(who, "the Gram matrix", statistics.gram_sum)
    act = statistics.act_mean_abs
    error = effective - weight
    contributions = channel_contributions(error, statistics.gram_sum) / statistics.count
    energy = float(gram_row_losses(weight, statistics.gram_sum).sum()) / statistics.count
    inverse = np.ones_like(act) if fold.columns is None else np.float32(1.0) / fold.columns
    return LinearErrors(
        weight_error=relative_error(weight, error),
        output_error=ratio(max(0.0, float(contributions.sum())), energy),
        contributions=contributions,
        act_mean_abs=act,
        rounded=error_terms(rounded - weight, delta_rounded, act),
        scaled=error_terms(error, delta, act, fold),
        delta_ratio=_mean_ratio(delta, delta_rounded, fold),
        inverse_scale=float(inverse.mean(dtype=np.float64)),
        inverse_scale_salient=float(inverse[salient_channels(act)].mean(dtype=np.float64)),
    )
