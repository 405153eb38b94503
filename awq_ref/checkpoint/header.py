"""The header of a safetensors file: parsed as if the file were hostile, and built.

    TensorInfo      dtype, shape and byte range of one tensor
    read_header     open a file, check everything its header says -> Header
    build_header    tensors in file order -> the bytes that precede the data

A file is: 8 bytes, the header's length N (uint64, little-endian); N bytes of JSON, {name: {"dtype",
"shape", "data_offsets"}} and optionally "__metadata__" (text to text); the data. Offsets count from the end
of the header. The tensors cover the data without holes or overlaps.
Source: the format description of huggingface/safetensors.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awq_ref.checkpoint.storage import STORAGE
from awq_ref.errors import FormatError

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library
ALIGNMENT = 8  # data start at a multiple of it, so that every type of the format is aligned
MAX_AXES = 64  # NumPy 2's limit
METADATA = "__metadata__"


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file: its storage dtype (a name in `STORAGE`), shape, and byte range [start, stop)."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def n_bytes(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Header:
    """What a file says about itself: its tensors by name, in the order of their bytes, and its metadata."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]


def _fail(path: Path, what: str) -> FormatError:
    """Return the error for a file that does not say what the format requires."""
    return FormatError(
        f"{path}: not a valid safetensors file: {what}. It may be truncated or damaged: download or copy it "
        "again."
    )


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object; a key that comes twice is an error."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _sizes(values: Any) -> tuple[int, ...] | None:
    """Return a list of whole numbers from 0 to 2**63 - 1 as a tuple; None if it is anything else."""
    if isinstance(values, list) and all(type(n) is int and 0 <= n < 2**63 for n in values):
        return tuple(values)
    return None


def _read_bytes(path: Path) -> tuple[bytes, int]:
    """Return the header's JSON bytes and the size of the file."""
    with path.open("rb") as file:
        size = path.stat().st_size
        if size < LENGTH_BYTES:
            raise _fail(path, f"it has {size} bytes, fewer than the {LENGTH_BYTES} of the header's length")
        n_header = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if n_header > min(size - LENGTH_BYTES, MAX_HEADER_BYTES):
            raise _fail(path, f"its header should have {n_header} bytes, but the file has {size}")
        return file.read(n_header), size


def _parse_json(path: Path, text: bytes) -> dict[str, Any]:
    """Return the header's JSON object."""
    try:
        # strict UTF-8; RecursionError: brackets nested thousands deep
        found = json.loads(text.decode("utf-8"), object_pairs_hook=_no_repeats)
    except (ValueError, RecursionError) as error:
        raise _fail(path, f"its header is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise _fail(path, "its header is not a JSON object")
    return found


def _parse_tensor(path: Path, name: str, entry: Any, data_start: int) -> TensorInfo:
    """Return one tensor's entry, checked by itself: dtype known, shape and byte range agree."""
    entry = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = entry.get("dtype"), _sizes(entry.get("shape")), _sizes(entry.get("data_offsets"))
    if not isinstance(dtype, str) or dtype not in STORAGE:
        raise _fail(path, f"tensor {name!r} has the dtype {dtype!r}; known are {', '.join(STORAGE)}")
    itemsize = STORAGE[dtype].itemsize
    if shape is None or len(shape) > MAX_AXES or math.prod(n or 1 for n in shape) * itemsize >= 2**63:
        raise _fail(path, f"tensor {name!r} has no usable shape")
    if offsets is None or len(offsets) != 2:
        raise _fail(path, f"tensor {name!r} has no usable data_offsets")
    n_bytes = math.prod(shape) * itemsize
    if offsets[1] - offsets[0] != n_bytes:
        needs = f"tensor {name!r}, {dtype} {list(shape)}, needs {n_bytes} bytes"
        raise _fail(path, f"{needs}; its data_offsets are {list(offsets)}")
    return TensorInfo(dtype, shape, data_start + offsets[0], data_start + offsets[1])


def _check_cover(path: Path, tensors: Mapping[str, TensorInfo], data_start: int, size: int) -> None:
    """Raise unless the tensors, in the order of their bytes, fill the data exactly."""
    expected = data_start
    for name, info in tensors.items():
        if info.start != expected:
            raise _fail(
                path, f"tensor {name!r} starts at byte {info.start}, not at {expected}: overlap or hole"
            )
        expected = info.stop
    if expected != size:
        raise _fail(path, f"its tensors end at byte {expected}, but the file has {size} bytes")


def read_header(path: Path) -> Header:
    """Return what a safetensors file says about itself, every statement checked against the file.

    Raises
    ------
    FormatError
        If the file cannot be read or breaks the format: truncated, longer than its tensors, a header that is
        too large or no JSON, a name twice, an unknown dtype, a shape that contradicts the byte range, overlaps,
        holes.
    """
    try:
        text, size = _read_bytes(path)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}.") from error
    entries = _parse_json(path, text)
    metadata = entries.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _fail(path, f"its {METADATA} must map text to text")
    data_start = LENGTH_BYTES + len(text)
    infos = {name: _parse_tensor(path, name, entry, data_start) for name, entry in entries.items()}
    tensors = dict(sorted(infos.items(), key=lambda item: (item[1].start, item[1].stop)))
    _check_cover(path, tensors, data_start, size)
    return Header(tensors, metadata)


def build_header(
    tensors: Iterable[tuple[str, str, tuple[int, ...]]], *, metadata: Mapping[str, str] | None = None
) -> bytes:
    """Return the bytes that precede the data of tensors stored one after the other.

    Parameters
    ----------
    tensors : iterable of (name, dtype, shape)
        In the order of their data. Wider types first keeps every tensor aligned.
    metadata : mapping of text to text, optional

    Returns
    -------
    header : bytes
        The length and the JSON, filled with spaces to a multiple of 8 bytes.
    """
    entries: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    stop = 0
    for name, dtype, shape in tensors:
        start, stop = stop, stop + math.prod(shape) * STORAGE[dtype].itemsize
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text
