"""The weight to round to when a layer's input has moved: it makes of that what the old weight made of the old one.

moved_weight    weight, and how its input has moved -> the weight that answers the move
"""

import numpy as np

from awq_ref.checks import require_dtype, require_shape
from awq_ref.dtypes import F32
from awq_ref.quantize.gptq import FeedbackFactor


def moved_weight(weight: F32, factor: FeedbackFactor, drift: F32, stream: F32 | None = None) -> F32:
    """Return the weight whose outputs on the quantized model's inputs are nearest to what is wanted.

    Equation [GPTQ-6]  W* = W + (W D + B) (C + lambda I)^-1,
                       the V with the least || Y V^T - X W^T - E ||^2 + lambda || V - W ||^2
        W       -> weight     (out_features, in_features)
        D       -> drift      (in_features, in_features), sum or mean of (x - y) y^T
        B       -> stream     (out_features, in_features), of e y^T; None: 0
        C       -> the Gram matrix of y that factor is of, sum or mean as D and B are
    Source: docs/equations.md#gptq-6; without E: Li et al. 2025, arXiv:2504.02692, section 3 (asymmetric calibration).

    Parameters
    ----------
    weight : float32 array, shape (out_features, in_features)
    factor : FeedbackFactor
    drift : float32 array, shape (in_features, in_features)
    stream : float32 array, shape (out_features, in_features), or None

    Returns
    -------
    moved : float32 array, shape (out_features, in_features)

    Raises
    ------
    ShapeError, DtypeError
        If the arrays do not fit each other.

    Notes
    -----
    Numerics: float32. The columns of channels that were never active are those of W: there, D and B are 0.
    """
    who = "moved_weight"
    require_shape(who, "weight", weight, (None, factor.in_features))
    require_shape(who, "drift", drift, (factor.in_features, factor.in_features))
    require_dtype(who, "drift", drift, np.float32)
    wanted = weight @ drift  # (out_features, in_features)
    if stream is not None:
        require_shape(who, "stream", stream, weight.shape)
        wanted += stream
    change = np.empty_like(weight)
    change[:, factor.order] = wanted[:, factor.order] @ factor.upper.T @ factor.upper
    return weight + change
