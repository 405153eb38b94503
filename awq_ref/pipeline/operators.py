"""Stored linears become the operators of a block that runs.

operator_of         one linear
block_operators     those of a block; linears that read one input become parts of one
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from awq_ref.dtypes import F32
from awq_ref.matmul import DenseLinear, Residency, to_operator
from awq_ref.model import parts_of
from awq_ref.quantize import dequantize_linear
from awq_ref.quantize.rows import join_rows
from awq_ref.spec import LinearOperator, QuantizedLinear

Stored = QuantizedLinear | DenseLinear


def operator_of(linear: Stored, residency: Residency) -> LinearOperator:
    """Return the operator that multiplies by a linear; floats stay floats."""
    return linear if isinstance(linear, DenseLinear) else to_operator(linear, residency)


def _dense(linear: Stored) -> DenseLinear:
    return linear if isinstance(linear, DenseLinear) else DenseLinear(dequantize_linear(linear), linear.bias)


def _joined(linears: Sequence[Stored]) -> Stored | None:
    """Return one linear with the rows of all, or None where their integers do not share a grid."""
    biases = [linear.bias for linear in linears if linear.bias is not None]
    if len(biases) not in (0, len(linears)):
        return None
    bias: F32 | None = np.concatenate(biases) if biases else None
    dense = [linear for linear in linears if isinstance(linear, DenseLinear)]
    if len(dense) == len(linears):
        return DenseLinear(np.concatenate([linear.weight for linear in dense]), bias)
    integers = [linear for linear in linears if isinstance(linear, QuantizedLinear)]
    specs = {linear.spec for linear in integers}
    others = any(linear.offset is not None or linear.input_order is not None for linear in integers)
    if dense or others or len(specs) > 1:
        return None
    return replace(join_rows([replace(linear, bias=None) for linear in integers]), bias=bias)


def block_operators(
    linears: Mapping[str, Stored], together: Sequence[Sequence[str]], residency: Residency
) -> dict[str, LinearOperator]:
    """Return the operators of a block by name, in the order of `linears`.

    Parameters
    ----------
    linears : mapping from name to QuantizedLinear or DenseLinear
    together : sequence of sequences of names
        Linears that read one input: each becomes a part of one operator, unless some are floats and others integers, or
        their specs differ, or one has what only files of others have (an offset, an order of its inputs). Dense ones
        always do.
    residency : "packed", "codes" or "dense"
    """
    if residency == "dense":  # floats by now: whatever they were, they go together
        linears = {name: _dense(linear) for name, linear in linears.items()}
    parts: dict[str, LinearOperator] = {}
    for names in together:
        whole = _joined([linears[name] for name in names])
        if whole is not None:
            sizes = [linears[name].out_features for name in names]
            parts |= zip(names, parts_of(operator_of(whole, residency), sizes), strict=True)
    return {name: parts.get(name) or operator_of(linear, residency) for name, linear in linears.items()}
