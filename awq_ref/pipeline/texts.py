"""Text becomes token windows: files, strings, or ready-made ids.

read_text            a UTF-8 file, or a CorpusError that says what is wrong with it
encode_texts         texts -> one array of ids
calibration_windows  whatever the caller gave -> windows, and a fingerprint of them
evaluation_tokens    a file, or the standard library's held-out files -> ids
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from awq_ref.calibration import token_windows
from awq_ref.checks import require_shape
from awq_ref.dtypes import I64, AnyArray
from awq_ref.errors import CorpusError, DtypeError, RangeError
from awq_ref.text import Tokenizer
from awq_ref.text.corpus import stdlib_texts

# Files (Path), texts (str), or ids of shape (windows, seq). None: the standard library's calibration files.
Calibration: TypeAlias = Sequence[str | Path] | str | Path | AnyArray | None


def read_text(path: Path) -> str:
    """Read a UTF-8 text file.

    Raises
    ------
    CorpusError
        If the file is missing, empty or not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CorpusError(f"read_text: {path} must be a readable text file; {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"read_text: {path} must be UTF-8; byte {error.object[error.start]:#04x} at offset {error.start} is not. "
            f"Convert it, e.g. with iconv -t UTF-8."
        ) from error
    if not text.strip():
        raise CorpusError(f"read_text: {path} must hold text; it is empty.")
    return text


def encode_texts(tokenizer: Tokenizer, texts: Iterable[str]) -> I64:
    """Encode texts one by one, special tokens included, and join the ids."""
    parts = [tokenizer.encode(text) for text in texts]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def require_token_ids(who: str, token_ids: AnyArray, vocab_size: int) -> None:
    """Raise RangeError, naming the first bad one and its position, unless all ids lie in [0, vocab_size)."""
    if not np.issubdtype(token_ids.dtype, np.integer):
        raise DtypeError(f"{who}: token ids must be integers; got {token_ids.dtype}.")
    bad = np.argwhere((token_ids < 0) | (token_ids >= vocab_size))
    if len(bad):
        index = tuple(int(i) for i in bad[0])
        raise RangeError(
            f"{who}: token ids must lie in [0, {vocab_size - 1}]; got {token_ids[index]} at position {index}. "
            "Were they made by another model's tokenizer?"
        )


def _fingerprint(source: str, windows: I64) -> dict[str, Any]:
    """Describe calibration windows so that two runs can be compared."""
    digest = hashlib.sha256(np.ascontiguousarray(windows, dtype="<i8").tobytes()).hexdigest()
    return {"source": source, "windows": len(windows), "seq_len": int(windows.shape[1]), "sha256": digest}


def _as_list(calibration: Sequence[str | Path] | str | Path) -> list[str | Path]:
    return [calibration] if isinstance(calibration, str | Path) else list(calibration)


def calibration_windows(
    tokenizer: Tokenizer | None, calibration: Calibration, *, samples: int, seq_len: int, vocab_size: int
) -> tuple[I64, dict[str, Any]]:
    """Return calibration windows (n, seq_len) and their fingerprint.

    Parameters
    ----------
    calibration : files, texts, ids or None
        A `Path` is a UTF-8 file, a `str` is text itself, an integer array of shape (windows, seq) is used as it
        is; None stands for the calibration part of the standard library's source.

    Raises
    ------
    CorpusError
        If the text is empty, too short for one window, or not UTF-8.
    RangeError
        If an id lies outside the vocabulary.
    """
    who = "calibration"
    if isinstance(calibration, np.ndarray):
        require_shape(who, "token ids", calibration, (None, None))
        require_token_ids(who, calibration, vocab_size)
        windows = calibration.astype(np.int64)
        return windows, _fingerprint("token ids", windows)
    if tokenizer is None:
        raise CorpusError(
            f"{who}: text needs the model's tokenizer.json, which is missing. Give token ids instead."
        )
    if calibration is None:
        source, ids = "Python standard library", encode_texts(tokenizer, stdlib_texts("calibration"))
    else:
        given = _as_list(calibration)
        texts = [read_text(item) if isinstance(item, Path) else item for item in given]
        source = ", ".join(item.name if isinstance(item, Path) else "text" for item in given)
        ids = encode_texts(tokenizer, texts)
    require_token_ids(who, ids, vocab_size)
    windows = token_windows(ids, seq_len=seq_len, samples=samples)
    return windows, _fingerprint(source, windows)


def evaluation_tokens(
    tokenizer: Tokenizer, path: Path | None, *, limit: int | None = None
) -> tuple[I64, str, int]:
    """Return ids to evaluate on, the name of their source, and how many bytes of text they stand for.

    With no path: the held-out files of the standard library. With a limit every file gives the same
    number of tokens at most, so that one long file does not stand for all.
    """
    texts = [read_text(path)] if path else list(stdlib_texts("validation"))
    source = path.name if path else "Python standard library, held-out files"
    if limit is None:
        return encode_texts(tokenizer, texts), source, sum(len(text.encode()) for text in texts)
    parts = [tokenizer.encode(text) for text in texts]
    lengths = np.array([len(part) for part in parts], dtype=np.int64)
    share = next((n for n in range(1, limit + 1) if np.minimum(lengths, n).sum() >= limit), limit)
    ids = np.concatenate([part[:share] for part in parts])[:limit]
    return ids, source, len(tokenizer.decode(ids).encode())
