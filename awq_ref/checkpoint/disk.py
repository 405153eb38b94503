"""Writing to the disk: every failure becomes one clear OutputError.

    writing       with writing(path): an OSError inside becomes an OutputError that names path
    byte_view     the bytes of an array, not copied
    write_all     bytes to an unbuffered file, to the last one
    write_text    a text file, UTF-8
    write_json    a JSON file
    sync          ask the operating system to put a file or folder on the disk itself
    file_digest   the checksum of a file, or of its beginning

The disk counts as full when there is no space, a quota is used up, or a file would be larger than allowed.
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from awq_ref.dtypes import U8
from awq_ref.errors import OutputError

PIECE_BYTES = 4 * 1024 * 1024
FULL = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})


def output_error(path: Path, error: OSError) -> OutputError:
    """Return the error that says what kept path from being written."""
    if error.errno in FULL:
        cause, hint = "the disk is full", "Free some space, or write to another disk"
    else:
        cause, hint = error.strerror or str(error), "Choose a folder that you may write to"
    return OutputError(f"{path}: cannot be written: {cause}. {hint}; nothing is left half-written.")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError inside into an OutputError that names path."""
    try:
        yield
    except OutputError:  # is an OSError too, and says already what happened
        raise
    except OSError as error:
        raise output_error(path, error) from error


def byte_view(data: Any) -> memoryview:
    """Return the bytes of a contiguous array, or of anything like bytes, without a copy."""
    view = memoryview(data)
    return view.cast("B") if view.nbytes else memoryview(b"")


def write_all(file: BinaryIO, data: bytes | memoryview | U8) -> None:
    """Write all bytes to an unbuffered file: one call of its write may take only some."""
    rest = byte_view(data)
    while rest:
        rest = rest[file.write(rest) :]


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file with plain newlines.

    Raises
    ------
    OutputError
        If the disk is full or the file cannot be written.
    """
    with writing(path), path.open("wb", buffering=0) as file:
        write_all(file, text.encode("utf-8"))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object, two spaces a level, as Hugging Face's files are (OutputError as `write_text`)."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def sync(path: Path) -> None:
    """Ask the system to put a file, or a folder's entries, on the disk itself."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_digest(path: Path, n_bytes: int | None = None) -> "hashlib._Hash":
    """Return the SHA-256 of a file, or of its first n_bytes; of what there is, if it is shorter or absent."""
    digest = hashlib.sha256()
    if not path.is_file():
        return digest
    rest = path.stat().st_size if n_bytes is None else n_bytes
    with path.open("rb", buffering=0) as file:
        while rest and (piece := file.read(min(rest, PIECE_BYTES))):
            digest.update(piece)
            rest -= len(piece)
    return digest
