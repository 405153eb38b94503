"""The quantizer written again, one number at a time, from the equations: no NumPy arithmetic, no awq_ref.

    float32, float16       a Python float rounded once to the format (ties to even); OverflowError beyond it
    scalar_grid            [AWQ-1], [AWQ-2]: the weights of one group -> (scale, zero point)
    scalar_quantize        [AWQ-3]: one group -> its codes
    scalar_dequantize      [AWQ-4]: codes -> weights

Python computes in binary64. A quotient, a difference or a product of two binary32 numbers that is rounded to
binary64 and then to binary32 is the correctly rounded binary32 result: 53 >= 2 * 24 + 2 bits make the double
rounding harmless (Figueroa 1995). `struct` rounds to binary16 and binary32 to nearest, ties to even.
"""

import struct
from collections.abc import Sequence


def float32(value: float) -> float:
    """Return value rounded to binary32."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def float16(value: float) -> float:
    """Return value rounded to binary16."""
    return struct.unpack("<e", struct.pack("<e", value))[0]


def _clip(value: float, low: float, high: float) -> float:
    return low if value < low else high if value > high else value


def scalar_grid(
    group: Sequence[float],
    *,
    bits: int,
    symmetric: bool = False,
    range_rule: str = "zero",
    scale_dtype: str = "float16",
    clip: float | None = None,
) -> tuple[float, int]:
    """Return (scale as stored, zero point) of one group."""
    if clip is not None:
        group = [_clip(w, -clip, clip) for w in group]
    low, high = min(group), max(group)
    if range_rule == "zero":
        low, high = min(low, 0.0), max(high, 0.0)
    floor = float32(1e-5)
    round_to_storage = float16 if scale_dtype == "float16" else float32
    if symmetric:
        largest = max(abs(w) for w in group)
        return round_to_storage(float32(max(largest, floor) / (2 ** (bits - 1) - 1))), 2 ** (bits - 1)
    qmax = 2**bits - 1
    scale = round_to_storage(float32(max(float32(high - low), floor) / qmax))
    return scale, int(_clip(-round(float32(low / scale)), 0, qmax))


def scalar_quantize(
    group: Sequence[float], scale: float, zero_point: int, *, bits: int, clip: float | None = None
) -> list[int]:
    """Return the codes of one group; Python's round() is to nearest, ties to even."""
    if clip is not None:
        group = [_clip(w, -clip, clip) for w in group]
    return [int(_clip(round(float32(w / scale)) + zero_point, 0, 2**bits - 1)) for w in group]


def scalar_dequantize(codes: Sequence[int], scale: float, zero_point: int) -> list[float]:
    """Return the weights that codes stand for."""
    return [float32((code - zero_point) * scale) for code in codes]
