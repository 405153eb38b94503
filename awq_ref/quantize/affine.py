"""Weights to integers and back: the meaning of quantization, written as its equations.

    quantize            weight and grid -> codes
    dequantize          codes and grid -> weight
    quantize_linear     weight -> a QuantizedLinear, grid chosen on the way
    dequantize_linear   a QuantizedLinear -> weight

Integers are computed here, once; packing moves them and matmul reads them. The fast float round trip of the
search is `awq_ref.quantize.pseudo`.
Sources: Lin et al. 2023, arXiv:2306.00978, section 3.
"""

from collections.abc import Iterator

import numpy as np

from awq_ref.checks import require_dtype, require_finite, require_shape
from awq_ref.dtypes import F16, F32, U8, AnyArray
from awq_ref.errors import ShapeError
from awq_ref.quantize.grid import check_grid, checked_group_size, choose_grid
from awq_ref.spec import QuantizedLinear, QuantSpec

# Weights per tile: 512 KiB of float32, so that the passes over a tile find it in a core's cache.
TILE_WEIGHTS = 2**17


def row_tiles(out_features: int, in_features: int) -> Iterator[slice]:
    """Yield slices of rows that hold about TILE_WEIGHTS weights each, at least one row."""
    rows = max(1, TILE_WEIGHTS // max(1, in_features))
    for start in range(0, out_features, rows):
        yield slice(start, min(start + rows, out_features))


def split_groups(array: AnyArray, n_groups: int) -> AnyArray:
    """View (rows, in_features) as (rows, n_groups, group_size)."""
    return array.reshape(array.shape[0], n_groups, array.shape[1] // n_groups)


def quantize(weight: F32, scales: F16 | F32, zero_point: U8, *, spec: QuantSpec) -> U8:
    """Return the code of every weight on a given grid.

    Equation [AWQ-3]  q = clip(round(w / delta) + z, 0, 2**bits - 1)
        w      -> weight        (out_features, in_features)
        delta  -> scales        (out_features, n_groups)
        z      -> zero_point    (out_features, n_groups)
        q      -> int_weight    (out_features, in_features)
    Source: Lin et al. 2023, arXiv:2306.00978, section 3; docs/equations.md#awq-3.

    Parameters
    ----------
    weight : float32 array, shape (out_features, in_features)
    scales : array of spec.scale_dtype, shape (out_features, n_groups), > 0
    zero_point : uint8 array, shape (out_features, n_groups), values in [0, 2**bits - 1]
    spec : QuantSpec

    Returns
    -------
    int_weight : uint8 array, shape (out_features, in_features), values in [0, 2**bits - 1]

    Raises
    ------
    DtypeError
        If weight is not float32, scales are not spec.scale_dtype, or zero_point is not uint8.
    ShapeError
        If weight is not 2-D or is empty, group_size does not divide in_features, or the grid does not fit.
    RangeError
        If weight or scales hold a NaN or an infinity, a scale is not positive, or a zero point is too large.

    Notes
    -----
    Numerics: quotient in float32 by the stored scale; ties to even; z is added after rounding, so 0 has the
    code z. A weight beyond the grid takes the code of the grid's end.
    Differs from: AutoAWQ computes codes a second time when it packs (docs/decisions.md#one-rounding).

    Examples
    --------
    >>> import numpy as np
    >>> from awq_ref.spec import QuantSpec
    >>> weight = np.array([[-1.0, -0.5, 0.25, 0.875]], dtype=np.float32)
    >>> scales, zero_point = np.array([[0.125]], dtype=np.float16), np.array([[8]], dtype=np.uint8)
    >>> quantize(weight, scales, zero_point, spec=QuantSpec(bits=4, group_size=4)).tolist()
    [[0, 4, 10, 15]]
    """
    who = "quantize"
    group_size = checked_group_size(who, weight, spec)
    n_groups = weight.shape[1] // group_size
    require_finite(who, "weight", weight)
    check_grid(who, scales, zero_point, spec, (weight.shape[0], n_groups))
    delta = scales.astype(np.float32)[:, :, None]  # (out_features, n_groups, 1)
    z = zero_point.astype(np.float32)[:, :, None]  # (out_features, n_groups, 1)
    int_weight = np.empty(weight.shape, dtype=np.uint8)
    for rows in row_tiles(weight.shape[0], weight.shape[1]):
        with np.errstate(over="ignore"):  # a weight far beyond its grid: infinity, clipped to the grid's end
            codes = split_groups(weight[rows], n_groups) / delta[rows]  # (rows, n_groups, group_size)
        np.rint(codes, out=codes)
        codes += z[rows]
        np.clip(codes, 0.0, float(spec.qmax), out=codes)
        int_weight[rows] = codes.reshape(-1, weight.shape[1])  # whole numbers: the cast to uint8 is exact
    return int_weight


def dequantize(int_weight: U8, scales: F16 | F32, zero_point: U8, offset: F16 | F32 | None = None) -> F32:
    """Return the weight that codes stand for.

    Equation [AWQ-4]  w_hat = (q - z) * delta + o
        q      -> int_weight    (out_features, in_features)
        z      -> zero_point    (out_features, n_groups)
        delta  -> scales        (out_features, n_groups)
        o      -> offset        (out_features, n_groups), 0 if there is none
    Source: Lin et al. 2023, arXiv:2306.00978, section 3; docs/equations.md#awq-4.

    Parameters
    ----------
    int_weight : uint8 array, shape (out_features, in_features)
    scales : float16 or float32 array, shape (out_features, n_groups)
    zero_point : uint8 array, shape (out_features, n_groups)
    offset : float16 or float32 array, shape (out_features, n_groups), or None

    Returns
    -------
    weight : float32 array, shape (out_features, in_features)

    Raises
    ------
    DtypeError
        If codes or zero points are not uint8, or scales or offset neither float16 nor float32.
    ShapeError
        If an array is not 2-D, the grid's arrays differ in shape, or n_groups does not divide in_features.

    Notes
    -----
    Numerics: the difference is exact, the product is rounded once to float32. With a float16 scale even the
    product is exact: 8 bits times 11 fit into 24. A code equal to the zero point gives +0.0. An offset is
    added to the rounded product, and the sum rounded once more.

    Examples
    --------
    >>> import numpy as np
    >>> codes, z = np.array([[0, 4, 10, 15]], dtype=np.uint8), np.array([[8]], dtype=np.uint8)
    >>> dequantize(codes, np.array([[0.125]], dtype=np.float16), z).tolist()
    [[-1.0, -0.5, 0.25, 0.875]]
    """
    who = "dequantize"
    require_shape(who, "int_weight", int_weight, (None, None))
    require_dtype(who, "int_weight", int_weight, np.uint8)
    require_dtype(who, "zero_point", zero_point, np.uint8)
    require_dtype(who, "scales", scales, np.float16, np.float32)
    require_shape(who, "scales", scales, (int_weight.shape[0], None))
    require_shape(who, "zero_point", zero_point, scales.shape)
    if offset is not None:
        require_shape(who, "offset", offset, scales.shape)
        require_dtype(who, "offset", offset, np.float16, np.float32)
    n_groups = scales.shape[1]
    if n_groups == 0 or int_weight.shape[1] % n_groups:
        raise ShapeError(
            f"{who}: the number of groups must divide in_features; got {n_groups} columns of scales for "
            f"{int_weight.shape[1]} columns of int_weight. Check the group size."
        )
    delta = scales.astype(np.float32)[:, :, None]  # (out_features, n_groups, 1)
    z = zero_point.astype(np.float32)[:, :, None]  # (out_features, n_groups, 1)
    weight = np.empty(int_weight.shape, dtype=np.float32)
    for rows in row_tiles(int_weight.shape[0], int_weight.shape[1]):
        tile = split_groups(weight[rows], n_groups)  # (rows, n_groups, group_size), a view
        np.copyto(tile, split_groups(int_weight[rows], n_groups))
        tile -= z[rows]
        tile *= delta[rows]
        if offset is not None:
            tile += offset[rows, :, None]
    return weight


def quantize_linear(
    weight: F32, *, spec: QuantSpec, clip: F32 | None = None, bias: F32 | None = None
) -> QuantizedLinear:
    """Return a linear layer as integers, on the grid that its own weights choose.

    Equations [AWQ-1], [AWQ-2], [AWQ-3]; with a clip c every weight is first clamped to [-c, c].

    Parameters
    ----------
    weight : float32 array, shape (out_features, in_features)
    spec : QuantSpec
    clip : float32 array, shape (out_features, n_groups), or None
        Largest magnitude kept in each group; infinity keeps all.
    bias : float32 array, shape (out_features,), or None
        Kept as it is.

    Returns
    -------
    linear : QuantizedLinear

    Raises
    ------
    DtypeError, ShapeError, RangeError
        As `choose_grid` and `quantize`; errors about a value name its row and group.
    """
    who = "quantize_linear"
    scales, zero_point = choose_grid(weight, spec=spec, clip=clip, who=who)
    if clip is not None:
        grouped, limit = (
            split_groups(weight, clip.shape[1]),
            clip[:, :, None],
        )  # (out_features, n_groups, group_size)
        weight = np.minimum(np.maximum(grouped, -limit), limit).reshape(weight.shape)
    return QuantizedLinear(quantize(weight, scales, zero_point, spec=spec), scales, zero_point, spec, bias)


def dequantize_linear(linear: QuantizedLinear) -> F32:
    """Return a quantized linear's weight, float32 (out_features, in_features): `dequantize` of its fields.

    Its columns are in the order of the inputs, whatever the order in which the integers lie.
    """
    weight = dequantize(linear.int_weight, linear.scales, linear.zero_point, linear.offset)
    if linear.input_order is None:
        return weight
    ordered = np.empty_like(weight)
    ordered[:, linear.input_order] = weight
    return ordered
