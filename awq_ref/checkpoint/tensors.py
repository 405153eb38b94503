"""One safetensors file, read tensor by tensor.

    TensorFile    .names, .info(name), .raw(name), .read(name), .read_float32(name, rows=...)

Why not the safetensors library: its NumPy interface has no bfloat16, and a conversion after it would hold a
tensor twice. Here a tensor is read piece by piece into the array that is returned; only `raw` maps the file.
"""

import math
from pathlib import Path

import numpy as np

from awq_ref.checkpoint.disk import byte_view
from awq_ref.checkpoint.float8 import float8_e4m3_to_float32
from awq_ref.checkpoint.header import TensorInfo, read_header
from awq_ref.checkpoint.near import missing_tensor
from awq_ref.checkpoint.storage import FLOAT_DTYPES, STORAGE, bfloat16_to_float32
from awq_ref.dtypes import F32, U8, AnyArray
from awq_ref.errors import DtypeError, FormatError, RangeError

# Numbers converted at a time: 512 KiB of float32 stays in a core's cache between reading and converting.
CHUNK_ITEMS = 128 * 1024


def _row_range(name: str, shape: tuple[int, ...], rows: slice | None) -> tuple[int, tuple[int, ...]]:
    """Return (items before the wanted rows, shape of the wanted rows)."""
    if rows is None:
        return 0, shape
    if not shape or rows.step not in (None, 1):
        raise RangeError(
            f"read_float32: rows must be a slice without a step, of a tensor with an axis; got {rows} "
            f"for {name} {shape}."
        )
    first, last, _ = rows.indices(shape[0])
    return first * math.prod(shape[1:]), (max(last - first, 0), *shape[1:])


class TensorFile:
    """A safetensors file whose header has been read and checked.

    Parameters
    ----------
    path : Path

    Raises
    ------
    FormatError
        If the file cannot be read or breaks the format: see `read_header`.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        header = read_header(self.path)
        self.metadata = header.metadata
        self._tensors = header.tensors

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors' names in the order of their bytes."""
        return tuple(self._tensors)

    def info(self, name: str) -> TensorInfo:
        """Return dtype, shape and byte range of a tensor.

        Raises
        ------
        MissingTensorError
            If the file has no such tensor.
        """
        if name not in self._tensors:
            raise missing_tensor(str(self.path), [name], self._tensors)
        return self._tensors[name]

    def raw(self, name: str) -> U8:
        """Return a tensor's bytes, uint8 (n_bytes,): a read-only view of the mapped file."""
        info = self.info(name)
        if not info.n_bytes:
            return np.empty(0, dtype=np.uint8)
        # A map of its own each time: its pages leave memory with the view.
        return np.asarray(
            np.memmap(self.path, dtype=np.uint8, mode="r", offset=info.start, shape=(info.n_bytes,))
        )

    def read(self, name: str) -> AnyArray:
        """Return a tensor in the dtype it is stored in, as an array of its own; bfloat16 and F8_E4M3 as float32.

        Raises
        ------
        MissingTensorError
            If the file has no such tensor.
        DtypeError
            If NumPy has no such dtype, and it is not bfloat16 or F8_E4M3 (F8_E5M2).
        FormatError
            If the file has become shorter since it was opened.
        """
        info = self.info(name)
        if info.dtype == "BF16":
            return self.read_float32(name)
        if info.dtype == "F8_E4M3":
            return float8_e4m3_to_float32(self.raw(name)).reshape(info.shape)
        words = STORAGE[info.dtype].words
        if words is None:
            raise DtypeError(
                f"{self.path}: {name} is stored as {info.dtype}, which NumPy does not have. Take a "
                "checkpoint in float16, bfloat16 or float32."
            )
        array = np.empty(math.prod(info.shape), dtype=np.uint8 if info.dtype == "BOOL" else words)
        self._fill(name, info.start, array)
        return array.reshape(info.shape).astype(words.newbyteorder("="), copy=False)

    def read_float32(self, name: str, *, rows: slice | None = None) -> F32:
        """Return a tensor of floats as float32; with rows, only those of its first axis.

        Holds the returned array and less than 1 MiB more. float16 and bfloat16 widen exactly; float64 is
        rounded, and becomes infinite where float32 ends.

        Raises
        ------
        MissingTensorError
            If the file has no such tensor.
        DtypeError
            If the tensor does not hold floats.
        RangeError
            If rows has a step, or the tensor no axis.
        FormatError
            If the file has become shorter since it was opened.
        """
        info = self.info(name)
        if info.dtype not in FLOAT_DTYPES:
            raise DtypeError(
                f"{self.path}: {name} must hold floats ({', '.join(FLOAT_DTYPES)}); it is stored as "
                f"{info.dtype}. Is this checkpoint quantized already?"
            )
        skipped, shape = _row_range(name, info.shape, rows)
        out = np.empty(math.prod(shape), dtype=np.float32)
        start = info.start + skipped * STORAGE[info.dtype].itemsize
        if STORAGE[info.dtype].words == out.dtype:
            self._fill(name, start, out)
        else:
            self._convert(name, info.dtype, start, out)
        return out.reshape(shape)

    def _convert(self, name: str, dtype: str, start: int, out: F32) -> None:
        """Fill out with the numbers from byte start on, a chunk at a time."""
        words = STORAGE[dtype].words
        buffer: AnyArray = np.empty(min(CHUNK_ITEMS, out.size), dtype=words)
        for first in range(0, out.size, CHUNK_ITEMS):
            part = out[first : first + CHUNK_ITEMS]
            chunk = buffer[: part.size]
            self._fill(name, start + first * buffer.itemsize, chunk)
            if dtype == "BF16":
                bfloat16_to_float32(chunk, out=part)
            else:
                with np.errstate(over="ignore", invalid="ignore"):  # float64 beyond float32; signalling NaN
                    part[:] = chunk

    def _fill(self, name: str, start: int, out: AnyArray) -> None:
        """Fill a 1-D array with the bytes of the file from start on."""
        rest = byte_view(out)
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(start)
                while rest:
                    n_read = file.readinto(rest)
                    if not n_read:
                        raise FormatError(
                            f"{self.path}: ends inside {name}; it has changed since it was opened."
                        )
                    rest = rest[n_read:]
        except OSError as error:
            raise FormatError(f"{self.path}: {name} cannot be read: {error.strerror}.") from error
