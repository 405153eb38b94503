"""A GGUF file, version 3: metadata, a table of tensors, their bytes.

    GgufTensor    name, shape in weights, type, and its array
    TYPES         name -> number and bytes of a block, weights in a block
    write_gguf    the whole file; it appears when it is complete

Everything is little-endian. A shape is stored with its last axis first, data begins at multiples of 32 bytes.
Source: ggml, docs/gguf.md.
"""

import os
import secrets
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np

from awq_ref.checkpoint.disk import sync, write_all, writing
from awq_ref.checkpoint.writer import require_new
from awq_ref.dtypes import AnyArray
from awq_ref.errors import FormatError

MAGIC, VERSION, ALIGNMENT = b"GGUF", 3, 32
# name -> (number, bytes of a block, weights in a block)
TYPES = {"F32": (0, 4, 1), "F16": (1, 2, 1), "q4_0": (2, 18, 32), "q4_1": (3, 20, 32), "q8_0": (8, 34, 32)}
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
Value: TypeAlias = bool | int | float | str | Sequence[int] | Sequence[str]


@dataclass(frozen=True)
class GgufTensor:
    """A tensor to write.

    shape : in weights, (out_features, in_features) of a linear
    kind  : a key of TYPES
    array : float32, float16, or the bytes of its blocks
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    array: AnyArray

    @property
    def nbytes(self) -> int:
        _, block_bytes, block = TYPES[self.kind]
        return prod(self.shape) // block * block_bytes


def _string(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _value(value: Value) -> bytes:
    """Return the type and the bytes of a value: uint32, float32, bool, string, or an array of int32 or strings."""
    if isinstance(value, bool):
        return struct.pack("<I?", BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", UINT32, value)
    if isinstance(value, float):
        return struct.pack("<If", FLOAT32, value)
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _string(value)
    if all(isinstance(item, str) for item in value):
        head = struct.pack("<IIQ", ARRAY, STRING, len(value))
        return head + b"".join(_string(str(item)) for item in value)
    return struct.pack(f"<IIQ{len(value)}i", ARRAY, INT32, len(value), *value)


def _padding(size: int) -> bytes:
    return bytes(-size % ALIGNMENT)


def _head(metadata: Mapping[str, Value], tensors: Sequence[GgufTensor]) -> bytes:
    """Return everything before the data, padded."""
    head = MAGIC + struct.pack("<IQQ", VERSION, len(tensors), len(metadata))
    head += b"".join(_string(key) + _value(value) for key, value in metadata.items())
    offset = 0
    for tensor in tensors:
        sizes = tensor.shape[::-1]
        head += _string(tensor.name) + struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes)
        head += struct.pack("<IQ", TYPES[tensor.kind][0], offset)
        offset += tensor.nbytes + len(_padding(tensor.nbytes))
    return head + _padding(len(head))


def _little_endian(array: AnyArray) -> AnyArray:
    return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))


def _write_tensors(file: BinaryIO, tensors: Sequence[GgufTensor]) -> None:
    for tensor in tensors:
        data = _little_endian(tensor.array)
        if data.nbytes != tensor.nbytes:
            raise FormatError(
                f"write_gguf: {tensor.name} must have {tensor.nbytes} bytes, {tensor.shape} in {tensor.kind}; got "
                f"{data.nbytes}."
            )
        write_all(file, data.reshape(-1).view(np.uint8))
        write_all(file, _padding(data.nbytes))


def write_gguf(path: str | Path, metadata: Mapping[str, Value], tensors: Sequence[GgufTensor]) -> None:
    """Write a GGUF file.

    Parameters
    ----------
    path : str or Path
        Must not exist. The file is written under a hidden name beside it and renamed when it is complete.
    metadata : mapping
        In the order in which it is written; numbers become uint32 or float32.
    tensors : sequence of GgufTensor

    Raises
    ------
    OutputError
        If path exists or cannot be written; nothing is left behind.
    FormatError
        If a tensor's array has not the size that its shape and type say.
    """
    path = Path(os.path.abspath(path))
    require_new(path)
    partial = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("xb", buffering=0) as file:
                write_all(file, _head(metadata, tensors))
                _write_tensors(file, tensors)
            sync(partial)
            require_new(path)
            partial.rename(path)
            sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)
