"""The meaning of a quantized product, in two readable forms.

    matmul_reference         dequantize, then multiply: what every other form must mean
    packed_matmul_reference  the factored product straight from the planes: AND, shift, multiply

Source: docs/equations.md#awq-10 (with the forward-error bound); Lin et al. 2023, arXiv:2306.00978, section 4.
"""

from typing import Any

import numpy as np

from awq_ref.checks import require_dtype, require_shape
from awq_ref.dtypes import F16, F32, U8, AnyFloat
from awq_ref.matmul.planes import FIELDS, split_activations
from awq_ref.quantize.affine import dequantize_linear
from awq_ref.spec import QuantizedLinear


def matmul_reference(x: F32, linear: QuantizedLinear, *, dtype: Any = np.float32) -> AnyFloat:
    """Dequantize the weight [AWQ-4], then multiply: y = x W^T + b.

    Parameters
    ----------
    x : float32 array, shape (..., in_features)
    linear : QuantizedLinear
    dtype : float32 or float64
        What the product is computed in. The dequantized weight is the same float32 numbers in both.

    Returns
    -------
    y : array of that dtype, shape (..., out_features)

    Raises
    ------
    DtypeError
        If x is not float32.
    ShapeError
        If x has another number of features.
    """
    require_dtype("matmul_reference", "x", x, np.float32)
    require_shape("matmul_reference", "x", x, (*x.shape[:-1], linear.in_features))
    weight = dequantize_linear(linear)
    y: AnyFloat = x.astype(dtype) @ weight.astype(dtype).T  # (..., out_features)
    return y if linear.bias is None else np.add(y, linear.bias, dtype=dtype)


def packed_matmul_reference(
    x: F32,
    planes: tuple[U8, ...],
    scales: F16 | F32,
    zero_point: U8,
    bits: int,
    offset: F16 | F32 | None = None,
) -> F32:
    """Multiply by packed weights with scales and zero points outside of the inner sum.

    Equation [AWQ-10]  y_i = sum_g s_ig * ( sum_j q_ij x_j  -  z_ig * sum_j x_j )  +  o_ig * sum_j x_j,
                             j running over group g
        q -> planes      fields of bytes; a code is the sum of its fields, each at its place
        s -> scales      (out_features, n_groups)
        z -> zero_point  (out_features, n_groups)
        o -> offset      (out_features, n_groups), 0 if there is none
    Source: docs/equations.md#awq-10.

    The weights are never put back in order: each field is cut out with an AND and a shift, and the
    activations are reordered to meet it, once for all rows.

    Parameters
    ----------
    x : float32 array, shape (tokens, in_features)
    planes : tuple of uint8 arrays, shapes (out_features, in_features * field_bits / 8)
        As made by pack_planes.
    scales : float16 or float32 array, shape (out_features, n_groups)
    zero_point : uint8 array, shape (out_features, n_groups)
    bits : int
        2, 3, 4 or 8.
    offset : float16 or float32 array, shape (out_features, n_groups), or None

    Returns
    -------
    y : float32 array, shape (tokens, out_features)

    Raises
    ------
    DtypeError
        If x is not float32.
    ShapeError
        If x is not 2-D.
    """
    # T tokens, O out_features, G groups, n bytes of a plane per group
    require_dtype("packed_matmul_reference", "x", x, np.float32)
    require_shape("packed_matmul_reference", "x", x, (None, None))
    n_tokens, (out_features, n_groups) = len(x), scales.shape
    dots = np.zeros((n_tokens, out_features, n_groups), dtype=np.float32)  # (T, O, G)
    for plane, (field_bits, place) in zip(planes, FIELDS[bits], strict=True):
        plane = plane.reshape(out_features, n_groups, -1)  # (O, G, n)
        for k, x_k in enumerate(split_activations(x, field_bits)):
            fields = (plane >> (field_bits * k)) & (2**field_bits - 1)  # the shift and the AND
            values = (fields << place).astype(np.float32)
            dots += np.einsum("ogn,gnt->tog", values, x_k.reshape(n_groups, -1, n_tokens))
    x_sums = x.reshape(n_tokens, 1, n_groups, -1).sum(axis=-1)  # (T, 1, G)
    terms = scales.astype(np.float32) * (dots - zero_point * x_sums)  # (T, O, G)
    if offset is not None:
        terms += offset * x_sums
    y: F32 = terms.sum(axis=-1)  # (T, O)
    return y
