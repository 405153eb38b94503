"""How many bytes weights and the key/value cache take, from shapes and a spec alone.

    bits_per_weight    codes, scales and zero points, per weight
    linear_parts       one linear in memory, by residency: codes, scales, zero points
    linear_bytes       their sum
    weight_bytes       all linears in memory, every residency
    cached_columns     columns of a text that the layers keep, with windows or without
    kv_cache_bytes     the key/value cache

What an operator really holds is its own `resident_bytes`; this room predicts it before anything is loaded.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from awq_ref.checks import require_between, require_group_size, require_one_of
from awq_ref.spec import QuantSpec

BITS_PER_BYTE = 8
FLOAT32_BYTES = 4
CODE_BYTES = 1  # residency "codes": one uint8 per weight
ZERO_POINT_BYTES = 1  # in memory: one uint8 per group; and o - delta z of [AWQ-10], one float32

RESIDENCIES = ("packed", "codes", "dense")


def bits_per_weight(spec: QuantSpec, in_features: int, *, zero_point_bits: int | None = None) -> float:
    """Return the bits that one weight takes on disk, its share of scale and zero point included.

    bits + (scale bits + zero point bits) / group size, e.g. 4 + (16 + 4) / 128 = 4.15625.

    Parameters
    ----------
    spec : QuantSpec
    in_features : int
        Of the linear; the group size when spec.group_size is -1.
    zero_point_bits : int, optional
        Bits of a stored zero point. Default: spec.bits, and 0 for a symmetric spec, whose zero points need
        not be stored (layout gemm stores them all the same: pass 4).

    Raises
    ------
    ShapeError
        If the group size does not divide in_features.

    Examples
    --------
    >>> bits_per_weight(QuantSpec(bits=4, group_size=128), 4096)
    4.15625
    """
    group_size = require_group_size("bits_per_weight", in_features, spec.group_size)
    if zero_point_bits is None:
        zero_point_bits = 0 if spec.symmetric else spec.bits
    scale_bits = np.dtype(spec.scale_dtype).itemsize * BITS_PER_BYTE
    return spec.bits + (scale_bits + zero_point_bits) / group_size


def linear_parts(
    out_features: int, in_features: int, *, spec: QuantSpec, residency: str, offset: bool = False
) -> dict[str, int]:
    """Return the bytes that one linear without bias keeps in memory, as codes, scales and zero_points.

    packed: bits per weight, and per group a float32 scale, a uint8 zero point and the float32 product of both; codes: a
    byte per weight instead; dense: float32 weights alone, counted as codes. The float32 offset that some layouts have
    for each group counts as a zero point.

    Raises
    ------
    RangeError
        If the residency is unknown.
    ShapeError
        If the group size does not divide in_features.

    Examples
    --------
    >>> linear_parts(8, 256, spec=QuantSpec(bits=4, group_size=128), residency="packed")
    {'codes': 1024, 'scales': 64, 'zero_points': 80}
    """
    require_one_of("linear_parts", "residency", residency, RESIDENCIES)
    n_weights = out_features * in_features
    if residency == "dense":
        return {"codes": n_weights * FLOAT32_BYTES, "scales": 0, "zero_points": 0}
    n_groups = n_weights // require_group_size("linear_parts", in_features, spec.group_size)
    code_bytes = (
        n_weights * CODE_BYTES if residency == "codes" else -(-n_weights * spec.bits // BITS_PER_BYTE)
    )
    return {
        "codes": code_bytes,
        "scales": n_groups * FLOAT32_BYTES,
        "zero_points": n_groups * (ZERO_POINT_BYTES + (2 if offset else 1) * FLOAT32_BYTES),
    }


def linear_bytes(
    out_features: int, in_features: int, *, spec: QuantSpec, residency: str, offset: bool = False
) -> int:
    """Return the bytes that one linear without bias keeps in memory: the sum of `linear_parts`."""
    parts = linear_parts(out_features, in_features, spec=spec, residency=residency, offset=offset)
    return sum(parts.values())


def weight_bytes(
    shapes: Iterable[tuple[int, int]], *, spec: QuantSpec, offset: bool = False
) -> dict[str, int]:
    """Return the bytes of linears in memory for every residency, in the order packed, codes, dense.

    Parameters
    ----------
    shapes : iterable of (out_features, in_features)
        One per linear of the model, all blocks.
    spec : QuantSpec
    offset : bool
        Whether the layout has an offset for each group beside the scale.

    Raises
    ------
    ShapeError
        If the group size does not divide an in_features.
    """
    shapes = list(shapes)
    return {
        residency: sum(
            linear_bytes(out, into, spec=spec, residency=residency, offset=offset) for out, into in shapes
        )
        for residency in RESIDENCIES
    }


def cached_columns(*, n_layers: int, capacity: int, windows: Sequence[int] = (), page: int = 1) -> int:
    """Return the columns that all layers keep of a text: the whole text, or a window of it and a page more, less one.

    Parameters
    ----------
    capacity : int
        Columns of a text.
    windows : sequence of int
        Per layer what its queries see, their own column included; 0: all. Empty: all layers see all.
    page : int
        Columns for which a layer with a window has room beside those that stay: 1, the query's own, at the least.

    Examples
    --------
    >>> cached_columns(n_layers=2, capacity=100, windows=(10, 0), page=4)  # 9 and 4, 100
    113
    """
    seen = windows or (0,) * n_layers
    return sum(min(capacity, window - 1 + page) if window else capacity for window in seen)


def kv_cache_bytes(
    *,
    n_layers: int,
    n_kv_heads: int,
    head_dim: int,
    capacity: int,
    batch: int = 1,
    itemsize: int = FLOAT32_BYTES,
    windows: Sequence[int] = (),
    page: int = 1,
) -> int:
    """Return the bytes of a key/value cache: 2 * batch * kv heads * head_dim times the columns of all layers.

    Parameters
    ----------
    capacity, windows, page
        As for `cached_columns`.

    Raises
    ------
    RangeError
        If a size is negative.
    """
    sizes = {"n_layers": n_layers, "n_kv_heads": n_kv_heads, "head_dim": head_dim, "capacity": capacity}
    for name, size in (sizes | {"batch": batch, "itemsize": itemsize}).items():
        require_between("kv_cache_bytes", name, size, 0, 2**63)
    columns = cached_columns(n_layers=n_layers, capacity=capacity, windows=windows, page=page)
    return 2 * batch * n_kv_heads * head_dim * itemsize * columns
