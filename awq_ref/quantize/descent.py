"""Coordinate descent over integers: each code moved to where the layer's output error is least, the others held.

    descend_codes   codes -> codes whose loss is at most as large

Source: docs/equations.md#gptq-4; Behdin et al. 2023, arXiv:2309.01885 (QuantEase), for the idea.
"""

import numpy as np

from awq_ref.checks import require_between, require_dtype, require_shape
from awq_ref.dtypes import F32, I64, U8
from awq_ref.quantize.affine import dequantize_linear
from awq_ref.quantize.gptq import BLOCK_COLUMNS
from awq_ref.spec import QuantizedLinear


class _Descent:
    """Codes, weights and gradient, columns as rows, in the order in which they are visited."""

    def __init__(self, weight: F32, gram: F32, order: I64, linear: QuantizedLinear) -> None:
        self.gram = gram[np.ix_(order, order)]  # (in_features, in_features)
        self.group_of = order // linear.group_size
        self.delta = linear.scales.T.astype(np.float32)  # (n_groups, out_features)
        self.z = linear.zero_point.T.astype(np.float32)  # (n_groups, out_features)
        self.qmax = float(linear.spec.qmax)
        self.codes = linear.int_weight[:, order].T.astype(np.float32)  # (in_features, out_features)
        self.rounded = dequantize_linear(linear)[:, order].T.copy()  # (in_features, out_features)
        self.gradient = self.gram @ (
            self.rounded - weight[:, order].T
        )  # (in_features, out_features), half of it

    def move(self, column: int) -> F32:
        """Move one column's codes to their best values; return the change of its weights."""
        delta, z = self.delta[self.group_of[column]], self.z[self.group_of[column]]
        wanted = self.rounded[column] - self.gradient[column] / self.gram[column, column]
        codes = np.clip(np.rint(wanted / delta) + z, 0.0, self.qmax)
        change: F32 = (codes - z) * delta - self.rounded[column]
        self.codes[column] = codes
        self.rounded[column] += change
        return change

    def sweep(self) -> None:
        """Visit every column once, in blocks: the gradient inside a block follows at once, outside it at its end."""
        in_features = len(self.gram)
        for start in range(0, in_features, BLOCK_COLUMNS):
            block = slice(start, min(start + BLOCK_COLUMNS, in_features))
            changes = np.zeros((block.stop - start, self.codes.shape[1]), dtype=np.float32)
            for place, column in enumerate(range(start, block.stop)):
                if self.gram[column, column] > 0.0:
                    changes[place] = self.move(column)
                    self.gradient[block] += self.gram[block, column, None] * changes[place]
            for others in (slice(0, start), slice(block.stop, in_features)):
                self.gradient[others] += self.gram[others, block] @ changes


def descend_codes(weight: F32, gram: F32, order: I64, linear: QuantizedLinear, *, passes: int = 1) -> U8:
    """Return codes with at most the loss of the layer's own, on its grid.

    Equation [GPTQ-4]  q_i <- clip(round((w_hat_i - g_i / C_ii) / delta) + z, 0, qmax),   g = (w_hat - w) C
        w, w_hat  -> weight, what the codes stand for   (out_features, in_features), a column at a time
        C         -> gram                               (in_features, in_features)
        q         -> int_weight                         (out_features, in_features)
    Source: docs/equations.md#gptq-4.

    Parameters
    ----------
    weight : float32 array, shape (out_features, in_features)
    gram : float32 array, shape (in_features, in_features)
        Symmetric; C or any multiple of it.
    order : int64 array, shape (in_features,)
        In which the columns are visited.
    linear : QuantizedLinear
        Where the descent starts.
    passes : int
        How often every column is visited.

    Returns
    -------
    int_weight : uint8 array, shape (out_features, in_features)

    Raises
    ------
    ShapeError, DtypeError, RangeError
        If the arrays do not fit each other.

    Notes
    -----
    The loss e C e^T is a parabola in each w_hat_i, so the nearest point of the grid to its vertex is its best one: no
    step can raise the loss but for float32 rounding of g. A channel that was never active (C_ii = 0) keeps its codes.
    """
    who = "descend_codes"
    require_between(who, "passes", passes, 0, 2**31)
    require_shape(who, "gram", gram, (len(order), len(order)))
    require_dtype(who, "gram", gram, np.float32)
    require_shape(who, "weight", weight, linear.int_weight.shape)
    state = _Descent(weight, gram, order, linear)
    for _ in range(passes):
        state.sweep()
    result = np.empty(weight.shape, dtype=np.uint8)
    result[:, order] = state.codes.T  # whole numbers: the cast is exact
    return result
