"""The text that is on every user's machine: the source of the Python standard library.

    stdlib_root     where the running interpreter keeps it
    split_of        which part a file belongs to (train, calibration, validation)
    stdlib_files    the files of one part, in a fixed order
    stdlib_texts    their contents

A file's part depends on its path alone, so a file that was held out when the embedded model was trained is
held out on every other Python version too.
"""

import hashlib
import sysconfig
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from awq_ref.errors import CorpusError

Split = Literal["train", "calibration", "validation"]

# Percent of the files that fall to each part, in the order of Split.
SPLIT_PERCENT = {"train": 86, "calibration": 6, "validation": 8}

# Folders whose files are not library source: other people's packages, tests, generated tables.
SKIPPED_FOLDERS = frozenset(
    {"site-packages", "dist-packages", "__pycache__", "lib-dynload", "encodings", "pydoc_data", "_bundled"}
)
TEST_FOLDERS = frozenset({"test", "tests", "idle_test"})


def stdlib_root() -> Path:
    """Return the folder that holds the running interpreter's standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def split_of(relative_path: str) -> Split:
    """Return the part of the corpus that a file belongs to.

    Parameters
    ----------
    relative_path : str
        Path below the library, with forward slashes, e.g. ``"json/decoder.py"``.

    Returns
    -------
    split : "train", "calibration" or "validation"
        From the first four bytes of SHA-256(path) modulo 100 and `SPLIT_PERCENT`.

    Examples
    --------
    >>> split_of("json/decoder.py")
    'train'
    """
    percent = int.from_bytes(hashlib.sha256(relative_path.encode()).digest()[:4], "big") % 100
    upper = 0
    splits: tuple[Split, ...] = get_args(Split)
    for split in splits:
        upper += SPLIT_PERCENT[split]
        if percent < upper:
            return split
    raise AssertionError("SPLIT_PERCENT must add up to 100")


def _is_source(path: PurePosixPath, *, with_tests: bool) -> bool:
    folders = set(path.parts[:-1])
    if folders & SKIPPED_FOLDERS or any(part.startswith("config-") for part in folders):
        return False
    if path.name.startswith("_sysconfigdata"):
        return False
    return with_tests or not folders & TEST_FOLDERS


def stdlib_files(split: Split, *, with_tests: bool = False) -> list[Path]:
    """List the library's source files of one part, sorted by their path below the library.

    Raises
    ------
    CorpusError
        If this Python installation ships no library source (some embedded builds do not).
    """
    root = stdlib_root()
    relative = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    chosen = [
        name
        for name in relative
        if _is_source(PurePosixPath(name), with_tests=with_tests) and split_of(name) == split
    ]
    if not chosen:
        raise CorpusError(
            f"stdlib_files: the Python library's source must lie in {root}; found no {split} file there. "
            "Give your own text files instead."
        )
    return [root / name for name in chosen]


def stdlib_texts(split: Split, *, with_tests: bool = False) -> Iterator[str]:
    """Yield the text of each file of one part; a file that is not UTF-8 (old test data) is passed over."""
    for path in stdlib_files(split, with_tests=with_tests):
        try:
            yield path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
