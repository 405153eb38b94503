"""The safetensors format, as far as vectors need it: written byte for byte the same everywhere, read without a library.

    tensor_file    arrays -> the file's bytes
    read_tensors   the file's bytes -> arrays

Eight bytes: the length of a JSON header; the header: name -> dtype, shape, begin and end; then the arrays.
Source: https://github.com/huggingface/safetensors, README, "Format".
"""

import json
from collections.abc import Mapping
from typing import Any

from awq_ref.dtypes import AnyArray
from awq_ref.errors import FormatError
from awq_ref.vectors.codec import from_bytes, to_bytes

NAMES = {
    "uint8": "U8",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "uint32": "U32",
    "int64": "I64",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
}
DTYPES = {name: dtype for dtype, name in NAMES.items()}
ALIGNMENT = 8  # of the arrays: the header is filled up with spaces


def tensor_file(arrays: Mapping[str, AnyArray]) -> bytes:
    """Return the bytes of a .safetensors file.

    Examples
    --------
    >>> import numpy as np
    >>> data = tensor_file({"w": np.array([1, 2], dtype=np.int16)})
    >>> read_tensors(data, "w")["w"].tolist()
    [1, 2]
    """
    header: dict[str, Any] = {}
    parts: list[bytes] = []
    end = 0
    for name, array in arrays.items():
        data = to_bytes(array)
        begin, end = end, end + len(data)
        header[name] = {
            "dtype": NAMES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
        parts.append(data)
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text + b"".join(parts)


def read_tensors(data: bytes, name: str) -> dict[str, AnyArray]:
    """Return the arrays of a .safetensors file; FormatError names the file."""
    try:
        length = int.from_bytes(data[:8], "little")
        if len(data) < 8 + length:
            raise ValueError(f"it ends within its header of {length} bytes")
        header = json.loads(data[8 : 8 + length])
        arrays = {}
        for tensor, record in header.items():
            begin, end = record["data_offsets"]
            piece = data[8 + length + begin : 8 + length + end]
            shape = tuple(record["shape"])
            arrays[tensor] = from_bytes(piece, DTYPES[record["dtype"]], shape)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{name}: must be a safetensors file; {error}. Copy it again.") from None
    return arrays
