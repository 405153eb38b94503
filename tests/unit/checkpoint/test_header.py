"""Headers that are right, and every way in which one can be wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from awq_ref.checkpoint.header import TensorInfo, build_header, read_header
from awq_ref.errors import FormatError

ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
TWO = {"dtype": "U8", "shape": [4], "data_offsets": [8, 12]}


def write(path: Path, header: object, data: bytes = b"", *, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.safetensors"


def test_a_header_of_the_safetensors_library(path):
    save_file(
        {"b": np.zeros((2, 3), dtype=np.float16), "a": np.ones(1, dtype=np.int64)},
        path,
        metadata={"format": "np"},
    )
    header = read_header(path)
    start = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    assert header.metadata == {"format": "np"}
    assert header.tensors == {
        "a": TensorInfo("I64", (1,), start, start + 8),
        "b": TensorInfo("F16", (2, 3), start + 8, start + 20),
    }
    assert header.tensors["b"].n_bytes == 12


def test_tensors_come_in_the_order_of_their_bytes(path):
    assert list(read_header(write(path, {"two": TWO, "one": ONE}, bytes(12))).tensors) == ["one", "two"]


def test_empty_tensors_and_scalars_take_their_place(path):
    entries = {
        "empty": {"dtype": "F32", "shape": [0, 5], "data_offsets": [8, 8]},
        "one": ONE,
        "scalar": {"dtype": "U8", "shape": [], "data_offsets": [8, 9]},
    }
    tensors = read_header(write(path, entries, bytes(9))).tensors
    assert [(info.shape, info.n_bytes) for info in tensors.values()] == [((2,), 8), ((0, 5), 0), ((), 1)]


def entry(**changes: object) -> dict[str, object]:
    return {"one": ONE | changes}


@pytest.mark.parametrize(
    "header, data, match",
    [
        (b"", b"", "header is not JSON"),
        (b"{", b"", "header is not JSON"),
        (b"\xff\xfe{}", b"", "header is not JSON"),
        (b"[" * 100_000, b"", "header is not JSON"),
        (b'{"one": ' + b"9" * 5000 + b"}", b"", "header is not JSON"),
        (b'{"one": 1, "one": 2}', b"", "a name occurs twice"),
        (b"[]", b"", "not a JSON object"),
        ({"__metadata__": {"a": 1}}, b"", "__metadata__ must map text to text"),
        ({"__metadata__": []}, b"", "__metadata__ must map text to text"),
        ({"one": 7}, bytes(8), "dtype None; known are BOOL"),
        (entry(dtype="F31"), bytes(8), "'one' has the dtype 'F31'; known are BOOL"),
        (entry(dtype=["F32"]), bytes(8), "dtype"),
        (entry(shape=None), bytes(8), "'one' has no usable shape"),
        (entry(shape=[-2]), bytes(8), "no usable shape"),
        (entry(shape=[2.0]), bytes(8), "no usable shape"),
        (entry(shape=[True, 2]), bytes(8), "no usable shape"),
        (entry(shape=[2**64]), bytes(8), "no usable shape"),
        (entry(shape=[0, 2**40, 2**40], data_offsets=[0, 0]), b"", "no usable shape"),
        (entry(shape=[2, *[1] * 70]), bytes(8), "no usable shape"),
        (entry(data_offsets=[0]), bytes(8), "'one' has no usable data_offsets"),
        (entry(data_offsets=[-8, 0]), bytes(8), "no usable data_offsets"),
        (entry(data_offsets="08"), bytes(8), "no usable data_offsets"),
        (entry(data_offsets=[8, 0]), bytes(8), r"needs 8 bytes; its data_offsets are \[8, 0\]"),
        (entry(shape=[3]), bytes(8), r"'one', F32 \[3\], needs 12 bytes; its data_offsets are \[0, 8\]"),
        (entry(data_offsets=[4, 12]), bytes(12), "starts at byte .*: overlap or hole"),
        (
            {"one": ONE, "two": TWO | {"data_offsets": [4, 8]}},
            bytes(8),
            "'two' starts at byte .* overlap or hole",
        ),
        (
            {"one": ONE, "two": TWO | {"data_offsets": [9, 13]}},
            bytes(13),
            "'two' starts at byte .* overlap or hole",
        ),
        ({"one": ONE}, bytes(7), "tensors end at byte"),
        ({"one": ONE}, bytes(9), "tensors end at byte"),
        ({}, bytes(1), "tensors end at byte"),
    ],
)
def test_what_is_wrong_is_said(path, header, data, match):
    with pytest.raises(FormatError, match=f"x.safetensors: not a valid safetensors file: .*{match}"):
        read_header(write(path, header, data))


@pytest.mark.parametrize("length", [3, 2**40, 2**64 - 1])
def test_a_header_length_beyond_the_file(path, length):
    with pytest.raises(FormatError, match=f"header should have {length} bytes, but the file has 10"):
        read_header(write(path, b"{}", length=length))


@pytest.mark.parametrize("n_bytes", [0, 7])
def test_a_file_shorter_than_the_length(path, n_bytes):
    path.write_bytes(bytes(n_bytes))
    with pytest.raises(FormatError, match=f"it has {n_bytes} bytes, fewer than the 8"):
        read_header(path)


def test_a_header_beyond_the_limit_is_not_read(path):
    with path.open("wb") as file:  # a file with a hole: no disk space
        file.write((100_000_001).to_bytes(8, "little"))
        file.truncate(200_000_000)
    with pytest.raises(FormatError, match="header should have 100000001 bytes"):
        read_header(path)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(FormatError, match="cannot be read: No such file"):
        read_header(tmp_path / "none.safetensors")


def test_a_built_header_in_full():
    header = build_header([("a", "F32", (2, 1)), ("b", "F16", (3,))], metadata={"format": "pt"})
    text = (
        b'{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},'
        b'"b":{"dtype":"F16","shape":[3],"data_offsets":[8,14]}}'
    )
    assert header[:8] == len(header[8:]).to_bytes(8, "little")
    assert header[8:].rstrip(b" ") == text
    assert len(header) % 8 == 0
