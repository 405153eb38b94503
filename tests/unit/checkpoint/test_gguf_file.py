"""A GGUF file, byte for byte."""

import numpy as np
import pytest
from helpers.gguf_reader import read_gguf

from awq_ref.checkpoint import GgufTensor, write_gguf
from awq_ref.errors import FormatError, OutputError

# magic, version 3, one tensor, one key: "k" -> uint32 7; tensor "w" of one axis, 3, F32, offset 0; padding to 96
HEAD = (
    "47475546 03000000 0100000000000000 0100000000000000"
    "0100000000000000 6b 04000000 07000000"
    "0100000000000000 77 01000000 0300000000000000 00000000 0000000000000000"
)
W = np.array([1.0, -2.0, 0.5], dtype=np.float32)


def test_the_bytes_of_a_file(tmp_path):
    write_gguf(tmp_path / "a.gguf", {"k": 7}, [GgufTensor("w", (3,), "F32", W)])
    head = bytes.fromhex(HEAD)
    data = bytes.fromhex("0000803f 000000c0 0000003f")
    wanted = head + bytes(96 - len(head)) + data + bytes(32 - len(data))
    assert (tmp_path / "a.gguf").read_bytes() == wanted


def test_every_kind_of_value_comes_back(tmp_path):
    metadata = {
        "b": True,
        "i": 2**31,
        "f": 0.25,
        "s": "été",
        "texts": ["a", "Ġb"],
        "ints": [1, -5],
        "none": [],
    }
    matrix = np.arange(6, dtype=np.float16).reshape(2, 3)
    write_gguf(tmp_path / "a.gguf", metadata, [GgufTensor("m", (2, 3), "F16", matrix)])
    found, tensors = read_gguf(tmp_path / "a.gguf")
    assert found == metadata
    assert tensors["m"] == ((3, 2), 1, matrix.tobytes())


def test_a_wrong_size_is_named_and_nothing_is_left(tmp_path):
    with pytest.raises(FormatError, match=r"w must have 16 bytes, \(4,\) in F32; got 12"):
        write_gguf(tmp_path / "a.gguf", {}, [GgufTensor("w", (4,), "F32", W)])
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_exists_stays(tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists already"):
        write_gguf(tmp_path / "a.gguf", {}, [])
    assert (tmp_path / "a.gguf").read_bytes() == b"mine"
