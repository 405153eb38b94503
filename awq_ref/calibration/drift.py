"""What calibration keeps of an input that comes twice: as the float model has it, and as quantized layers have left it.

    DriftStatistics     sums over the tokens of both
    DriftAccumulator    adds them up batch by batch

Numerics: as `statistics`: products in float32, added to float32 sums.
Source: docs/equations.md#gptq-6.
"""

from dataclasses import dataclass

import numpy as np

from awq_ref.calibration.statistics import add_gram, add_product, mirror_gram
from awq_ref.checks import require_finite, require_shape
from awq_ref.dtypes import F32
from awq_ref.errors import RangeError
from awq_ref.turns import Turn, at_once, within


@dataclass(frozen=True)
class DriftStatistics:
    """Sums over the tokens t of one site, x_t of the float model and y_t of the quantized one.

    Equation [GPTQ-6]  C = sum_t y y^T,   D = sum_t (x - y) y^T,   B = sum_t e y^T
        C, D -> gram_sum, drift_sum     (in_features, in_features)
        B    -> stream_sum              (out_features, in_features)
    Source: docs/equations.md#gptq-6.

    count      : int > 0, number of tokens
    gram_sum   : float32, symmetric
    drift_sum  : float32
    stream_sum : float32, e what the layer is to add beyond its own output; None: nothing
    """

    count: int
    gram_sum: F32
    drift_sum: F32
    stream_sum: F32 | None = None


class DriftAccumulator:
    """Adds up DriftStatistics batch by batch. Memory: the sums, and a panel of them for each thread.

    Parameters
    ----------
    in_features : int
    site : str
        The name that an error message gives.

    Examples
    --------
    >>> accumulator = DriftAccumulator(2)
    >>> accumulator.add(np.float32([[1.0, 0.0]]), np.float32([[0.5, 2.0]]))
    >>> found = accumulator.finish()
    >>> found.gram_sum.tolist(), found.drift_sum.tolist()
    ([[0.25, 1.0], [1.0, 4.0]], [[0.25, 1.0], [-1.0, -4.0]])
    """

    def __init__(self, in_features: int, *, site: str = "x") -> None:
        self._who, self._count = f"calibration, inputs of {site}", 0
        self._gram_sum = np.zeros((in_features, in_features), dtype=np.float32)
        self._drift_sum = np.zeros((in_features, in_features), dtype=np.float32)
        self._stream_sum: F32 | None = None

    def add(self, x: F32, y: F32, e: F32 | None = None, turn: Turn = at_once) -> None:
        """Add the tokens of x and y, float32 (..., in_features), and of e (..., out_features), always or never.

        All are added when it is their turn.

        Raises
        ------
        ShapeError
            If they do not fit each other.
        """
        require_shape(self._who, "y", y, (*y.shape[:-1], len(self._gram_sum)))
        require_shape(self._who, "x", x, y.shape)
        tokens = y.reshape(-1, y.shape[-1])  # (tokens, in_features)
        drift = x.reshape(tokens.shape) - tokens
        add_gram(tokens, self._gram_sum, turn=turn)
        add_product(drift, tokens, self._drift_sum, turn=turn)
        if e is not None:
            require_shape(self._who, "e", e, (*y.shape[:-1], None))
            missing = e.reshape(len(tokens), -1)  # (tokens, out_features)
            add_product(
                missing, tokens, self._stream_sum_of(missing.shape[1], turn), turn=within(turn, "stream")
            )
        with turn("count"):
            self._count += len(tokens)

    def _stream_sum_of(self, out_features: int, turn: Turn) -> F32:
        """Return the sum for e; the first batch makes it."""
        with turn("stream"):
            if self._stream_sum is None:
                self._stream_sum = np.zeros((out_features, len(self._gram_sum)), dtype=np.float32)
            return self._stream_sum

    def finish(self) -> DriftStatistics:
        """Return the sums; RangeError if no token came, or an activation was not finite, or too large to be squared."""
        if not self._count:
            raise RangeError(f"{self._who}: at least one token must come; got none.")
        mirror_gram(self._gram_sum)
        for what, values in (
            ("the sum of squares", self._gram_sum.diagonal()),
            ("the sum of drifts", self._drift_sum),
        ):
            require_finite(self._who, what, values)
        return DriftStatistics(self._count, self._gram_sum, self._drift_sum, self._stream_sum)
