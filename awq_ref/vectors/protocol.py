"""The words of the conformance protocol: a case as a request line, an answer line as what it means.

    PROTOCOL         the version
    Answer           status, outputs, message
    BadAnswerError        a line that is no answer; says why
    hello_line, request_line    what goes out
    parse_hello, parse_answer   what comes in

Source: docs/conformance.md#the-protocol.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from awq_ref.dtypes import AnyArray
from awq_ref.errors import AwqRefError, FormatError
from awq_ref.vectors.case import Case
from awq_ref.vectors.codec import decode_array, encode_array
from awq_ref.vectors.files import PROTOCOL, VERSION

STATUSES = ("ok", "invalid", "unsupported", "error")


class BadAnswerError(AwqRefError):
    """A line that is no answer to the request."""


@dataclass(frozen=True)
class Answer:
    """What a backend said: status, outputs where it is "ok", its own message."""

    status: str
    outputs: Mapping[str, AnyArray] = field(default_factory=dict)
    message: str = ""


@dataclass(frozen=True)
class Hello:
    """How a backend introduced itself; None: it did not say which operations or layouts it has."""

    name: str
    version: str
    ops: tuple[str, ...] | None = None
    layouts: tuple[str, ...] | None = None

    def lacks(self, case: Case) -> str | None:
        """Return what a case needs and the backend said it does not have, or None."""
        if self.ops is not None and case.op not in self.ops:
            return f"op {case.op}"
        layout = case.params.get("layout")
        if self.layouts is not None and layout is not None and layout not in self.layouts:
            return f"layout {layout}"
        return None


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode("ascii") + b"\n"


def hello_line() -> bytes:
    """Return the first request."""
    params = {"protocol": PROTOCOL, "vectors": VERSION}
    return _line({"id": "hello", "op": "hello", "params": params, "inputs": {}})


def request_line(case: Case) -> bytes:
    """Return a case as a request, one line."""
    inputs = {name: encode_array(array) for name, array in case.inputs.items()}
    return _line({"id": case.id, "op": case.op, "params": dict(case.params), "inputs": inputs})


def _shown(line: bytes) -> str:
    return repr(line[:80].decode("utf-8", "replace").rstrip("\n"))


def _object(line: bytes, request_id: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise BadAnswerError(f"no JSON: {_shown(line)}; a stray print?") from None
    if not isinstance(record, dict):
        raise BadAnswerError(f"no JSON object: {_shown(line)}")
    if record.get("status") not in STATUSES:
        raise BadAnswerError(f"status must be one of {', '.join(STATUSES)}; got {record.get('status')!r}")
    if record.get("id", request_id) != request_id:
        raise BadAnswerError(f"id must be {request_id}; got {str(record['id'])[:80]!r}")
    return record


def parse_answer(line: bytes, case: Case) -> Answer:
    """Return what an answer line says; BadAnswerError if it is none."""
    record = _object(line, case.id)
    message = str(record.get("message", ""))[:400]
    if record["status"] != "ok":
        return Answer(record["status"], {}, message)
    outputs = record.get("outputs")
    if not isinstance(outputs, dict):
        raise BadAnswerError("outputs must be an object of arrays; it is missing or something else")
    try:
        return Answer("ok", {name: decode_array(array, name) for name, array in outputs.items()}, message)
    except FormatError as error:
        raise BadAnswerError(str(error)) from None


def _names(record: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
    names = record.get(key)
    return tuple(map(str, names)) if isinstance(names, list) else None


def parse_hello(line: bytes) -> Hello:
    """Return how a backend introduces itself; BadAnswerError if it does not, or speaks another protocol."""
    record = _object(line, "hello")
    if record["status"] != "ok":
        raise BadAnswerError(
            f"hello must be answered with ok; got {record['status']}: {record.get('message', '')}"
        )
    if record.get("protocol") != PROTOCOL:
        raise BadAnswerError(f"protocol must be {PROTOCOL}; got {record.get('protocol')!r}")
    name, version = (str(record.get(key, "?"))[:80] for key in ("name", "version"))
    return Hello(name, version, _names(record, "ops"), _names(record, "layouts"))
