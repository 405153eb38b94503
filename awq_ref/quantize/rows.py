"""Rows of quantized linears: taken apart and put together, where a checkpoint keeps several linears in one tensor.

take_rows   some outputs of a quantized linear
join_rows   linears that read one input, one below the other

Every group lies in one row, so both only move integers.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from awq_ref.dtypes import I64
from awq_ref.errors import ShapeError, UnsupportedError
from awq_ref.spec import QuantizedLinear


def take_rows(linear: QuantizedLinear, rows: slice | I64) -> QuantizedLinear:
    """Return the linear that computes some of the outputs, in this order: of a slice views, no copies.

    Parameters
    ----------
    linear : QuantizedLinear
    rows : slice, or int64 array, shape (n_rows,)
        Of the outputs.
    """
    return replace(
        linear,
        int_weight=linear.int_weight[rows],
        scales=linear.scales[rows],
        zero_point=linear.zero_point[rows],
        bias=None if linear.bias is None else linear.bias[rows],
        offset=None if linear.offset is None else linear.offset[rows],
    )


def join_rows(linears: Sequence[QuantizedLinear]) -> QuantizedLinear:
    """Return the linear that computes the outputs of all, in this order; of one linear itself, and without biases.

    Raises ShapeError if they do not have the same in_features and spec, UnsupportedError if one has what only files of
    others have: an offset or an order of its inputs.
    """
    first = linears[0]
    if len(linears) == 1:
        return first
    if any(linear.offset is not None or linear.input_order is not None for linear in linears):
        raise UnsupportedError("join_rows: linears must have zero points, and their inputs in order.")
    if any((linear.in_features, linear.spec) != (first.in_features, first.spec) for linear in linears):
        sizes = ", ".join(f"{linear.in_features} ({linear.spec})" for linear in linears)
        raise ShapeError(f"join_rows: linears must have the same in_features and spec; got {sizes}.")
    return QuantizedLinear(
        np.concatenate([linear.int_weight for linear in linears]),
        np.concatenate([linear.scales for linear in linears]),
        np.concatenate([linear.zero_point for linear in linears]),
        first.spec,
    )
