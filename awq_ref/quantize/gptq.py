"""GPTQ: rounding with error feedback. What rounding one weight breaks, the weights after it mend.

    FeedbackFactor        the order of the columns, and how much each later column takes over
    feedback_factor       Gram matrix -> FeedbackFactor, with a damping that grows until the factor exists
    round_with_feedback   weight -> codes, on a given grid or on grids chosen on the way

Work goes column by column; rows do not see each other. Columns are held as contiguous rows here.
Source: Frantar et al. 2022, arXiv:2210.17323, algorithm 1; docs/equations.md#gptq-1.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from awq_ref.checks import require_between, require_dtype, require_finite, require_shape
from awq_ref.dtypes import F16, F32, F64, I64, U8
from awq_ref.errors import RangeError
from awq_ref.quantize.grid import check_grid, checked_group_size, choose_grid
from awq_ref.spec import QuantSpec

BLOCK_COLUMNS = 128  # columns between two updates of all later ones
DAMPING_STEPS = (1.0, 10.0, 100.0)  # the damping is multiplied by these until the matrix is positive definite

Grid = tuple[F16 | F32, U8]


@dataclass(frozen=True)
class FeedbackFactor:
    """The upper factor of the inverse Gram matrix, for columns in a certain order [GPTQ-1].

    order   : int64 (in_features,), the columns in the order in which they are rounded
    upper   : float32 (in_features, in_features), U with rows and columns in that order
    damping : lambda as a share of the mean of C's diagonal, as it was needed
    """

    order: I64
    upper: F32
    damping: float

    @property
    def in_features(self) -> int:
        return len(self.order)

    @property
    def importance(self) -> F32:
        """What a squared error in a column costs when all later columns have answered it, 1 / U_ii^2.

        float32 (in_features,), in the layer's own order of columns.
        """
        importance = np.empty(self.in_features, dtype=np.float32)
        importance[self.order] = 1.0 / self.upper.diagonal() ** 2
        return importance


def _inverse_upper(matrix: F64) -> F64:
    """Return upper U with U^T U = matrix^-1: where matrix = R R^T with upper R, it is R^-1."""
    lower = np.linalg.cholesky(matrix[::-1, ::-1])
    inverse: F64 = np.triu(np.linalg.inv(lower[::-1, ::-1]))
    return inverse


def feedback_factor(gram: F32, *, act_order: bool = False, damping: float = 0.01) -> FeedbackFactor:
    """Return how the error of each column is spread over the columns that come after it.

    Equation [GPTQ-1]  (C + lambda I)^-1 = U^T U,  U upper,  lambda = damping * mean_i C_ii
        C  -> gram     (in_features, in_features)
        U  -> upper    (in_features, in_features)
    Source: Frantar et al. 2022, arXiv:2210.17323, step 3; docs/equations.md#gptq-1.

    Parameters
    ----------
    gram : float32 array, shape (in_features, in_features)
        X^T X or its mean: a factor changes nothing.
    act_order : bool
        Order the columns by falling C_ii (of equal ones the first first); else keep their order.
    damping : float in [0, 1]

    Returns
    -------
    factor : FeedbackFactor

    Raises
    ------
    ShapeError, DtypeError
        If gram is not a square float32 matrix.
    RangeError
        If its diagonal is not finite, or no damping up to 100 times the asked one makes it positive definite.

    Notes
    -----
    Numerics: Cholesky factor and triangular inverse in float64 (three such matrices at a time), U rounded to float32.
    A channel that was never active has C_ii = 0; it stands apart (its diagonal becomes the mean), so it is rounded
    to nearest. Differs from: the published code, which sets the weights of such a channel to 0.

    Examples
    --------
    >>> gram = np.array([[1.0, 0.5], [0.5, 1.0]], dtype=np.float32)
    >>> feedback_factor(gram, damping=0.0).upper.astype(np.float64).round(4).tolist()
    [[1.1547, -0.5774], [0.0, 1.0]]
    """
    who = "feedback_factor"
    require_shape(who, "gram", gram, (len(gram), len(gram)))
    require_dtype(who, "gram", gram, np.float32)
    require_between(who, "damping", damping, 0.0, 1.0)
    require_finite(who, "the diagonal of gram", gram.diagonal())
    order = np.arange(len(gram), dtype=np.int64)
    if act_order:
        order = np.argsort(-gram.diagonal(), kind="stable").astype(np.int64)
    matrix = gram[np.ix_(order, order)].astype(np.float64)
    diagonal = matrix.diagonal().copy()
    mean = float(diagonal.mean())
    live = np.where(diagonal == 0.0, mean or 1.0, diagonal)
    for step in DAMPING_STEPS:
        np.fill_diagonal(matrix, live + step * damping * mean)
        try:
            upper = _inverse_upper(matrix)
        except np.linalg.LinAlgError:
            continue
        if np.isfinite(upper).all() and (upper.diagonal() > 0.0).all():
            return FeedbackFactor(order, upper.astype(np.float32), step * damping)
    raise RangeError(
        f"{who}: the Gram matrix must become positive definite with {damping:g} to {DAMPING_STEPS[-1] * damping:g} "
        "of its mean diagonal added; it does not. Calibrate on more tokens, or round to nearest."
    )


def _blocks(in_features: int, group_size: int) -> Iterator[slice]:
    """Yield blocks of columns: whole groups, or parts of one. So each group is up to date where it starts."""
    span = group_size * max(1, BLOCK_COLUMNS // group_size)
    for first in range(0, in_features, span):
        end = min(first + span, in_features)
        for start in range(first, end, BLOCK_COLUMNS):
            yield slice(start, min(start + BLOCK_COLUMNS, end))


class _Columns:
    """A weight on its way to integers: columns as rows, in the order of the factor."""

    def __init__(self, weight: F32, factor: FeedbackFactor, spec: QuantSpec, grid: Grid | None) -> None:
        group_size = checked_group_size("round_with_feedback", weight, spec)
        shape = (weight.shape[1] // group_size, len(weight))  # (n_groups, out_features)
        self.spec, self.upper, self.group_size = spec, factor.upper, group_size
        self.rest = np.ascontiguousarray(weight[:, factor.order].T)  # (in_features, out_features)
        self.codes = np.empty(self.rest.shape, dtype=np.uint8)
        self.group_of = factor.order // group_size  # (in_features,)
        self.on_the_way = grid is None
        self.scales = np.empty(shape, dtype=spec.scale_dtype) if grid is None else grid[0].T.copy()
        self.zero_point = np.empty(shape, dtype=np.uint8) if grid is None else grid[1].T.copy()

    def open_group(self, column: int) -> None:
        """Choose the grid of the group that starts at a column, from what its weights have become."""
        group = np.ascontiguousarray(
            self.rest[column : column + self.group_size].T
        )  # (out_features, group_size)
        scales, zero_point = choose_grid(
            group, spec=replace(self.spec, group_size=-1), who="round_with_feedback"
        )
        self.scales[self.group_of[column]], self.zero_point[self.group_of[column]] = (
            scales[:, 0],
            zero_point[:, 0],
        )

    def round(self, column: int) -> F32:
        """Round one column; return the error that the later ones must answer, (w - w_hat) / U_ii."""
        group = self.group_of[column]
        delta, z = self.scales[group].astype(np.float32), self.zero_point[group].astype(np.float32)
        codes = self.rest[column] / delta  # (out_features,)
        np.rint(codes, out=codes)
        codes += z
        np.clip(codes, 0.0, float(self.spec.qmax), out=codes)
        self.codes[column] = codes  # whole numbers: the cast is exact
        error: F32 = self.rest[column] - (codes - z) * delta
        error /= self.upper[column, column]
        return error

    def run_block(self, block: slice) -> None:
        """Round a block's columns one after the other, then let all later columns answer the block's errors."""
        errors = np.empty((block.stop - block.start, self.rest.shape[1]), dtype=np.float32)
        for place, column in enumerate(range(block.start, block.stop)):
            if self.on_the_way and column % self.group_size == 0:
                self.open_group(column)
            errors[place] = self.round(column)
            later = slice(column + 1, block.stop)
            self.rest[later] -= self.upper[column, later, None] * errors[place]
        self.rest[block.stop :] -= self.upper[block, block.stop :].T @ errors


def round_with_feedback(
    weight: F32, factor: FeedbackFactor, *, spec: QuantSpec, grid: Grid | None = None
) -> tuple[U8, F16 | F32, U8]:
    """Return the codes of a weight, each column's rounding error answered by the columns after it.

    Equation [GPTQ-2]  for i in order:  q_i = clip(round(w_i / delta) + z, 0, qmax),  w_hat_i = (q_i - z) delta
                                        w_j <- w_j - U_ij (w_i - w_hat_i) / U_ii      for all j after i
        w          -> weight               (out_features, in_features), a column w_i at a time
        delta, z   -> scales, zero_point   (out_features, n_groups)
        U          -> factor.upper         (in_features, in_features)
        q          -> int_weight           (out_features, in_features)
    Source: Frantar et al. 2022, arXiv:2210.17323, algorithm 1; docs/equations.md#gptq-2.

    Parameters
    ----------
    weight : float32 array, shape (out_features, in_features)
    factor : FeedbackFactor
    spec : QuantSpec
    grid : (scales, zero_point) or None
        As `choose_grid` gives it. None: each group's grid is chosen when its first column comes, from the weights as
        the columns before have changed them. That needs columns in their own order.

    Returns
    -------
    int_weight : uint8 array, shape (out_features, in_features)
    scales : array of spec.scale_dtype, shape (out_features, n_groups)
    zero_point : uint8 array, shape (out_features, n_groups)

    Raises
    ------
    ShapeError, DtypeError
        If weight, factor and grid do not fit each other.
    RangeError
        If grid is None and the factor reorders the columns, or a value is not finite.

    Notes
    -----
    Numerics: float32. Blocks of 128 columns answer their own errors at once and all later ones by one product, which
    is the same sum in another order. Integers keep the layer's own order of columns, whatever the factor's.
    Differs from: the published code with groups of less than a block, which chooses their grids from columns that
    the block has not updated yet (docs/decisions.md#gptq-groups).
    """
    who = "round_with_feedback"
    require_shape(who, "weight", weight, (None, factor.in_features))
    require_finite(who, "weight", weight)
    if grid is None and (np.diff(factor.order) < 0).any():
        raise RangeError(
            f"{who}: grid must be given when columns are reordered: a group's columns then come far apart."
        )
    if grid is not None:
        check_grid(who, *grid, spec, (len(weight), weight.shape[1] // checked_group_size(who, weight, spec)))
    columns = _Columns(weight, factor, spec, grid)
    for block in _blocks(factor.in_features, columns.group_size):
        columns.run_block(block)
    int_weight = np.empty(weight.shape, dtype=np.uint8)
    int_weight[:, factor.order] = columns.codes.T
    return int_weight, columns.scales.T.copy(), columns.zero_point.T.copy()
