"""Hidden states between blocks: of all calibration windows, in memory or in a file, in float32 or float16.

    States         what a walk through the blocks reads and writes: windows by a slice, as float32
    StoredStates   those that are not simply a float32 array in memory
    StateStore     makes them, keeps them for a restart, finds them again
    blank_like     others of the same kind, for work

A file is read and written window by window, never mapped: mapped pages would count as the process's memory.
"""

import tempfile
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import BinaryIO, TypeAlias, Union

import numpy as np

from awq_ref.checkpoint.disk import byte_view, file_digest, write_all, writing
from awq_ref.dtypes import F32, AnyArray
from awq_ref.errors import OutputError, RangeError
from awq_ref.spec import StateDtype

Shape: TypeAlias = tuple[int, int, int]  # windows, tokens of a window, hidden_size


class StoredStates:
    """Hidden states in a dtype of their own, in memory or in a file.

    Parameters
    ----------
    shape : (windows, seq_len, hidden_size)
    dtype : "float32" or "float16"
    file : open binary file, unbuffered, or None
        None: in memory.
    folder : Path or None
        Of the files for `blank_like`.
    """

    def __init__(
        self, shape: Shape, dtype: StateDtype, file: BinaryIO | None = None, folder: Path | None = None
    ) -> None:
        self.shape, self.dtype, self.file, self.folder = shape, dtype, file, folder
        self._array = np.empty(shape, dtype=dtype) if file is None else None
        self._one_at_a_time = Lock()  # a file has one position
        if file is not None:
            weakref.finalize(self, file.close)

    def _seek(self, rows: slice) -> tuple[BinaryIO, tuple[int, ...]]:
        """Go to the first of some windows; return the file and the windows' shape."""
        assert self.file is not None
        first, last, _ = rows.indices(self.shape[0])
        shape = (last - first, *self.shape[1:])
        self.file.seek(first * self.shape[1] * self.shape[2] * np.dtype(self.dtype).itemsize)
        return self.file, shape

    def __getitem__(self, rows: slice) -> F32:
        """Return some windows, float32, an array of its own or a view."""
        if self._array is not None:
            return self._array[rows].astype(np.float32)
        with self._one_at_a_time:
            file, shape = self._seek(rows)
            part: AnyArray = np.empty(shape, dtype=self.dtype)
            rest = byte_view(part)
            while rest:
                n_read = file.readinto(rest)  # type: ignore[attr-defined]
                if not n_read:
                    raise OutputError("hidden states: their file must be whole; it ends early. Begin anew.")
                rest = rest[n_read:]
        return part.astype(np.float32, copy=False)

    def __setitem__(self, rows: slice, values: F32) -> None:
        part = _narrowed(values, self.dtype)
        if self._array is not None:
            self._array[rows] = part
            return
        with self._one_at_a_time, writing(self.folder or Path("hidden states")):
            file, _ = self._seek(rows)
            write_all(file, np.ascontiguousarray(part))

    def copy(self) -> "StoredStates":
        """Return the same states, to be changed apart from these."""
        other = blank_like(self)
        assert isinstance(other, StoredStates)
        for first in range(self.shape[0]):
            other[first : first + 1] = self[first : first + 1]
        return other


States: TypeAlias = Union[F32, StoredStates]  # noqa: UP007 (read at run time)


def _narrowed(values: F32, dtype: StateDtype) -> AnyArray:
    """Return values in a dtype; RangeError where finite ones do not fit."""
    if dtype == "float32":
        return values
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # an overflow is looked for below; a NaN is named later
        part = values.astype(np.float16)
    lost = np.isinf(part) & np.isfinite(values)
    if lost.any():
        raise RangeError(
            f"hidden states: must fit into float16, whose largest number is 65504; got {values[lost][0]}. Keep them in "
            "float32 (--activations float32)."
        )
    return part


def blank_like(states: States, *, width: int | None = None) -> States:
    """Return states to be filled, of the same shape, dtype and place; with a width, float32 of that width.

    Their file goes with them.
    """
    windows, seq_len, hidden = states.shape
    shape = (windows, seq_len, width or hidden)
    if isinstance(states, np.ndarray):
        return np.empty(shape, dtype=np.float32)
    file = None if states.file is None else _nameless(states.folder)
    return StoredStates(shape, "float32" if width else states.dtype, file, states.folder)


def _nameless(folder: Path | None) -> BinaryIO:
    with writing(folder or Path("hidden states")):
        return tempfile.TemporaryFile(dir=folder, buffering=0)


@dataclass
class StateStore:
    """Where hidden states are, while they are needed and for a restart.

    dtype   : in which they are kept between blocks
    spilled : in files, not in memory
    folder  : of the files; also keeps the states before each block until that block is done. None: neither
    sums    : checksums of what was kept, by the files' names
    """

    dtype: StateDtype = "float32"
    spilled: bool = False
    folder: Path | None = None
    sums: dict[str, str] = field(default_factory=dict)

    def _path(self, stream: str, layer: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{stream}-{layer:05d}"

    def blank(self, shape: Shape, stream: str, layer: int) -> States:
        """Return states to be filled, of a stream ("float", "rounded") before a layer."""
        if not self.spilled:
            return (
                np.empty(shape, dtype=np.float32)
                if self.dtype == "float32"
                else StoredStates(shape, self.dtype)
            )
        path = self._path(stream, layer)
        with writing(path):
            return StoredStates(shape, self.dtype, path.open("w+b", buffering=0), self.folder)

    def keep(self, states: States, stream: str, layer: int) -> None:
        """Keep states for a restart, if there is a folder for it."""
        if self.folder is None:
            return
        path = self._path(stream, layer)
        if not self.spilled:
            with writing(path), path.open("wb", buffering=0) as file:
                copy = StoredStates(_shape(states), self.dtype, file, self.folder)
                for first in range(states.shape[0]):
                    copy[first : first + 1] = states[first : first + 1]
        self.sums[path.name] = file_digest(path).hexdigest()

    def kept(self, layer: int) -> dict[str, str]:
        """Return the checksums of the states before a layer."""
        return {name: digest for name, digest in self.sums.items() if name.endswith(f"-{layer:05d}")}

    def load(self, shape: Shape, stream: str, layer: int) -> States:
        """Return the states that were kept before a layer.

        Raises
        ------
        OutputError
            If they are not what `sums` says.
        """
        path = self._path(stream, layer)
        if file_digest(path).hexdigest() != self.sums.get(path.name):
            raise OutputError(
                f"{path}: must be as an earlier run left it; its checksum differs. Begin anew (--restart, "
                "restart=True)."
            )
        stored = StoredStates(shape, self.dtype, path.open("r+b", buffering=0), self.folder)
        if self.spilled:
            return stored
        states = self.blank(shape, stream, layer)
        for first in range(shape[0]):
            states[first : first + 1] = stored[first : first + 1]
        return states

    def forget(self, layer: int) -> None:
        """Remove what was kept before the layers up to this one, now that it is done."""
        for name in [name for name in self.sums if int(name[-5:]) <= layer]:
            del self.sums[name]
            assert self.folder is not None
            with suppress(OSError):  # Windows: it is open still, and goes with the folder
                (self.folder / name).unlink()


def _shape(states: States) -> Shape:
    windows, seq_len, hidden = states.shape
    return windows, seq_len, hidden
