"""Tensors into safetensors files, in flat memory.

    ShardWriter    .add(name, array), .add_raw(name, dtype, shape, data); the files are there when it is left

A header comes first in its file but is known last. So the bytes go to a spool file as they come, and a full
shard is put together from it: header, then the tensors, wider types first, which keeps all of them aligned.
Names: model.safetensors, or model-00001-of-0000n.safetensors with model.safetensors.index.json.

A writer with a `work` folder can be taken up again by another process: `state` says what is on the disk, and a list of
such states, one after the other, is where a new writer goes on. Whatever came after the last of them is dropped.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

from awq_ref.checkpoint.disk import byte_view, file_digest, sync, write_all, write_json, writing
from awq_ref.checkpoint.header import METADATA, build_header
from awq_ref.checkpoint.reader import INDEX_FILE, SINGLE_FILE
from awq_ref.checkpoint.storage import STORAGE, stored_form
from awq_ref.checks import require_one_of
from awq_ref.dtypes import U8, AnyArray
from awq_ref.errors import FormatError, OutputError, RangeError

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
    work : Path, optional
        A folder for spool files; with it, the writer can be taken up again, and removes nothing when it is left.
    states : sequence of mappings
        What `state` returned in the run that is taken up, in order.

    Raises
    ------
    RangeError
        If max_shard_bytes is not positive.
    OutputError
        If the files are not what the states say.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_shard_bytes: int = MAX_SHARD_BYTES,
        work: Path | None = None,
        states: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        if max_shard_bytes < 1:
            raise RangeError(f"ShardWriter: max_shard_bytes must be at least 1; got {max_shard_bytes}.")
        self.folder = Path(folder)
        self.max_shard_bytes = max_shard_bytes
        self.total_bytes = 0
        self._work = work
        self._names: set[str] = set()
        self._shards: list[list[str]] = []
        self._sums: list[str] = []  # of the finished files; "" without a work folder
        self._pending: list[_Spooled] = []
        self._pending_bytes = 0
        self._digest = hashlib.sha256()  # of the spool
        self._new: list[tuple[str, str, tuple[int, ...]]] = []  # since the last state
        for state in states:
            for name, dtype, shape in state["tensors"]:
                self._replay(name, dtype, tuple(shape))
        if states:
            self._recover(states[-1])
        with writing(self._spool_path):
            self._spool: BinaryIO = self._spool_path.open("r+b" if states else "w+b", buffering=0)
            self._spool.truncate(self._pending_bytes)
            self._spool.seek(self._pending_bytes)

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
        dtype, stored = stored_form(name, array, dtype)
        self.add_raw(name, dtype, array.shape, stored)

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
        if self._begins_shard(n_bytes):
            self._finish_shard()
        with writing(self.folder):
            write_all(self._spool, view)
        if self._work is not None:
            self._digest.update(view)
        self._note(name, dtype, tuple(shape), n_bytes)
        self._new.append((name, dtype, tuple(shape)))

    def _begins_shard(self, n_bytes: int) -> bool:
        return bool(self._pending) and self._pending_bytes + n_bytes > self.max_shard_bytes

    def _note(self, name: str, dtype: str, shape: tuple[int, ...], n_bytes: int) -> None:
        """Remember a tensor whose bytes are in the spool."""
        self._names.add(name)
        self._pending.append(_Spooled(name, dtype, shape, self._pending_bytes, n_bytes))
        self._pending_bytes += n_bytes
        self.total_bytes += n_bytes

    def _finish_shard(self) -> None:
        """Put the spooled tensors together as the next file, and begin a new spool."""
        part, ordered = self._part(len(self._shards)), _ordered(self._pending)
        header = build_header(((t.name, t.dtype, t.shape) for t in ordered), metadata=FILE_METADATA)
        with writing(self.folder), part.open("wb", buffering=0) as file:
            write_all(file, header)
            for tensor in ordered:
                self._spool.seek(tensor.start)
                _copy(self._spool, file, tensor.n_bytes)
        full = self._spool_path
        self._end_shard()
        with writing(self.folder):
            self._spool.close()
            if self._work is None:
                full.unlink()
            else:
                sync(part)
                self._sums[-1] = file_digest(part).hexdigest()
            self._digest = hashlib.sha256()
            self._spool = self._spool_path.open("w+b", buffering=0)

    def _end_shard(self) -> None:
        """Count the pending tensors as those of a finished file."""
        self._shards.append([tensor.name for tensor in _ordered(self._pending)])
        self._sums.append("")
        self._pending, self._pending_bytes = [], 0

    # ---- to be taken up again ----

    def state(self) -> dict[str, Any]:
        """Put on the disk what has come; return what a new writer must know of it, beside the states before."""
        with writing(self.folder):
            sync(self._spool_path)
        tensors, self._new = self._new, []
        sums = {"files": self._sums.copy(), "spool": self._digest.hexdigest()}
        return {"tensors": [[*tensor] for tensor in tensors], **sums}

    def drop_spools(self) -> None:
        """Remove the spools of finished files, once the state that names these files has been put down."""
        for spool in self._spools():
            if spool != self._spool_path:
                spool.unlink()

    def _replay(self, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        """Take note of a tensor that an earlier writer has stored."""
        n_bytes = math.prod(shape) * STORAGE[dtype].itemsize
        if self._begins_shard(n_bytes):
            self._end_shard()
        self._note(name, dtype, shape, n_bytes)

    def _recover(self, state: Mapping[str, Any]) -> None:
        """Hold the files to the checksums of the last state; remove those that are later."""
        self._sums = list(state["files"])
        named = [
            *self.folder.glob("model.safetensors"),
            *sorted(self.folder.glob("model-*-of-*.safetensors")),
        ]
        for number, path in enumerate(named):  # the run ended while it gave the files their names
            path.rename(self._part(number))
        (self.folder / INDEX_FILE).unlink(missing_ok=True)
        parts = [self._part(number) for number in range(len(self._shards))]
        for later in {*self.folder.glob(".part-*"), *self._spools()} - {*parts, self._spool_path}:
            later.unlink()
        found = [file_digest(part).hexdigest() for part in parts]
        self._digest = file_digest(self._spool_path, self._pending_bytes)
        if [*found, self._digest.hexdigest()] != [*self._sums, state["spool"]]:
            raise OutputError(
                f"{self.folder}: the blocks that an earlier run has finished must be as it left them; a checksum "
                "differs. Begin anew (--restart, restart=True)."
            )

    @property
    def _spool_path(self) -> Path:
        name = ".spool" if self._work is None else f"spool-{len(self._shards):05d}"
        return (self._work or self.folder) / name

    def _spools(self) -> Iterable[Path]:
        return [] if self._work is None else self._work.glob("spool-*")

    # ---- the end ----

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
        """Remove the spool and unfinished files, unless they may be taken up again."""
        self._spool.close()
        if self._work is None:
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


def _ordered(tensors: list[_Spooled]) -> list[_Spooled]:
    """Return tensors in the order in which they lie in their file: wider types first, otherwise as they came."""
    return sorted(tensors, key=lambda tensor: -STORAGE[tensor.dtype].itemsize)


def _copy(source: BinaryIO, target: BinaryIO, n_bytes: int) -> None:
    """Copy so many bytes from one file to another, piece by piece."""
    while n_bytes:
        piece = source.read(min(n_bytes, COPY_BYTES))
        write_all(target, piece)
        n_bytes -= len(piece)
