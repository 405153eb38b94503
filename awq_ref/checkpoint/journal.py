"""An output folder on which a second process can go on where a first one was stopped, at whatever moment.

    resumable_folder   with resumable_folder(path, identity) as journal: write into journal.model, which becomes path
    Journal            .finished: what an earlier run has put down; .commit(entry): one step more is done

Beside the target lies a hidden folder `.NAME.partial` with

    model/           what is going to be the target: its last step is a rename
    journal.jsonl    first the identity of the work, then a line for each step that is done; a torn last line is none
    lock             one process at a time
    all else         the files of whoever writes: spools, activations, reports

A step counts when its line is on the disk. Whoever writes a line has put down before it all that the line speaks of,
and removes nothing that the lines before it need until it is there.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from awq_ref.checkpoint.disk import FULL, output_error, sync, write_all, writing
from awq_ref.checkpoint.writer import make_parents, publish, remove_partial, require_new
from awq_ref.errors import AwqRefError, OutputError

JOURNAL, MODEL, LOCK = "journal.jsonl", "model", "lock"
SHOWN = 4  # differences named in a message


class Journal:
    """The steps of one piece of work. Made by `resumable_folder`.

    folder    everything but the lock is the writer's
    model     the folder that is going to be the target
    finished  the entries of the steps that are done, in order
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], *, restart: bool) -> None:
        self.folder, self.model = folder, folder / MODEL
        identity = json.loads(json.dumps(identity, default=str))  # as it will be read
        lines, n_bytes = _read_lines(folder / JOURNAL)
        if restart or len(lines) < 2 or not self.model.is_dir():
            lines, n_bytes = [], 0
        if lines and lines[0] != identity:
            raise _other_work(folder, lines[0], identity)
        self.finished: list[dict[str, Any]] = lines[1:]
        if not lines:
            _empty(folder)
            self.model.mkdir()
        self._file = (folder / JOURNAL).open("r+b" if lines else "wb", buffering=0)
        self._file.truncate(n_bytes)
        self._file.seek(n_bytes)
        if not lines:
            self._write(identity)

    def _write(self, entry: Mapping[str, Any]) -> None:
        with writing(self.folder):
            write_all(self._file, json.dumps(entry).encode("utf-8") + b"\n")
            os.fsync(self._file.fileno())
            sync(self.folder)

    def commit(self, entry: dict[str, Any]) -> None:
        """Put down that a step is done.

        Raises
        ------
        OutputError
            If the disk is full or cannot be written to.
        """
        self._write(entry)
        self.finished.append(entry)

    def close(self) -> None:
        """Let the file go."""
        self._file.close()


def _read_lines(path: Path) -> tuple[list[Any], int]:
    """Return what the whole lines of a journal say, and how many bytes they have."""
    lines: list[Any] = []
    n_bytes = 0
    for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else []:
        if not line.endswith(b"\n"):
            break
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
        n_bytes += len(line)
    return lines, n_bytes


def _empty(folder: Path) -> None:
    """Remove what an earlier run has left."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Return the leaves of nested objects, by dotted names."""
    if not isinstance(value, dict):
        return {name: value}
    return {
        k: v
        for key, inner in value.items()
        for k, v in _flat(inner, f"{name}.{key}" if name else key).items()
    }


def _other_work(folder: Path, was: Any, wanted: Any) -> OutputError:
    """Return the error that says how the unfinished work differs from what is asked for."""
    before, now = _flat(was), _flat(wanted)
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    told = "; ".join(f"{name}: {before.get(name)} then, {now.get(name)} now" for name in names[:SHOWN])
    more = f"; and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return OutputError(
        f"{folder}: holds the finished blocks of an interrupted run, which must be the same work; these differ: "
        f"{told}{more}. Run it as it was to continue, drop it (--restart, restart=True), or write to another folder."
    )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes out until the block, or this process, ends; where the system has no flock, do nothing."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with (folder / LOCK).open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise OutputError(
                f"{folder}: another process is writing there. Wait for it, or write to another folder."
            ) from None
        yield


def _keeps(journal: Journal, error: BaseException) -> bool:
    """Tell whether finished steps are worth keeping: there are some, and the same command could end otherwise."""
    same_again = isinstance(error, AwqRefError) and not isinstance(error, OutputError)
    return bool(journal.finished) and not same_again


def _stopped(journal: Journal, path: Path, error: BaseException) -> BaseException:
    """Return the error that also says what was kept."""
    kept = f"{len(journal.finished)} finished blocks are kept in {journal.folder}; the same command continues there."
    if isinstance(error, KeyboardInterrupt):
        return KeyboardInterrupt(kept)
    if isinstance(error, OSError) and not isinstance(error, OutputError) and error.errno in FULL:
        error = output_error(path, error)
    return OutputError(f"{error} {kept}") if isinstance(error, OutputError) else error


@contextmanager
def resumable_folder(
    path: str | Path, identity: Mapping[str, Any], *, restart: bool = False
) -> Iterator[Journal]:
    """Yield a journal; at the end its `model` becomes path, in one step.

    Parameters
    ----------
    path : str or Path
        Must not exist. Missing folders above it are created.
    identity : mapping, JSON-ready
        What must be equal for a step of an earlier run to be a step of this one.
    restart : bool
        Drop what an earlier run has left.

    Raises
    ------
    OutputError
        If path exists, before or at the end; if it cannot be written, or the disk is full; if an earlier run was other
        work; if another process is at it.

    Notes
    -----
    On an exception that the same command would meet again everything is removed. After an interrupt, a full disk or a
    death, finished steps stay.
    """
    path = Path(os.path.abspath(path))
    require_new(path)
    work, parents = path.with_name(f".{path.name}.partial"), []
    with writing(path):
        parents = make_parents(path)
        work.mkdir(exist_ok=True)
    with _locked(work):
        try:
            journal = Journal(work, identity, restart=restart)
        except BaseException:
            if len(_read_lines(work / JOURNAL)[0]) < 2:  # no step is lost with it
                remove_partial(work, parents)
            raise
        try:
            yield journal
            publish(journal.model, path)
        except BaseException as error:
            journal.close()
            if _keeps(journal, error):
                raise _stopped(journal, path, error) from error
            remove_partial(work, parents)
            if isinstance(error, OSError) and not isinstance(error, OutputError) and error.errno in FULL:
                raise output_error(path, error) from error
            raise
        journal.close()
        with suppress(OSError):
            shutil.rmtree(work)
