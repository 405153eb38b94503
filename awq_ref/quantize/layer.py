"""One layer to integers, in the way a `Rounding` says.

Evidence       what a layer's inputs tell: the Gram matrix and, for feedback, its factor
round_linear   weight -> QuantizedLinear
better_rows    of two roundings, row by row, the better one
"""

from dataclasses import dataclass, replace

import numpy as np

from awq_ref.dtypes import F32, F64
from awq_ref.errors import RangeError
from awq_ref.quantize.affine import dequantize_linear, quantize_linear
from awq_ref.quantize.descent import descend_codes
from awq_ref.quantize.gptq import FeedbackFactor, Grid, feedback_factor, round_with_feedback
from awq_ref.quantize.grid import choose_grid, grid_of_range
from awq_ref.quantize.ranges import search_ranges
from awq_ref.spec import QuantizedLinear, QuantSpec, Rounding


@dataclass(frozen=True)
class Evidence:
    """What a layer's inputs tell; layers that read one input share it.

    gram   : float32 (in_features, in_features), X^T X or its mean, of the inputs that the weight is to see
    factor : FeedbackFactor of it
    """

    gram: F32
    factor: FeedbackFactor

    @classmethod
    def of(cls, gram: F32, rounding: Rounding) -> "Evidence":
        """Return the evidence that a rounding with feedback needs; errors as `feedback_factor`."""
        return cls(gram, feedback_factor(gram, act_order=rounding.act_order, damping=rounding.damping))


def _fixed_grid(
    weight: F32, evidence: Evidence, spec: QuantSpec, rounding: Rounding, clip: F32 | None
) -> Grid | None:
    """Return the grid that is known before feedback starts, or None where it is chosen on the way."""
    if rounding.searched_ranges:
        return grid_of_range(*search_ranges(weight, evidence.factor.importance, spec=spec), spec=spec)
    if rounding.act_order or clip is not None:
        return choose_grid(weight, spec=spec, clip=clip)
    return None


def _row_losses(weight: F32, gram: F32, linear: QuantizedLinear) -> F64:
    """Return e C e^T of every row, up to the factor of the Gram matrix."""
    error = dequantize_linear(linear) - weight
    losses: F64 = np.einsum("ri,ri->r", error @ gram, error, dtype=np.float64)
    return losses


def better_rows(weight: F32, gram: F32, first: QuantizedLinear, second: QuantizedLinear) -> QuantizedLinear:
    """Return row by row, grid and all, the one of two roundings with the smaller loss; of equals the first.

    Parameters
    ----------
    weight : float32 array, shape (out_features, in_features)
        What was rounded.
    gram : float32 array, shape (in_features, in_features)
        Judges both: [AWQ-7].
    first, second : QuantizedLinear
        Of one spec.
    """
    take = (_row_losses(weight, gram, second) < _row_losses(weight, gram, first))[:, None]
    return replace(
        first,
        int_weight=np.where(take, second.int_weight, first.int_weight),
        scales=np.where(take, second.scales, first.scales),
        zero_point=np.where(take, second.zero_point, first.zero_point),
    )


def round_linear(
    weight: F32,
    *,
    spec: QuantSpec,
    rounding: Rounding,
    evidence: Evidence | None = None,
    clip: F32 | None = None,
    bias: F32 | None = None,
    original: F32 | None = None,
) -> QuantizedLinear:
    """Return a linear layer as integers.

    Parameters
    ----------
    weight : float32 array, shape (out_features, in_features)
        After its channel scales are folded in.
    spec : QuantSpec
    rounding : Rounding
    evidence : Evidence
        Needed for feedback.
    clip : float32 array, shape (out_features, n_groups), or None
        Largest magnitude that a group's grid reaches.
    bias : float32 array, shape (out_features,), or None
        Kept as it is.
    original : float32 array, shape (out_features, in_features), or None
        Where weight is a `moved_weight`: what it was. The guard compares with rounding this to nearest.

    Returns
    -------
    linear : QuantizedLinear

    Raises
    ------
    RangeError
        If feedback is asked for without evidence, or a value is not finite.
    ShapeError, DtypeError
        If the arrays do not fit.
    """
    if not rounding.feeds_back:
        return quantize_linear(weight, spec=spec, clip=clip, bias=bias)
    if evidence is None:
        raise RangeError("round_linear: evidence must be given for a rounding with feedback; got none.")
    grid = _fixed_grid(weight, evidence, spec, rounding, clip)
    linear = QuantizedLinear(*round_with_feedback(weight, evidence.factor, spec=spec, grid=grid), spec, bias)
    if rounding.guard:
        nearest = quantize_linear(weight if original is None else original, spec=spec, bias=bias)
        linear = better_rows(weight, evidence.gram, linear, nearest)
    if rounding.descent:
        codes = descend_codes(weight, evidence.gram, evidence.factor.order, linear, passes=rounding.descent)
        linear = replace(linear, int_weight=codes)
    return linear
