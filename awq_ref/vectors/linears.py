"""Linears for cases: drawn at random with what goes wrong in them, and as a request's arrays.

draw_linear     a random linear
linear_inputs   Linear -> the arrays of a request
tensor_inputs   tensors of a layout -> the arrays of a request
layout_params   the parameters that name a layout and its sizes
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from awq_ref.dtypes import AnyArray
from awq_ref.vectors.draws import Codes, Draws, Table, to_float16, to_float32
from awq_ref.vectors.oracle_bits import Linear, Tensors


@dataclass(frozen=True)
class Shape:
    """What a linear of a case looks like; `offset`: floats instead of zero points; `index`: groups of any columns;
    `signs`: every second scale is negative.
    """

    outputs: int
    inputs: int
    bits: int = 4
    group_size: int = 32
    symmetric: bool = False
    scale_dtype: str = "float16"
    offset: bool = False
    index: bool = False
    signs: bool = False

    @property
    def groups(self) -> int:
        group = self.inputs if self.group_size == -1 else self.group_size
        return (self.inputs + group - 1) // group


def _zeros(draws: Draws, shape: Shape) -> Codes:
    """Return zero points: all values of the width, with 0 in the first output and qmax in the second."""
    middle, qmax = 2 ** (shape.bits - 1), 2**shape.bits - 1
    if shape.symmetric:
        return [[middle] * shape.groups for _ in range(shape.outputs)]
    zeros = draws.codes(shape.outputs, shape.groups, shape.bits)
    zeros[0] = [0] * shape.groups
    if shape.outputs > 1:
        zeros[1] = [qmax] * shape.groups
    return zeros


def _scales(draws: Draws, shape: Shape) -> Table:
    """Return scales of which the last group's are eight times as large as the others'."""
    rounded = {"float16": to_float16, "float32": to_float32}[shape.scale_dtype]
    rows = draws.scales(shape.outputs, shape.groups)
    if shape.scale_dtype == "float32":
        rows = [[rounded(s * 1.0001) for s in row] for row in rows]
    rows = [[s * 8 if g == shape.groups - 1 and g else s for g, s in enumerate(row)] for row in rows]
    if shape.signs:
        rows = [[-s if (o + g) % 2 else s for g, s in enumerate(row)] for o, row in enumerate(rows)]
    return rows


def _index(draws: Draws, shape: Shape) -> list[int]:
    """Return the group of every input: as many of each group as without an index, in random order."""
    index = [i // shape.group_size for i in range(shape.inputs)]
    for last in range(shape.inputs - 1, 0, -1):
        other = draws.below(last + 1)
        index[last], index[other] = index[other], index[last]
    return index


def draw_linear(draws: Draws, shape: Shape) -> Linear:
    """Return a random linear of a shape."""
    codes = draws.codes(shape.outputs, shape.inputs, shape.bits)
    scales = _scales(draws, shape)
    index = _index(draws, shape) if shape.index else None
    zeros, offsets = (None, None) if shape.offset else (_zeros(draws, shape), None)
    if shape.offset:
        rounded = {"float16": to_float16, "float32": to_float32}[shape.scale_dtype]
        offsets = [[rounded(-s * 8.3 * (1 + draws.below(8) / 16)) for s in row] for row in scales]
    return Linear(
        codes, scales, zeros, offsets, shape.bits, shape.group_size, shape.scale_dtype, index, shape.symmetric
    )


def linear_inputs(linear: Linear) -> dict[str, AnyArray]:
    """Return int_weight, scales, zero_point or offset, and g_idx if there is one."""
    arrays: dict[str, AnyArray] = {
        "int_weight": np.array(linear.codes, dtype=np.uint8),
        "scales": np.array(linear.scales, dtype=linear.scale_dtype),
    }
    if linear.zeros is not None:
        arrays["zero_point"] = np.array(linear.zeros, dtype=np.uint8)
    if linear.offsets is not None:
        arrays["offset"] = np.array(linear.offsets, dtype=linear.scale_dtype)
    if linear.index is not None:
        arrays["g_idx"] = np.array(linear.index, dtype=np.int32)
    return arrays


def tensor_inputs(tensors: Tensors) -> dict[str, AnyArray]:
    """Return a layout's tensors as arrays."""
    return {name: np.array(rows, dtype=dtype) for name, (dtype, rows) in tensors.items()}


def layout_params(layout: str, linear: Linear) -> dict[str, Any]:
    """Return the parameters of pack, unpack and what else takes a layout."""
    return {
        "layout": layout,
        "bits": linear.bits,
        "group_size": linear.group_size,
        "symmetric": linear.symmetric,
        "out_features": linear.outputs,
        "in_features": linear.inputs,
    }
