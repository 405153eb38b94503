"""A quantized linear for another layout: the same weights where the layout can hold them, the nearest where it cannot.

    refit       a linear, a layout -> its tensors, and what became of the weights
    Refitted    the outcome

Integers are never changed. What a layout may want otherwise is the grid: zero points in place of offsets, offsets in
place of zero points, scales in float16. Whether that was exact is not argued but measured: the weights of the tensors,
read back, are compared with the weights before.
"""

from dataclasses import dataclass, replace

import numpy as np

from awq_ref.dtypes import AnyArray
from awq_ref.errors import UnsupportedError
from awq_ref.pack import LAYOUTS, pack_linear, unpack_linear
from awq_ref.quantize import dequantize_linear
from awq_ref.spec import QuantizedLinear

ASYMMETRIC = ("gemv_fast", "llm-awq", "mlx", "q4_1")  # whose configuration cannot say symmetric


@dataclass(frozen=True)
class Refitted:
    """A linear in another layout.

    linear    : as the layout holds it
    tensors   : by the ends of their names
    max_error : largest change of a weight
    max_abs   : largest weight before
    """

    linear: QuantizedLinear
    tensors: dict[str, AnyArray]
    max_error: float
    max_abs: float

    @property
    def is_exact(self) -> bool:
        """Every weight is the same float32 as before."""
        return self.max_error == 0.0


def _without_offset(linear: QuantizedLinear, layout: str) -> QuantizedLinear:
    """Put the nearest zero points in place of an offset: q s + o ~ (q - z) s, z = rint(-o / s).

    A negative scale changes its sign, and codes are counted from the other end: q s = (qmax - q) (-s) + qmax s.
    """
    assert linear.offset is not None
    qmax, scales = linear.spec.qmax, linear.scales.astype(np.float32)
    if (scales == 0.0).any():
        raise UnsupportedError(
            f"convert: {layout} must have zero points, which a scale of 0 beside an offset has none for. Keep the "
            "offsets: choose mlx, gemv_fast or llm-awq."
        )
    falling = scales < 0.0
    wanted = np.rint(-linear.offset.astype(np.float32) / scales)
    wanted = np.where(falling, qmax - wanted, wanted)
    if wanted.min() < 0 or wanted.max() > qmax:
        raise UnsupportedError(
            f"convert: {layout} must have zero points from 0 to {qmax}; the offsets would need {wanted.min():g} to "
            f"{wanted.max():g}. Keep the offsets: choose mlx, gemv_fast or llm-awq."
        )
    turned = np.repeat(falling, linear.group_size, axis=1)
    codes = np.where(turned, np.uint8(qmax) - linear.int_weight, linear.int_weight)
    positive = np.abs(linear.scales)
    return replace(linear, int_weight=codes, scales=positive, zero_point=wanted.astype(np.uint8), offset=None)


def _with_float16_scales(linear: QuantizedLinear, layout: str) -> QuantizedLinear:
    """Round scales and offsets to float16."""
    with np.errstate(over="ignore"):  # looked for below
        scales = linear.scales.astype(np.float16)
        offset = None if linear.offset is None else linear.offset.astype(np.float16)
    if (
        not np.isfinite(scales).all()
        or (scales == 0.0).any()
        or not (offset is None or np.isfinite(offset).all())
    ):
        raise UnsupportedError(
            f"convert: {layout} must have scales in float16; these do not fit. Choose pack-quantized or mlx."
        )
    return replace(linear, scales=scales, offset=offset, spec=replace(linear.spec, scale_dtype="float16"))


def _measured(linear: QuantizedLinear, fitted: QuantizedLinear, layout: str) -> Refitted:
    """Pack, read back, and compare the weights with those of the linear before."""
    tensors = pack_linear(fitted, layout)
    before = dequantize_linear(linear)
    after = dequantize_linear(unpack_linear(tensors, fitted.spec, layout))
    error, largest = np.abs(after - before).max(initial=0.0), np.abs(before).max(initial=0.0)
    return Refitted(fitted, tensors, float(error), float(largest))


def _with_float32_scales(linear: QuantizedLinear) -> QuantizedLinear:
    """Keep scales and offsets as float32: the same numbers."""
    return replace(
        linear,
        scales=linear.scales.astype(np.float32),
        offset=None if linear.offset is None else linear.offset.astype(np.float32),
        spec=replace(linear.spec, scale_dtype="float32"),
    )


def _with_scales_of(linear: QuantizedLinear, layout: str) -> QuantizedLinear:
    """Keep scales in a dtype that the layout has."""
    dtypes = LAYOUTS[layout].scale_dtypes
    if linear.spec.scale_dtype in dtypes:
        return linear
    return _with_float16_scales(linear, layout) if "float16" in dtypes else _with_float32_scales(linear)


def _as_symmetric(linear: QuantizedLinear, layout: str) -> QuantizedLinear:
    """Call a linear symmetric whose zero points are the middle."""
    middle = linear.spec.symmetric_zero_point
    if (linear.zero_point != middle).any():
        raise UnsupportedError(
            f"convert: {layout} must have the zero point {middle} everywhere, for it stores none; got "
            f"{linear.zero_point.min()} to {linear.zero_point.max()}. Quantize anew: --symmetric."
        )
    return replace(linear, spec=replace(linear.spec, symmetric=True))


def refit(linear: QuantizedLinear, layout: str) -> Refitted:
    """Return a linear as a layout holds it; scales become float32 where that alone keeps the weights (mlx).

    Raises
    ------
    UnsupportedError
        If the layout cannot hold it at all: its size, bits, groups, the order of its inputs, or its grid.
    """
    row, fitted = LAYOUTS[layout], linear
    if fitted.offset is not None and "offset" not in row.holds:
        fitted = _without_offset(fitted, layout)
    fitted = _with_scales_of(fitted, layout)
    if layout in ASYMMETRIC and fitted.spec.symmetric:
        fitted = replace(fitted, spec=replace(fitted.spec, symmetric=False))
    if row.symmetric_alone and fitted.spec.bits in row.bits:
        fitted = _as_symmetric(fitted, layout)
    done = _measured(linear, fitted, layout)
    if done.is_exact or fitted.spec.scale_dtype == "float32" or "float32" not in row.scale_dtypes:
        return done
    return _measured(linear, _with_float32_scales(fitted), layout)
