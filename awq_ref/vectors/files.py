"""Cases as files: JSON, raw arrays, a manifest, checksums.

    VERSION         of the vectors
    files_of        cases -> name -> bytes of every file
    case_record     a case as JSON has it

Same cases, same bytes, on every machine. Source: docs/conformance.md#a-case.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from awq_ref.dtypes import AnyArray
from awq_ref.vectors.case import Case, Expected
from awq_ref.vectors.codec import encode_array, to_bytes
from awq_ref.vectors.flags import FLAGS
from awq_ref.vectors.tensor_file import tensor_file

VERSION = "1.0"
PROTOCOL = 1
INLINE_BYTES = 4096  # of an array; a larger one is a file of its own
MANIFEST, CHECKSUMS = "manifest.json", "SHA256SUMS"
SCHEMAS = Path(__file__).resolve().parent / "schema"
PROVENANCE = "PROVENANCE.md"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def to_json(record: Mapping[str, Any]) -> bytes:
    """Return a record as ASCII JSON, one key a line, ending in a line feed."""
    return (json.dumps(record, indent=1) + "\n").encode("ascii")


def _array_record(array: AnyArray, name: str, files: dict[str, bytes]) -> dict[str, Any]:
    """Return an array inline, or as the name of a file that is added to files."""
    if array.nbytes <= INLINE_BYTES:
        return encode_array(array)
    files[name] = to_bytes(array)
    header = {"dtype": array.dtype.name, "shape": list(array.shape)}
    return {**header, "file": name, "sha256": _sha256(files[name])}


def _expected_record(expected: Expected, name: str, files: dict[str, bytes]) -> dict[str, Any]:
    compare: dict[str, Any] = {"rule": expected.rule}
    if expected.rule == "ulp":
        compare["ulps"] = expected.ulps
    if expected.bound is not None:
        compare["bound"] = _array_record(expected.bound, f"{name}.bound.bin", files)
    if expected.why:
        compare["why"] = expected.why
    return {"array": _array_record(expected.array, f"{name}.bin", files), "compare": compare}


def _bundled_inputs(case: Case, files: dict[str, bytes]) -> dict[str, Any]:
    """Return the inputs of a case whose weights lie in one .safetensors file."""
    weights = {name: array for name, array in case.inputs.items() if name not in case.inline}
    files[case.bundle] = tensor_file(weights)
    digest = _sha256(files[case.bundle])
    records: dict[str, Any] = {}
    for name, array in case.inputs.items():
        if name in case.inline:
            records[name] = encode_array(array)
        else:
            header = {"dtype": array.dtype.name, "shape": list(array.shape)}
            records[name] = {**header, "file": case.bundle, "tensor": name, "sha256": digest}
    return records


def case_record(case: Case, files: dict[str, bytes]) -> dict[str, Any]:
    """Return a case as JSON has it; files receives the arrays that are too large to stand in it."""
    short = case.id.split("/", 2)[2]
    stem = f"{case.level}/data/{case.op}-{short}"
    if case.bundle:
        inputs = _bundled_inputs(case, files)
    else:
        inputs = {n: _array_record(a, f"{stem}.{n}.bin", files) for n, a in case.inputs.items()}
    return {
        "id": case.id,
        "op": case.op,
        "comment": case.comment,
        "flags": list(case.flags),
        "params": dict(case.params),
        "inputs": inputs,
        "result": "valid" if case.is_valid else "invalid",
        "expected": {n: _expected_record(e, f"{stem}.expected-{n}", files) for n, e in case.expected.items()},
        "source": case.source,
        "since": case.since,
    }


def _manifest(cases: Sequence[Case], files: Mapping[str, bytes]) -> dict[str, Any]:
    used = {flag for case in cases for flag in case.flags}
    counts: dict[str, int] = defaultdict(int)
    for case in cases:
        counts[f"{case.level}/{case.op}.json"] += 1
    return {
        "format": "awq-ref-vectors-manifest",
        "version": VERSION,
        "protocol": PROTOCOL,
        "cases": len(cases),
        "files": {
            name: {"bytes": len(data), "sha256": _sha256(data)}
            | ({"cases": counts[name]} if name in counts else {})
            for name, data in sorted(files.items())
        },
        "flags": {flag: story for flag, story in FLAGS.items() if flag in used},
    }


def files_of(cases: Iterable[Case]) -> dict[str, bytes]:
    """Return every file of a set of cases: name below the folder -> bytes.

    Two cases of one id are an error of whoever wrote them.
    """
    cases = list(cases)
    assert len({case.id for case in cases}) == len(cases), "an id is given to one case alone"
    files: dict[str, bytes] = {}
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for case in cases:
        groups[f"{case.level}/{case.op}.json"].append(case_record(case, files))
    for name, records in groups.items():
        header = {"format": "awq-ref-vectors", "version": VERSION, "level": name.split("/")[0]}
        files[name] = to_json({**header, "cases": records})
    for path in sorted(SCHEMAS.glob("*.json")):
        files[f"schema/{path.name}"] = path.read_bytes()
    files[MANIFEST] = to_json(_manifest(cases, files))
    lines = [f"{_sha256(data)}  {name}\n" for name, data in sorted(files.items())]
    files[CHECKSUMS] = "".join(lines).encode("ascii")
    files[PROVENANCE] = (SCHEMAS / PROVENANCE).read_bytes()  # witnesses may join: it has no checksum
    return files
