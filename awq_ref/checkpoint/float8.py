"""float8 numbers (e4m3), which NumPy does not have, and the scales that go with them.

    E4M3                     the 256 numbers, by their byte
    float8_e4m3_to_float32   bytes -> float32, exact
    spread_scales            weights times the scales of their blocks, in place

A byte is a sign, 4 bits of exponent e with bias 7, 3 bits of mantissa m: (1 + m/8) 2^(e - 7), or m/8 2^-6 for e = 0.
There is no infinity; the two bytes with all other bits set are NaN. The largest number is 448.
Source: Micikevicius et al. 2022, arXiv:2209.05433, the format that safetensors calls F8_E4M3 (torch: float8_e4m3fn).
"""

import numpy as np

from awq_ref.dtypes import F32, U8
from awq_ref.errors import FormatError

BIAS, MANTISSA_BITS = 7, 3
NAN = 0x7F


def _numbers() -> F32:
    """Return the number of every byte."""
    byte = np.arange(256, dtype=np.int32)
    exponent, mantissa = byte >> MANTISSA_BITS & 15, byte & 7
    significand = (mantissa + np.where(exponent > 0, 8, 0)).astype(np.float32)  # in eighths
    values = np.ldexp(significand, np.maximum(exponent, 1) - BIAS - MANTISSA_BITS)
    values[(byte & NAN) == NAN] = np.nan
    return np.asarray(np.where(byte & 0x80, -values, values), dtype=np.float32)


E4M3 = _numbers()
E4M3.flags.writeable = False


def float8_e4m3_to_float32(raw: U8, out: F32 | None = None) -> F32:
    """Return e4m3 numbers, given as their bytes, as float32: exact.

    Parameters
    ----------
    raw : uint8 array, any shape
    out : float32 array of the same shape, optional
        Filled and returned; then nothing else is allocated.

    Examples
    --------
    >>> float8_e4m3_to_float32(np.array([0x38, 0xC0, 0x7E, 0x01], dtype=np.uint8)).tolist()
    [1.0, -2.0, 448.0, 0.001953125]
    """
    return np.take(E4M3, raw, out=out)


def spread_scales(name: str, weight: F32, scales: F32, block: tuple[int, int]) -> F32:
    """Multiply a weight by the scales of its blocks, in place, and return it.

    Parameters
    ----------
    name : str
        Of the tensor of scales, for messages.
    weight : float32 array, shape (out_features, in_features)
        Written to.
    scales : float32 array, shape (row blocks, column blocks); the last block of an axis may be smaller
        Of a single block any shape with one element.
    block : rows and columns of a block; 0: all of them

    Raises
    ------
    FormatError
        If the scales have another shape.
    """
    rows, columns = (size or whole for size, whole in zip(block, weight.shape, strict=True))
    shape = (-(-weight.shape[0] // rows), -(-weight.shape[1] // columns))
    if scales.shape != shape and not (scales.size == 1 and shape == (1, 1)):
        raise FormatError(
            f"{name}: must have shape {shape}, a scale for each {rows} x {columns} of {weight.shape}; got "
            f"{scales.shape}. Check the block size in config.json."
        )
    scales = scales.reshape(shape)
    for place in range(shape[0]):
        along = np.repeat(scales[place], columns)[: weight.shape[1]]
        weight[place * rows : (place + 1) * rows] *= along
    return weight
