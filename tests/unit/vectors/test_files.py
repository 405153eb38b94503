"""Vectors as files: read as they were written, refused by name when a byte has changed."""

import json
import shutil

import numpy as np
import pytest

from awq_ref.errors import FormatError, OutputError, RangeError
from awq_ref.vectors import copy_vectors, read_cases
from awq_ref.vectors.codec import decode_array, encode_array
from awq_ref.vectors.store import RELEASED
from awq_ref.vectors.tensor_file import read_tensors, tensor_file


@pytest.fixture
def copied(tmp_path):
    out = tmp_path / "out"
    copy_vectors(out, levels=["L1", "L3"])
    return out


def test_a_copy_holds_the_cases_asked_for(copied):
    cases = read_cases(copied)
    assert {case.level for case in cases} == {"L1", "L3"}
    released = {case.id: case for case in read_cases()}
    for case in cases:
        assert case.params == released[case.id].params
        for name, array in case.inputs.items():
            np.testing.assert_array_equal(array, released[case.id].inputs[name])
    assert json.loads((copied / "manifest.json").read_text(encoding="utf-8"))["cases"] == len(cases)
    assert list(copied.rglob("*.bin"))


def test_a_copy_by_layout(tmp_path):
    copy_vectors(tmp_path / "gemm", layouts=["gemm"])
    assert {case.params["layout"] for case in read_cases(tmp_path / "gemm")} == {"gemm"}
    with pytest.raises(RangeError, match="at least one case"):
        copy_vectors(tmp_path / "none", levels=["L6"], layouts=["gemm"])


def test_a_copy_never_overwrites(tmp_path):
    with pytest.raises(OutputError, match="must not exist"):
        copy_vectors(tmp_path)


def test_a_model_travels_as_safetensors(tmp_path):
    copy_vectors(tmp_path / "model", levels=["L6"])
    data = (tmp_path / "model" / "L6" / "data" / "int4.safetensors").read_bytes()
    tensors = read_tensors(data, "int4")
    case = next(case for case in read_cases() if case.id == "L6/model_logits/int4")
    np.testing.assert_array_equal(
        tensors["layers.1.q_proj.int_weight"], case.inputs["layers.1.q_proj.int_weight"]
    )
    n_parameters = sum(
        array.size for name, array in tensors.items() if not name.endswith(("scales", "zero_point"))
    )
    assert n_parameters <= 300_000


def test_safetensors_reads_what_is_written_here(tmp_path):
    from safetensors.numpy import load

    arrays = {"a": np.arange(6, dtype=np.int32).reshape(2, 3), "b": np.ones(3, dtype=np.float16)}
    for name, array in load(tensor_file(arrays)).items():
        np.testing.assert_array_equal(array, arrays[name])
        assert array.dtype == arrays[name].dtype


@pytest.mark.parametrize(
    "name", ["L1/dequantize.json", "manifest.json", "schema/case-file.json", "L3/data/matmul-long-sum.x.bin"]
)
def test_an_altered_file_is_refused_by_name(copied, name):
    path = copied / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(FormatError, match=f"{path.name}: was altered"):
        read_cases(copied)


def test_a_missing_and_an_added_file_are_refused_by_name(copied):
    (copied / "L1" / "mine.json").write_text("{}", encoding="utf-8")
    with pytest.raises(FormatError, match=r"mine\.json: is not listed"):
        read_cases(copied)
    (copied / "L1" / "mine.json").unlink()
    (copied / "L1" / "dequantize.json").unlink()
    with pytest.raises(FormatError, match=r"dequantize\.json: is missing"):
        read_cases(copied)


def test_checksums_that_are_none(copied):
    (copied / "SHA256SUMS").write_text("nonsense\n", encoding="utf-8")
    with pytest.raises(FormatError, match="each line"):
        read_cases(copied)
    (copied / "SHA256SUMS").write_text(f"{'0' * 64}  ../out/manifest.json\n", encoding="utf-8")
    with pytest.raises(FormatError, match="each line"):
        read_cases(copied)
    shutil.rmtree(copied)
    with pytest.raises(FormatError, match="SHA256SUMS"):
        read_cases(copied)


def test_the_shipped_folder_is_the_default():
    assert (RELEASED / "SHA256SUMS").is_file()


def test_arrays_survive_json():
    for dtype in ("uint8", "int8", "int16", "int32", "uint32", "int64", "float16", "float32", "float64"):
        array = np.arange(6).reshape(2, 3).astype(dtype)
        back = decode_array(json.loads(json.dumps(encode_array(array))))
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)
    assert encode_array(np.array([1.0, -2.0], dtype=np.float32))["data"] == "0000803f000000c0"
    assert encode_array(np.array(258, dtype=np.int16)) == {"dtype": "int16", "shape": [], "data": "0201"}
    assert decode_array({"dtype": "float32", "shape": [0, 4], "data": ""}).shape == (0, 4)


@pytest.mark.parametrize(
    "record, message",
    [
        ([], "must be an object"),
        ({"dtype": "complex64", "shape": [1], "data": "00"}, "dtype"),
        ({"dtype": ["uint8"], "shape": [1], "data": "00"}, "dtype"),
        ({"dtype": "uint8", "shape": [-1], "data": "00"}, "shape"),
        ({"dtype": "uint8", "shape": [2**32, 2**32], "data": ""}, "bytes; got 0"),
        ({"dtype": "uint8", "shape": [True], "data": "00"}, "shape"),
        ({"dtype": "uint8", "shape": [2], "data": "0"}, "hexadecimal"),
        ({"dtype": "uint8", "shape": [2], "data": None}, "hexadecimal"),
        ({"dtype": "uint8", "shape": [2], "data": "00"}, "must have 2 bytes; got 1"),
    ],
)
def test_a_record_that_is_no_array(record, message):
    with pytest.raises(FormatError, match=message):
        decode_array(record, "y")


@pytest.mark.parametrize(
    "data", [b"", b"\x10\0\0\0\0\0\0\0{}", b"\x02\0\0\0\0\0\0\0[]", b'\x0b\0\0\0\0\0\0\0{"a":{"b":1}}']
)
def test_a_file_that_is_no_safetensors_file(data):
    with pytest.raises(FormatError, match="w.safetensors"):
        read_tensors(data, "w.safetensors")
