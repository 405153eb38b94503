"""The objective: how far a layer's output moves when its weights are rounded.

    gram_row_losses       per output row, from the Gram matrix: no tokens needed
    gram_loss             their sum
    direct_loss           the same number from the tokens (for tests and teaching)
    quantization_errors   weight error of a scaled, clipped, quantized layer, in slabs of rows
    row_losses            both together, for one layer
    GramObjective         loss(channel_scales) of all layers of a site
    FeedbackObjective     the same when error feedback follows: what the later columns cannot answer
    ModuleObjective       the same judged on a module's output, as llm-awq does for q, k, v and gate, up

Numerics: float32 products (BLAS), summed per row over 128 columns in float32, then in float64.
Memory, of each thread: one slab of ROWS rows and one product of (ROWS, PANEL), whatever the layer's size.
Source: Lin et al. 2023, arXiv:2306.00978, eq. 4; docs/equations.md#awq-7.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias

import numpy as np

from awq_ref.buffers import scratch
from awq_ref.checks import require_shape
from awq_ref.dtypes import F32, F64
from awq_ref.errors import ShapeError
from awq_ref.search.folding import LinearFold

PANEL = 128  # columns of the Gram matrix in one product
SQUARE = 256  # columns of E^T E in one product
ROWS = 1024  # rows in one product: below this BLAS repacks the Gram matrix too often
QUANTIZER_ELEMENTS = 1 << 18  # weights handed to the quantizer at once: its temporaries stay in the cache

ModuleRunner: TypeAlias = Callable[[Mapping[str, F32]], Iterable[F32]]


class Quantizer(Protocol):
    """`pseudo_quantize` with its spec: acts on every row by itself. Only the clip search gives `extremes`."""

    def __call__(self, weight: F32, *, clip: F32 = ..., extremes: tuple[F32, F32] = ...) -> F32:
        """Return the float weights that the integers of weights (rows, in_features) stand for."""


class Statistics(Protocol):
    """What the search needs to know of a site: see `calibration.SiteStatistics`."""

    @property
    def count(self) -> int: ...
    @property
    def act_mean_abs(self) -> F32: ...
    @property
    def gram_sum(self) -> F32: ...


def gram_row_losses(error: F32, gram: F32) -> F64:
    """Return e C e^T for every row e of the error.

    Equation [AWQ-7]  || X e^T ||^2 / n = e C e^T,   C = X^T X / n
        e -> error, one row     (out_features, in_features)
        C -> gram               (in_features, in_features), symmetric
    Source: docs/equations.md#awq-7.

    Parameters
    ----------
    error : float32 array, shape (out_features, in_features)
    gram : float32 array, shape (in_features, in_features)
        Symmetric. X^T X instead of its mean gives n times the result.

    Returns
    -------
    losses : float64 array, shape (out_features,)

    Raises
    ------
    ShapeError
        If the shapes do not fit.

    Notes
    -----
    C is symmetric: with its columns cut into panels J, sum_J e_J C_JJ e_J^T + 2 sum_(I>J) e_I C_IJ e_J^T
    costs half of the full product, and the temporary is one panel wide.
    """
    require_shape("gram_row_losses", "error", error, (None, None))
    require_shape("gram_row_losses", "gram", gram, (error.shape[1], error.shape[1]))
    rows, in_features = error.shape
    losses = np.zeros(rows, dtype=np.float64)
    for start in range(0, in_features, PANEL):
        stop = min(start + PANEL, in_features)
        part = error[:, start:stop]
        (product,) = scratch((part.shape, np.float32), use="products")
        np.matmul(part, gram[start:stop, start:stop], out=product)
        losses += np.vecdot(product, part)
        if stop < in_features:
            np.matmul(error[:, stop:], gram[stop:, start:stop], out=product)
            losses += 2.0 * np.vecdot(product, part)
    return losses


def gram_loss(error: F32, gram: F32) -> float:
    """Return tr(E C E^T), the mean over tokens of the squared output error, summed over outputs [AWQ-7].

    Parameters
    ----------
    error : float32 array, shape (out_features, in_features)
        E = W_hat - W.
    gram : float32 array, shape (in_features, in_features), symmetric

    Raises
    ------
    ShapeError
        If the shapes do not fit.

    Notes
    -----
    As sum_ij (E^T E)_ij C_ij, half of a product, where row by row (`gram_row_losses`) costs up to a third more.

    Examples
    --------
    >>> gram_loss(np.float32([[1.0, 2.0]]), np.float32([[1.0, 0.5], [0.5, 3.0]]))
    15.0
    """
    require_shape("gram_loss", "error", error, (None, None))
    in_features = error.shape[1]
    require_shape("gram_loss", "gram", gram, (in_features, in_features))
    total = 0.0
    for start in range(0, in_features, SQUARE):
        stop, columns = min(start + SQUARE, in_features), error[:, start : start + SQUARE]
        below = [(slice(stop, in_features), 2.0)] if stop < in_features else []
        for rows, times in ((slice(start, stop), 1.0), *below):
            part = gram[rows, start:stop]
            (product,) = scratch((part.shape, np.float32), use="products")
            np.matmul(error[:, rows].T, columns, out=product)
            total += times * float(np.vecdot(product, part).sum(dtype=np.float64))
    return total


def direct_loss(error: F32, x: F32) -> float:
    """Return || X E^T ||^2 / n from the tokens x (n, in_features), in float64 [AWQ-7].

    Parameters
    ----------
    error : float32 array, shape (out_features, in_features)
    x : float32 array, shape (n, in_features)
    """
    outputs = x.astype(np.float64) @ error.astype(np.float64).T  # (n, out_features)
    return float((outputs * outputs).sum() / len(x))


def _scaled_rows(weights: Sequence[F32], first: int, last: int, fold: LinearFold, out: F32) -> None:
    """Put rows first to last of layers that lie one below the other, scaled, into out."""
    start = 0  # of a layer
    for weight in weights:
        rows = slice(max(first - start, 0), min(last - start, len(weight)))
        if rows.start < rows.stop:
            place = slice(start + rows.start, start + rows.stop)  # among the rows of all
            fold.part(place).scale(weight[rows], out=out[place.start - first : place.stop - first])
        start += len(weight)


def quantization_errors(
    weights: Sequence[F32], fold: LinearFold, quantizer: Quantizer
) -> Iterator[tuple[slice, F32]]:
    """Yield (rows, E) with E = Q(clip(W s / r)) r / s - W, the error in the original layer's terms.

    W are layers (out_features, in_features) that read the same input, taken as one: their rows one below the other.
    E, float32 (at most ROWS, in_features), lies in memory of the calling thread: use it before asking for the next.
    """
    in_features, total = weights[0].shape[1], sum(map(len, weights))
    step = max(1, QUANTIZER_ELEMENTS // in_features)
    for first in range(0, total, ROWS):
        last = min(first + ROWS, total)
        (slab,) = scratch(((last - first, in_features), np.float32), use="errors")
        _scaled_rows(weights, first, last, fold, slab)
        for start in range(first, last, step):
            rows = slice(start, min(start + step, last))
            error = slab[start - first : rows.stop - first]
            rounded = quantizer(error) if fold.clip is None else quantizer(error, clip=fold.clip[rows])
            np.subtract(rounded, error, out=error)
            if fold.columns is not None:
                error /= fold.columns
            if fold.rows is not None:
                error *= fold.rows[rows, None]
        yield slice(first, last), slab


def row_losses(weight: F32, fold: LinearFold, statistics: Statistics, quantizer: Quantizer) -> F64:
    """Return per output row the mean squared output error of the folded, quantized layer: (out_features,).

    Parameters
    ----------
    weight : float32 array, shape (out_features, in_features)
    fold : LinearFold
        Channel scales and clips of the layer.
    statistics : Statistics
        Of its input.
    quantizer : callable
        A float weight, scaled and clipped -> the float weight of its integers.
    """
    losses = np.empty(len(weight), dtype=np.float64)
    for rows, error in quantization_errors([weight], fold, quantizer):
        losses[rows] = gram_row_losses(error, statistics.gram_sum)
    return losses / statistics.count


class GramObjective:
    """loss(s) = sum_l tr(E_l C E_l^T) / sum_l out_features_l,  E_l = Q(W_l s) / s - W_l  [AWQ-7].

    The mean squared error of an output element over the tokens that the statistics have seen.

    Parameters
    ----------
    weights : sequence of float32 arrays, shape (out_features, in_features)
        The layers that read the site.
    statistics : Statistics
    quantizer : callable
        Float weights -> float weights that the integers stand for; acts on every row by itself.

    Raises
    ------
    ShapeError
        If the layers and the statistics do not have the same in_features.
    """

    def __init__(self, weights: Sequence[F32], statistics: Statistics, quantizer: Quantizer) -> None:
        in_features = len(statistics.gram_sum)
        for weight in weights:
            require_shape("GramObjective", "weight", weight, (None, in_features))
        self._weights, self._statistics, self._quantizer = weights, statistics, quantizer

    def __call__(self, channel_scales: F32) -> float:
        fold = LinearFold(columns=channel_scales)
        total = 0.0
        for _, error in quantization_errors(self._weights, fold, self._quantizer):
            total += gram_loss(error, self._statistics.gram_sum)
        return total / (self._statistics.count * sum(len(weight) for weight in self._weights))


class FeedbackObjective:
    """loss(s) = sum_l sum_i m_i || e_l,i / s_i ||^2 / sum_l out_features_l,  e_l = Q(W_l s) - W_l s  [GPTQ-5].

    What is left of an output element's squared error when the columns after each one answer it: a column costs only
    what they cannot say in its place.

    Parameters
    ----------
    weights : sequence of float32 arrays, shape (out_features, in_features)
        The layers that read the site.
    importance : float32 array, shape (in_features,)
        m_i = 1 / U_ii^2 of the site's own Gram matrix, scales not yet in it: `FeedbackFactor.importance`.
    quantizer : callable

    Raises
    ------
    ShapeError
        If the layers and the importance do not have the same in_features.
    """

    def __init__(self, weights: Sequence[F32], importance: F32, quantizer: Quantizer) -> None:
        for weight in weights:
            require_shape("FeedbackObjective", "weight", weight, (None, len(importance)))
        self._weights, self._importance, self._quantizer = weights, importance, quantizer

    def __call__(self, channel_scales: F32) -> float:
        fold = LinearFold(columns=channel_scales)
        squares = np.zeros(len(self._importance), dtype=np.float64)
        for _, error in quantization_errors(self._weights, fold, self._quantizer):
            squares += np.einsum("ri,ri->i", error, error)
        return float(squares @ self._importance) / sum(len(weight) for weight in self._weights)


class ModuleObjective:
    """loss(s) = mean squared difference of a module's output when its layers are Q(W_l s) / s.

    Parameters
    ----------
    weights : mapping of name -> float32 array, shape (out_features, in_features)
        The layers that read the site.
    run : callable
        Takes float weights by name, which replace the module's own, and yields the module's output batch by
        batch over the calibration windows. With no weights: the module as it is.
    quantizer : callable

    Notes
    -----
    Numerics: differences in float32, squared and summed in float64. The original outputs are kept.
    """

    def __init__(self, weights: Mapping[str, F32], run: ModuleRunner, quantizer: Quantizer) -> None:
        self._weights, self._run, self._quantizer = weights, run, quantizer
        self._reference = [output.copy() for output in run({})]

    def __call__(self, channel_scales: F32) -> float:
        rounded = {n: self._quantizer(w * channel_scales) / channel_scales for n, w in self._weights.items()}
        total, elements, batches = 0.0, 0, 0
        for output, reference in zip(self._run(rounded), self._reference, strict=False):
            difference = (output - reference).astype(np.float64)
            total += float((difference * difference).sum())
            elements, batches = elements + output.size, batches + 1
        if batches != len(self._reference):
            raise ShapeError(f"ModuleObjective: run must always yield {len(self._reference)} batches.")
        return total / elements
