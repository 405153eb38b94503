"""Arrays as JSON: {"dtype", "shape", "data"}, the bytes in hexadecimal, little-endian, last axis fastest.

    DTYPES          name -> NumPy's spelling with its byte order
    encode_array    array -> record
    decode_array    record -> array; says what is wrong with it
    to_bytes        the bytes of an array, as files and hexadecimal have them
    from_bytes      the exact inverse

Source: docs/conformance.md#the-protocol.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from awq_ref.dtypes import AnyArray
from awq_ref.errors import FormatError

DTYPES = {
    "uint8": "|u1",
    "int8": "|i1",
    "int16": "<i2",
    "int32": "<i4",
    "uint32": "<u4",
    "int64": "<i8",
    "float16": "<f2",
    "float32": "<f4",
    "float64": "<f8",
}


def to_bytes(array: AnyArray) -> bytes:
    """Return an array's elements as little-endian bytes in C order."""
    return np.ascontiguousarray(array).astype(DTYPES[array.dtype.name], copy=False).tobytes()


def from_bytes(data: bytes, dtype: str, shape: tuple[int, ...]) -> AnyArray:
    """Return the array that these bytes hold: in the machine's own byte order, and writable."""
    elements = np.frombuffer(data, dtype=DTYPES[dtype])
    array: AnyArray = elements.astype(dtype).reshape(shape)
    return array


def encode_array(array: AnyArray) -> dict[str, Any]:
    """Return an array as a record that JSON holds.

    Examples
    --------
    >>> encode_array(np.array([[1, -2]], dtype=np.int16))
    {'dtype': 'int16', 'shape': [1, 2], 'data': '0100feff'}
    """
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": to_bytes(array).hex()}


def read_header(record: Any, who: str) -> tuple[str, tuple[int, ...]]:
    """Return dtype and shape of a record; FormatError names who sent it and what is wrong."""
    if not isinstance(record, Mapping):
        raise FormatError(
            f"{who}: must be an object with dtype, shape and data; got {type(record).__name__}."
        )
    dtype, shape = record.get("dtype"), record.get("shape")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise FormatError(f"{who}: dtype must be one of {', '.join(DTYPES)}; got {dtype!r}.")
    if not isinstance(shape, list) or any(type(size) is not int or size < 0 for size in shape):
        raise FormatError(f"{who}: shape must be a list of integers >= 0; got {shape!r}.")
    return dtype, tuple(shape)


def decode_array(record: Any, who: str = "decode_array") -> AnyArray:
    """Return the array of a record.

    Raises
    ------
    FormatError
        If it is no such record, or the number of bytes is not that of dtype and shape; `who` is named.

    Examples
    --------
    >>> decode_array({"dtype": "int16", "shape": [1, 2], "data": "0100feff"}).tolist()
    [[1, -2]]
    """
    dtype, shape = read_header(record, who)
    text = record.get("data")
    try:
        data = bytes.fromhex(text)
    except (TypeError, ValueError):
        raise FormatError(f"{who}: data must be hexadecimal digits; got {str(text)[:40]!r}.") from None
    wanted = np.dtype(DTYPES[dtype]).itemsize * math.prod(shape)
    if len(data) != wanted:
        raise FormatError(f"{who}: {dtype} {list(shape)} must have {wanted} bytes; got {len(data)}.")
    return from_bytes(data, dtype, shape)
