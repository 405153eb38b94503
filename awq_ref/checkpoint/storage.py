"""The element types of a safetensors file, and bfloat16, which NumPy does not have.

    STORAGE                one row per type name that a header may hold
    FLOAT_DTYPES           those that `read_float32` takes
    storage_name           the type name of a NumPy dtype
    bfloat16_to_float32    16-bit words -> float32, exact
    float32_to_bfloat16    float32 -> 16-bit words, nearest, ties to even
    encode                 an array -> the words of a storage dtype
    stored_form            an array -> the name of its storage dtype, and its bytes

Sources: the safetensors format description (huggingface/safetensors); bfloat16 is the upper half of an
IEEE 754 binary32 number.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from awq_ref.checks import require_one_of
from awq_ref.dtypes import F32, U8, AnyArray
from awq_ref.errors import DtypeError, RangeError

U16: TypeAlias = NDArray[np.uint16]


@dataclass(frozen=True)
class StorageDtype:
    """One element type: its bytes, and the NumPy dtype of its words (None: NumPy has none, raw bytes only).

    BF16 is read as its uint16 words; all types are little-endian.
    """

    itemsize: int
    words: np.dtype[np.generic] | None


def _row(code: str) -> StorageDtype:
    """Return the row of a NumPy type code."""
    dtype = np.dtype(code)
    return StorageDtype(dtype.itemsize, dtype)


STORAGE: dict[str, StorageDtype] = {
    "BOOL": _row("?"),
    "U8": _row("u1"),
    "I8": _row("i1"),
    "F8_E4M3": StorageDtype(1, None),
    "F8_E5M2": StorageDtype(1, None),
    "U16": _row("<u2"),
    "I16": _row("<i2"),
    "F16": _row("<f2"),
    "BF16": _row("<u2"),
    "U32": _row("<u4"),
    "I32": _row("<i4"),
    "F32": _row("<f4"),
    "U64": _row("<u8"),
    "I64": _row("<i8"),
    "F64": _row("<f8"),
}

FLOAT_DTYPES = ("F16", "BF16", "F32", "F64")

_NAME_OF = {
    row.words.newbyteorder("="): name for name, row in STORAGE.items() if row.words and name != "BF16"
}


def storage_name(dtype: np.dtype[np.generic]) -> str:
    """Return the safetensors name of a NumPy dtype, e.g. "F16" for float16.

    Raises
    ------
    DtypeError
        If the format has no such type (complex, text, objects).
    """
    native = dtype.newbyteorder("=")
    if native not in _NAME_OF:
        known = ", ".join(str(known) for known in _NAME_OF)
        raise DtypeError(
            f"storage_name: the dtype must be one of {known}; got {dtype}. Convert the array first."
        )
    return _NAME_OF[native]


def bfloat16_to_float32(words: U16, out: F32 | None = None) -> F32:
    """Return bfloat16 numbers, given as their uint16 words, as float32: the word is the upper half. Exact.

    Parameters
    ----------
    words : uint16 array, any shape
    out : float32 array of the same shape, contiguous, optional
        Filled and returned; then nothing else is allocated.

    Examples
    --------
    >>> bfloat16_to_float32(np.array([0x3F80, 0xC040], dtype=np.uint16))
    array([ 1., -3.], dtype=float32)
    """
    if out is None:
        out = np.empty(words.shape, dtype=np.float32)
    np.left_shift(words, np.uint32(16), out=out.view(np.uint32), dtype=np.uint32)
    return out


def float32_to_bfloat16(values: F32) -> U16:
    """Return the uint16 words of the nearest bfloat16 numbers, ties to even; NaN stays NaN.

    Parameters
    ----------
    values : float32 array, any shape

    Returns
    -------
    words : uint16 array of that shape

    Notes
    -----
    Adding 0x7FFF plus the lowest bit that is kept carries into the upper half exactly when the number must be
    rounded up. A finite number beyond the largest bfloat16 becomes infinite, as IEEE 754 rounding says.

    Examples
    --------
    >>> [hex(word) for word in float32_to_bfloat16(np.array([1.0, 1.00390625, 1.01171875], dtype=np.float32))]
    ['0x3f80', '0x3f80', '0x3f82']
    """
    bits = np.ascontiguousarray(values, dtype=np.float32).reshape(values.shape).view(np.uint32)
    rounded = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    rounded >>= 16
    quiet = (bits >> 16) | 0x0040  # the quiet bit: a NaN whose payload lies in the lower half stays a NaN
    words: U16 = np.where(np.isnan(values), quiet, rounded).astype(np.uint16)
    return words


def encode(array: AnyArray, dtype: str) -> AnyArray:
    """Return the array as the little-endian words of a storage dtype; the same array if it is so already."""
    if dtype == "BF16":
        array = float32_to_bfloat16(array.astype(np.float32, copy=False))
    words = STORAGE[dtype].words
    if words is None:
        raise DtypeError(f"encode: {dtype} can be stored from raw bytes only; got an array of {array.dtype}.")
    return array.astype(words, copy=False)


def _require_no_overflow(name: str, values: AnyArray, stored: AnyArray, dtype: str) -> None:
    """Raise RangeError if a finite value became infinite in the narrower dtype."""
    infinite = (stored & 0x7FFF) == 0x7F80 if dtype == "BF16" else np.isinf(stored)
    lost = np.flatnonzero(infinite & np.isfinite(values))
    if lost.size:
        raise RangeError(
            f"ShardWriter: {name} must fit into {dtype}; got {values[lost[0]]} at flat index {lost[0]}. "
            "Store it as F32."
        )


def stored_form(name: str, array: AnyArray, dtype: str | None = None) -> tuple[str, U8]:
    """Return the storage dtype, by default the array's own, and the bytes in it, uint8 (n_bytes,).

    Raises
    ------
    DtypeError, RangeError
        As `ShardWriter.add`.
    """
    dtype = dtype or storage_name(array.dtype)
    require_one_of("ShardWriter.add", "dtype", dtype, STORAGE)
    with np.errstate(over="ignore", invalid="ignore"):  # an overflow is looked for below, and named
        stored = np.ascontiguousarray(encode(array, dtype)).reshape(-1)
    if array.dtype.kind == "f" and stored.dtype.itemsize < array.dtype.itemsize:
        _require_no_overflow(name, array.reshape(-1), stored, dtype)
    return dtype, stored.view(np.uint8)
