"""Tensors into safetensors files, in flat memory.

    ShardWriter    .add(name, array), .add_raw(name, dtype, shape, data); the files are there when it is left

A header comes first in its file but is known last. So the bytes go to a spool file as they come, and a full
shard is put together from it: header, then the tensors, wider types first, which keeps all of them aligned.
Names: model.safetensors, or model-00001-of-0000n.safetensors with model.safetensors.index.json.
"""

import math
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

import numpy as np

from awq_ref.checkpoint.disk import byte_view, write_all, write_json, writing
from awq_ref.checkpoint.header import METADATA, build_header
from awq_ref.checkpoint.reader import INDEX_FILE, SINGLE_FILE
from awq_ref.checkpoint.storage import STORAGE, encode, storage_name
from awq_ref.checks import require_one_of
from awq_ref.dtypes import U8, AnyArray
from awq_ref.errors import FormatError, RangeError

MAX_SHARD_BYTES = 5_000_000_000  # the size at which Hugging Face's tools begin a new file
COPY_BYTES = 4 * 1024 * 1024
FILE_METADATA = {"format": "pt"}  # transformers refuses files without it


class _Spooled(NamedTuple):
    """A tensor in the spool file: its bytes lie from start on."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    n_bytes: int


class ShardWriter:
    """Writes tensors to the safetensors files of a folder, each tensor as it comes. A context manager.

    Parameters
    ----------
    folder : Path
        Exists; usually what `new_folder` yields.
    max_shard_bytes : int
        A new file begins before a tensor that would lead beyond it. A larger tensor has a file of its own.

    Raises
    ------
    RangeError
        If max_shard_bytes is not positive.
    """

    def __init__(self, folder: Path, *, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
        if max_shard_bytes < 1:
            raise RangeError(f"ShardWriter: max_shard_bytes must be at least 1; got {max_shard_bytes}.")
        self.folder = Path(folder)
        self.max_shard_bytes = max_shard_bytes
        self.total_bytes = 0
        self._names: set[str] = set()
        self._shards: list[list[str]] = []
        self._pending: list[_Spooled] = []
        self._pending_bytes = 0
        self._spool_path = self.folder / ".spool"
        with writing(self._spool_path):
            self._spool: BinaryIO = self._spool_path.open("w+b", buffering=0)

    def add(self, name: str, array: AnyArray, *, dtype: str | None = None) -> None:
        """Store an array, in its own dtype or converted to a storage dtype ("F16", "BF16", "F32", ...).

        Raises
        ------
        DtypeError
            If the format has no such type.
        RangeError
            If dtype is unknown, or a finite value becomes infinite in it.
        FormatError
            If the name is taken, or reserved by the format.
        OutputError
            If the disk is full or cannot be written to.
        """
        dtype = dtype or storage_name(array.dtype)
        require_one_of("ShardWriter.add", "dtype", dtype, STORAGE)
        with np.errstate(over="ignore", invalid="ignore"):  # an overflow is looked for below, and named
            stored = np.ascontiguousarray(encode(array, dtype)).reshape(-1)
        if array.dtype.kind == "f" and stored.dtype.itemsize < array.dtype.itemsize:
            _require_no_overflow(name, array.reshape(-1), stored, dtype)
        self.add_raw(name, dtype, array.shape, stored.view(np.uint8))

    def add_raw(self, name: str, dtype: str, shape: tuple[int, ...], data: bytes | memoryview | U8) -> None:
        """Store a tensor's bytes unchanged, e.g. what `Checkpoint.raw` gives.

        Raises
        ------
        RangeError
            If dtype is not a storage name.
        FormatError
            If the name is taken or reserved, or the number of bytes contradicts dtype and shape.
        OutputError
            If the disk is full or cannot be written to.
        """
        require_one_of("ShardWriter.add_raw", "dtype", dtype, STORAGE)
        view = byte_view(data)
        n_bytes = math.prod(shape) * STORAGE[dtype].itemsize
        if view.nbytes != n_bytes:
            raise FormatError(
                f"ShardWriter: {name}, {dtype} {shape}, needs {n_bytes} bytes; got {view.nbytes}."
            )
        if name in self._names or name == METADATA:
            raise FormatError(
                f"ShardWriter: every tensor needs a name of its own; got {name!r} twice or reserved."
            )
        if self._pending and self._pending_bytes + n_bytes > self.max_shard_bytes:
            self._finish_shard()
        with writing(self.folder):
            write_all(self._spool, view)
        self._names.add(name)
        self._pending.append(_Spooled(name, dtype, tuple(shape), self._pending_bytes, n_bytes))
        self._pending_bytes += n_bytes
        self.total_bytes += n_bytes

    def _finish_shard(self) -> None:
        """Put the spooled tensors together as the next file, and empty the spool."""
        ordered = sorted(self._pending, key=lambda tensor: -STORAGE[tensor.dtype].itemsize)  # stable
        header = build_header(((t.name, t.dtype, t.shape) for t in ordered), metadata=FILE_METADATA)
        with writing(self.folder), self._part(len(self._shards)).open("wb", buffering=0) as file:
            write_all(file, header)
            for tensor in ordered:
                self._spool.seek(tensor.start)
                _copy(self._spool, file, tensor.n_bytes)
            self._spool.seek(0)
            self._spool.truncate()
        self._shards.append([tensor.name for tensor in ordered])
        self._pending, self._pending_bytes = [], 0

    def _part(self, number: int) -> Path:
        """Return a shard's name while the number of shards is unknown."""
        return self.folder / f".part-{number:05d}"

    def _name_files(self) -> None:
        """Give the files their names, and write the index if there is more than one."""
        n_files = len(self._shards)
        if n_files == 1:
            self._part(0).rename(self.folder / SINGLE_FILE)
            return
        weight_map: dict[str, str] = {}
        for number, names in enumerate(self._shards):
            file_name = f"model-{number + 1:05d}-of-{n_files:05d}.safetensors"
            self._part(number).rename(self.folder / file_name)
            weight_map |= dict.fromkeys(names, file_name)
        index = {"metadata": {"total_size": self.total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
        write_json(self.folder / INDEX_FILE, index)

    def close(self) -> None:
        """Finish the files. Leaving the with-block calls it.

        Raises
        ------
        OutputError
            If the disk is full or cannot be written to.
        """
        try:
            if self._pending or not self._shards:
                self._finish_shard()
            with writing(self.folder):
                self._name_files()
        finally:
            self._discard()

    def _discard(self) -> None:
        """Remove the spool and unfinished files."""
        self._spool.close()
        for leftover in (self._spool_path, *self.folder.glob(".part-*")):
            leftover.unlink(missing_ok=True)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the files if all went well; remove the spool and unfinished files otherwise."""
        if kind is None:
            self.close()
        else:
            self._discard()


def _copy(source: BinaryIO, target: BinaryIO, n_bytes: int) -> None:
    """Copy so many bytes from one file to another, piece by piece."""
    while n_bytes:
        piece = source.read(min(n_bytes, COPY_BYTES))
        write_all(target, piece)
        n_bytes -= len(piece)


def _require_no_overflow(name: str, values: AnyArray, stored: AnyArray, dtype: str) -> None:
    """Raise RangeError if a finite value became infinite in the narrower dtype."""
    infinite = (stored & 0x7FFF) == 0x7F80 if dtype == "BF16" else np.isinf(stored)
    lost = np.flatnonzero(infinite & np.isfinite(values))
    if lost.size:
        raise RangeError(
            f"ShardWriter: {name} must fit into {dtype}; got {values[lost[0]]} at flat index {lost[0]}. "
            "Store it as F32."
        )
