"""Unfolding: a quantized checkpoint's weights, brought back to the terms of the float model that it was made from.

    norm_scales         the float model's norm and the stored one -> the columns' scales, exactly
    Gains, row_gains, column_gains    how much larger the stored weights are, per row or column
    estimate_scales     gains of a producing and a consuming layer -> their scales, by least squares
    unfold              stored weight -> the float model's terms: the inverse of LinearFold.scale

What can be known: a norm is stored as it is, so its ratio to the original is what the consumers' columns really
are worth, whatever the search intended. Between two linear layers (v and o, up and down) only quantized weights are
left; their product fixes the function, but not how the scale was shared. It must come from the report of the
quantization, or be estimated.
Source: docs/equations.md#eval-3.
"""

from dataclasses import dataclass

import numpy as np

from awq_ref.checks import require_shape
from awq_ref.dtypes import F32, F64, I64, Bool
from awq_ref.errors import RangeError
from awq_ref.search.folding import LinearFold

SLAB = 1 << 20  # weights of one slab of rows: temporaries stay small


def norm_scales(norm_weight: F32, stored: F32) -> F32:
    """Return the scales on the columns of the linears that read a norm.

    Equation [EVAL-3]  s = gamma / gamma',   1 where gamma = 0
        gamma  -> norm_weight    (in_features,)
        gamma' -> stored         (in_features,)
    Source: docs/equations.md#eval-3.

    Parameters
    ----------
    norm_weight, stored : float32 arrays, shape (in_features,)
        Of the float and of the quantized model.

    Returns
    -------
    channel_scales : float32 array, shape (in_features,), > 0

    Raises
    ------
    ShapeError
        If the shapes differ.
    RangeError
        If a ratio is not positive and finite: no fold makes such a norm.

    Examples
    --------
    >>> norm_scales(np.float32([1.0, 3.0, 0.0]), np.float32([0.5, 3.0, 0.0])).tolist()
    [2.0, 1.0, 1.0]
    """
    require_shape("norm_scales", "stored", stored, norm_weight.shape)
    live = norm_weight != 0
    good = np.where(live, (stored != 0) & ((stored > 0) == (norm_weight > 0)), True)
    if not good.all():
        first = int(np.argmin(good))
        raise RangeError(
            f"norm_scales: a folded norm weight keeps its sign and is not 0; got {stored[first]} for "
            f"{norm_weight[first]} at {first}. Was the quantized model made from this float model?"
        )
    scales: F32 = np.divide(norm_weight, stored, out=np.ones_like(norm_weight), where=live)
    return scales


@dataclass(frozen=True)
class Gains:
    """Sums of a least-squares fit: gain = dot / square, per row or column; they add up over tied columns.

    dot    : float64 (n,), sum of expected * stored
    square : float64 (n,), sum of expected * expected
    """

    dot: F64
    square: F64

    @property
    def known(self) -> Bool:
        """Where the gain is a positive number: the weights are neither 0 nor quantized away."""
        return (self.square > 0) & (self.dot > 0)

    def value(self) -> F64:
        """Return the gains, float64 (n,); 1 where it is not known."""
        return np.divide(self.dot, self.square, out=np.ones_like(self.dot), where=self.known)

    def pooled(self, tie: I64, size: int) -> "Gains":
        """Return the sums over all i with tie[i] = p, for p = 0 ... size - 1."""
        dot, square = np.zeros(size, dtype=np.float64), np.zeros(size, dtype=np.float64)
        np.add.at(dot, tie, self.dot)
        np.add.at(square, tie, self.square)
        return Gains(dot, square)


def _slabs(shape: tuple[int, ...]) -> list[slice]:
    step = max(1, SLAB // shape[1])
    return [slice(first, first + step) for first in range(0, shape[0], step)]


def row_gains(weight: F32, stored: F32, columns: F32 | None) -> Gains:
    """Return per row how much larger the stored weights are than the float ones times the columns' scales.

    weight, stored float32 (out_features, in_features), columns (in_features,) or None. Sums of float32 products,
    in float64. Raises ShapeError if the shapes differ.
    """
    require_shape("row_gains", "stored", stored, weight.shape)
    dot, square = np.zeros(len(weight), dtype=np.float64), np.zeros(len(weight), dtype=np.float64)
    for rows in _slabs(weight.shape):
        expected = LinearFold(columns=columns).scale(weight[rows])  # (rows, in_features)
        dot[rows] = (expected * stored[rows]).sum(axis=1, dtype=np.float64)
        square[rows] = (expected * expected).sum(axis=1, dtype=np.float64)
    return Gains(dot, square)


def column_gains(weight: F32, stored: F32) -> Gains:
    """Return per column how much larger the stored weights are than the float ones; as `row_gains`."""
    require_shape("column_gains", "stored", stored, weight.shape)
    dot, square = np.zeros(weight.shape[1], dtype=np.float64), np.zeros(weight.shape[1], dtype=np.float64)
    for rows in _slabs(weight.shape):
        dot += (weight[rows] * stored[rows]).sum(axis=0, dtype=np.float64)
        square += (weight[rows] * weight[rows]).sum(axis=0, dtype=np.float64)
    return Gains(dot, square)


def estimate_scales(producer: Gains, consumer: Gains) -> F32:
    """Estimate the scales between two linears from what they did to both.

    Equation [EVAL-3]  s_p = sqrt(h_p / g_p),   g_p = <u_p, u'_p> / <u_p, u_p>,   h_p likewise over the columns of p
        u, u'  -> rows of the producer: float, stored
        g, h   -> producer, consumer      (n,), columns tied to one row pooled
    Source: docs/equations.md#eval-3.

    Parameters
    ----------
    producer : Gains
        Of the producer's rows: about 1 / s.
    consumer : Gains
        Of the consumer's columns, pooled to the producer's rows: about s.

    Returns
    -------
    channel_scales : float32 array, shape (n,), > 0
        From one side alone where the other is not known; 1 where neither is.

    Raises
    ------
    ShapeError
        If the two do not have the same length.

    Notes
    -----
    Where rounding shrinks both layers (clipping does), g h < 1, and the square root leaves the same shrinkage on
    either side. Rounding noise of relative size e moves the estimate by about e / sqrt(2 n), n weights a side.

    Examples
    --------
    >>> halved = Gains(np.float64([2.0]), np.float64([4.0]))
    >>> doubled = Gains(np.float64([8.0]), np.float64([4.0]))
    >>> estimate_scales(halved, doubled).tolist()
    [2.0]
    """
    require_shape("estimate_scales", "consumer", consumer.dot, producer.dot.shape)
    down, up = producer.value(), consumer.value()
    both = producer.known & consumer.known
    scales: F32 = np.where(both, np.sqrt(up / down), up / down).astype(np.float32)
    return scales


def unfold(stored: F32, fold: LinearFold) -> F32:
    """Return the weight that the stored one amounts to in the float model: W' r / s, a new array  [EVAL-3].

    stored float32 (out_features, in_features); fold.columns is s, fold.rows is r, as `LinearFold.scale` takes them.
    """
    effective = stored.copy() if fold.columns is None else stored / fold.columns
    if fold.rows is not None:
        effective *= fold.rows[:, None]
    return effective
