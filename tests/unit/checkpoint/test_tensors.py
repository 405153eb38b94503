"""Reading tensors of one file: against the safetensors library, and in bounded memory."""

import tracemalloc

import numpy as np
import pytest
from helpers.assertions import assert_same_bits
from safetensors.numpy import load_file, save_file

from awq_ref.checkpoint.header import build_header
from awq_ref.checkpoint.tensors import CHUNK_ITEMS, TensorFile
from awq_ref.errors import DtypeError, FormatError, MissingTensorError, RangeError

DTYPES = ["bool", "u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "u8", "i8", "f8"]


def write_raw(path, dtype, shape, data):
    path.write_bytes(build_header([("x", dtype, shape)]) + data)
    return TensorFile(path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_reads_as_the_safetensors_library_reads_it(path, rng, dtype):
    tensors = {f"t{n}": rng.integers(0, 100, size=(n, 3)).astype(dtype) for n in (1, 0, 5)}
    tensors["scalar"] = np.array(1, dtype=dtype)
    save_file(tensors, path)
    file = TensorFile(path)
    assert sorted(file.names) == sorted(tensors)
    for name, expected in load_file(path).items():
        read = file.read(name)
        assert_same_bits(read, expected)
        assert read.flags.writeable
        assert bytes(file.raw(name)) == expected.tobytes()


def test_metadata_and_info(path):
    save_file({"x": np.zeros((2, 3), dtype=np.float16)}, path, metadata={"format": "pt"})
    file = TensorFile(path)
    info = file.info("x")
    assert (info.dtype, info.shape, info.n_bytes) == ("F16", (2, 3), 12)
    assert file.metadata == {"format": "pt"}


def test_raw_bytes_cannot_be_written_to(path):
    save_file({"x": np.zeros(3, dtype=np.float32)}, path)
    with pytest.raises(ValueError, match="read-only"):
        TensorFile(path).raw("x")[0] = 1


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_floats_become_float32(path, rng, dtype):
    # three chunks, the last not full; the safetensors library reads, NumPy casts
    save_file({"x": rng.standard_normal((3, CHUNK_ITEMS - 5)).astype(dtype)}, path)
    expected = load_file(path)["x"].astype(np.float32)
    file = TensorFile(path)
    assert_same_bits(file.read_float32("x"), expected)
    assert_same_bits(file.read_float32("x", rows=slice(1, 2)), expected[1:2])
    assert_same_bits(file.read_float32("x", rows=slice(-1, None)), expected[2:])
    assert file.read_float32("x", rows=slice(2, 1)).shape == (0, CHUNK_ITEMS - 5)


def test_bfloat16_becomes_float32(path):
    values = np.array([1.0, -3.0, 0.15625, 1e-40, 3e38], dtype=np.float32)
    words = (values.view(np.uint32) >> 16).astype("<u2")  # the upper halves
    file = write_raw(path, "BF16", (5,), words.tobytes())
    expected = (words.astype(np.uint32) << 16).view(np.float32)
    assert_same_bits(file.read("x"), expected)
    assert_same_bits(file.read_float32("x", rows=slice(1, 3)), expected[1:3])
    assert bytes(file.raw("x")) == words.tobytes()


def test_float64_beyond_float32_becomes_infinite(path):
    save_file({"x": np.array([1e300, -1e300])}, path)
    assert TensorFile(path).read_float32("x").tolist() == [np.inf, -np.inf]


def test_data_that_are_not_aligned_are_read(path):
    values = np.array([1.5, -2.5], dtype=np.float32)
    header = b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'  # 54 bytes: data start at byte 62
    path.write_bytes(len(header).to_bytes(8, "little") + header + values.tobytes())
    assert_same_bits(TensorFile(path).read("x"), values)


@pytest.mark.parametrize("dtype, itemsize", [("BF16", 2), ("F16", 2), ("F32", 4)])
def test_reading_holds_the_float32_array_and_little_more(path, dtype, itemsize):
    n_items = 4 * 1024 * 1024
    file = write_raw(path, dtype, (2, n_items // 2), bytes(n_items * itemsize))
    tracemalloc.start()
    array = file.read_float32("x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert array.nbytes == 4 * n_items
    # one chunk of stored words is at most 512 KiB; as much again for NumPy's cast buffers and Python
    assert peak < array.nbytes + 1024 * 1024


def test_a_missing_tensor_is_named_with_its_neighbours(path):
    save_file({"model.norm.weight": np.zeros(1, dtype=np.float32)}, path)
    for read in (TensorFile(path).read, TensorFile(path).raw, TensorFile(path).info):
        with pytest.raises(
            MissingTensorError, match=r"no tensor norm\.weight\. Near names: model\.norm\.weight"
        ):
            read("norm.weight")


def test_integers_are_no_floats(path):
    save_file({"x": np.zeros(3, dtype=np.int32)}, path)
    with pytest.raises(
        DtypeError, match=r"x must hold floats .* stored as I32. Is this checkpoint quantized"
    ):
        TensorFile(path).read_float32("x")


def test_one_kind_of_float8_is_known_but_not_read(path):
    file = write_raw(path, "F8_E5M2", (3,), b"abc")
    assert bytes(file.raw("x")) == b"abc"
    with pytest.raises(DtypeError, match="x is stored as F8_E5M2, which NumPy does not have"):
        file.read("x")


def test_the_other_kind_of_float8_is_read_as_float32(path):
    read = write_raw(path, "F8_E4M3", (2, 2), bytes([0x38, 0xB8, 0x30, 0x7E])).read("x")
    assert_same_bits(read, [[1.0, -1.0], [0.5, 448.0]], dtype=np.float32)


@pytest.mark.parametrize("shape, rows", [((), slice(0, 1)), ((4,), slice(0, 4, 2))])
def test_rows_that_cannot_be_read(path, shape, rows):
    file = write_raw(path, "F32", shape, bytes(4 * int(np.prod(shape))))
    with pytest.raises(RangeError, match="rows must be a slice without a step"):
        file.read_float32("x", rows=rows)


def test_a_file_that_shrinks_after_it_was_opened(path):
    file = write_raw(path, "F32", (4,), bytes(16))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match="ends inside x; it has changed since it was opened"):
        file.read("x")
    path.unlink()
    with pytest.raises(FormatError, match="x cannot be read: No such file"):
        file.read_float32("x")
