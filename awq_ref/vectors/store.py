"""Vectors on disk: written, copied, read, and refused when a byte has changed.

    RELEASED       the folder of the vectors that ship in the package
    write_files    name -> bytes, into a folder
    read_cases     a folder -> its cases, every file verified
    copy_vectors   some of the shipped cases as a folder of their own

Source: docs/conformance.md#a-case.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from awq_ref.dtypes import AnyArray
from awq_ref.errors import FormatError, OutputError, RangeError
from awq_ref.vectors.case import Case, Expected
from awq_ref.vectors.catalog import selected
from awq_ref.vectors.codec import decode_array, from_bytes, read_header
from awq_ref.vectors.files import CHECKSUMS, VERSION, files_of
from awq_ref.vectors.tensor_file import read_tensors

RELEASED = Path(__file__).resolve().parent / "v1"


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files below a folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _read_verified(folder: Path) -> dict[str, bytes]:
    """Return every file that the checksums list; FormatError names one that is missing, changed or too many."""
    sums = folder / CHECKSUMS
    if not sums.is_file():
        raise FormatError(
            f"{folder}: must hold {CHECKSUMS}; it does not. Give a folder of `awq-ref vectors copy`."
        )
    files: dict[str, bytes] = {}
    for line in sums.read_text(encoding="ascii", errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        path = folder / name
        if len(digest) != 64 or not name or ".." in Path(name).parts or Path(name).is_absolute():
            raise FormatError(
                f"{sums}: each line must be a SHA-256, two spaces and a name; got {line[:80]!r}."
            )
        if not path.is_file():
            raise FormatError(f"{path}: is missing, though {CHECKSUMS} lists it. Copy the vectors again.")
        files[name] = path.read_bytes()
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise FormatError(
                f"{path}: was altered: its SHA-256 is not that in {CHECKSUMS}. Vectors never change; copy them again."
            )
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*.json")}
    extra = sorted(present - set(files))
    if extra:
        raise FormatError(
            f"{folder / extra[0]}: is not listed in {CHECKSUMS}. Remove it, or copy the vectors again."
        )
    return files


class _Reader:
    """Turns records of arrays into arrays; a .safetensors file is read once."""

    def __init__(self, files: Mapping[str, bytes], folder: Path) -> None:
        self._files, self._folder = files, folder
        self._bundles: dict[str, dict[str, AnyArray]] = {}

    def array(self, record: Any, who: str) -> AnyArray:
        name = record.get("file") if isinstance(record, Mapping) else None
        if name is None:
            return decode_array(record, who)
        dtype, shape = read_header(record, who)
        if name not in self._files:
            raise FormatError(f"{who}: its file {name} is not listed in {CHECKSUMS}.")
        if "tensor" not in record:
            return from_bytes(self._files[name], dtype, shape)
        if name not in self._bundles:
            self._bundles[name] = read_tensors(self._files[name], str(self._folder / name))
        return self._bundles[name][record["tensor"]]

    def expected(self, record: Mapping[str, Any], who: str) -> Expected:
        compare = record["compare"]
        bound = self.array(compare["bound"], who) if "bound" in compare else None
        return Expected(
            self.array(record["array"], who),
            compare["rule"],
            ulps=compare.get("ulps", 0),
            bound=bound,
            why=compare.get("why", ""),
        )

    def case(self, record: Mapping[str, Any]) -> Case:
        who = record["id"]
        inputs = {name: self.array(array, who) for name, array in record["inputs"].items()}
        files = {array["file"] for array in record["inputs"].values() if "tensor" in array}
        return Case(
            who,
            record["params"],
            inputs,
            {name: self.expected(item, who) for name, item in record["expected"].items()},
            record["comment"],
            record["source"],
            tuple(record["flags"]),
            record["since"],
            bundle=next(iter(files), ""),
            inline=tuple(name for name, array in record["inputs"].items() if "tensor" not in array),
        )


def read_cases(folder: Path = RELEASED) -> list[Case]:
    """Return the cases of a folder, in the order of levels and files.

    Raises
    ------
    FormatError
        If a file is missing, was altered or added, or is not of this version; it is named.
    """
    files = _read_verified(folder)
    reader = _Reader(files, folder)
    cases: list[Case] = []
    for name in sorted(files):
        if not (name.startswith("L") and name.endswith(".json")):
            continue
        try:
            content = json.loads(files[name])
            if content["version"].split(".")[0] != VERSION.split(".")[0]:
                raise FormatError(f"{folder / name}: must be of version {VERSION}; got {content['version']}.")
            cases += [reader.case(record) for record in content["cases"]]
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise FormatError(
                f"{folder / name}: must hold cases; {error!r}. Copy the vectors again."
            ) from None
    return cases


def copy_vectors(out: Path, levels: Sequence[str] = (), layouts: Sequence[str] = ()) -> int:
    """Write the shipped cases of some levels and layouts into a new folder; return how many they are.

    Raises
    ------
    RangeError
        If no case has these levels and layouts.
    OutputError
        If the folder exists already or cannot be written.
    """
    cases = selected(read_cases(), levels, layouts)
    if not cases:
        raise RangeError("vectors copy: at least one case must have this level and layout; none has.")
    if out.exists():
        raise OutputError(f"vectors copy: {out} must not exist yet; it does. Name another folder.")
    try:
        write_files(out, files_of(cases))
    except OSError as error:
        raise OutputError(f"vectors copy: {out} cannot be written: {error.strerror}.") from None
    return len(cases)
