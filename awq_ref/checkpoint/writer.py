"""The output folder: it appears whole or not at all.

    require_new        nothing is there yet
    new_folder         with new_folder(path) as folder: write into folder; it becomes path at the end
    make_parents, publish, remove_partial    the steps of which new_folder and `resumable_folder` are made
    copy_side_files    tokenizer, generation settings, chat template and licence, from the source

Everything is written to a hidden folder beside the target and put on the disk; the last step is one rename.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from awq_ref.checkpoint.disk import FULL, output_error, sync, writing
from awq_ref.errors import OutputError

SIDE_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "generation_config.json",
    "chat_template*",
    "LICENSE*",
    "NOTICE*",
)

# What a side file may end in. Never code, never weights.
SIDE_SUFFIXES = frozenset({"", ".json", ".jinja", ".txt", ".model", ".md"})


def copy_side_files(source: Path, target: Path) -> list[str]:
    """Copy what belongs to a model beside config and weights; return the names, sorted.

    Parameters
    ----------
    source, target : Path
        Folders. Files match `SIDE_FILES` and end in one of `SIDE_SUFFIXES`: no .py, no weights.

    Raises
    ------
    OutputError
        If a file cannot be copied.
    """
    found = {
        path.name
        for pattern in SIDE_FILES
        for path in Path(source).glob(pattern)
        if path.is_file() and path.suffix in SIDE_SUFFIXES
    }
    for name in sorted(found):
        with writing(Path(target) / name):
            shutil.copyfile(Path(source) / name, Path(target) / name)
    return sorted(found)


def require_new(path: Path) -> None:
    """Raise OutputError if there is something at path already: better said before the work than after it."""
    if os.path.lexists(path):
        raise OutputError(
            f"{path}: exists already and is left as it is. Give a new name, or remove it first."
        )


def make_parents(path: Path) -> list[Path]:
    """Create the folders above path; return those that are new, innermost first."""
    missing = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    return missing


def remove_partial(folder: Path, parents: list[Path]) -> None:
    """Remove an unfinished folder and the empty folders that were made for it."""
    shutil.rmtree(folder, ignore_errors=True)
    for parent in parents:
        try:
            parent.rmdir()
        except OSError:  # someone else has put something there
            return


def publish(partial: Path, path: Path) -> None:
    """Put the finished folder on the disk and give it its name."""
    with writing(path):
        for file in sorted(partial.rglob("*")):
            sync(file)
        sync(partial)
        require_new(path)
        partial.rename(path)
        sync(path.parent)


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Yield a hidden folder to write into; at the end it becomes path, in one step.

    On any exception, an interrupt included, it is removed: path never holds half a model.

    Parameters
    ----------
    path : str or Path
        Must not exist. Missing folders above it are created.

    Raises
    ------
    OutputError
        If path exists, before or at the end; if it cannot be written; if the disk is full, wherever inside
        the with-block that shows.

    Notes
    -----
    A process killed outright leaves the hidden folder `.NAME.partial-XXXXXXXX` behind; it may be deleted.
    """
    path = Path(os.path.abspath(path))
    require_new(path)
    partial = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
    parents: list[Path] = []
    try:
        with writing(path):
            parents = make_parents(path)
            partial.mkdir()
        yield partial
        publish(partial, path)
    except BaseException as error:
        remove_partial(partial, parents)
        if isinstance(error, OSError) and not isinstance(error, OutputError) and error.errno in FULL:
            raise output_error(path, error) from error
        raise
