"""Floats in place of zero points, for the layouts that store what is added to code * scale.

offset_of   the offset of a linear: its own, or -(scales * zero_point) rounded once to the scales' dtype
"""

import numpy as np

from awq_ref.dtypes import AnyFloat
from awq_ref.errors import RangeError
from awq_ref.spec import QuantizedLinear


def offset_of(linear: QuantizedLinear) -> AnyFloat:
    """Return what is added to int_weight * scales, (out_features, n_groups) in the dtype of the scales.

    Raises
    ------
    RangeError
        If a product is too large for that dtype.

    Examples
    --------
    >>> from awq_ref.spec import QuantSpec
    >>> codes, scales = np.zeros((1, 2), dtype=np.uint8), np.array([[0.1]], dtype=np.float16)
    >>> zero_point = np.array([[7]], dtype=np.uint8)
    >>> offset_of(QuantizedLinear(codes, scales, zero_point, QuantSpec(group_size=2)))
    array([[-0.6997]], dtype=float16)
    """
    if linear.offset is not None:
        return linear.offset
    product = -(linear.scales.astype(np.float32) * linear.zero_point.astype(np.float32))
    with np.errstate(over="ignore"):  # looked for below, and named
        offset: AnyFloat = product.astype(linear.scales.dtype)
    bad = np.argwhere(~np.isfinite(offset))
    if len(bad):
        row, group = (int(i) for i in bad[0])
        raise RangeError(
            f"offset_of: scale times zero point must fit into {offset.dtype}; got {product[row, group]} in row {row}, "
            f"group {group}. Take a layout that stores zero points as integers."
        )
    return offset
