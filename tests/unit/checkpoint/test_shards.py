"""Written files: loaded by the safetensors library, aligned, split, and never half there."""

import errno
import json
import tracemalloc

import numpy as np
import pytest
from helpers.assertions import assert_same_bits, frozen
from safetensors import safe_open
from safetensors.numpy import load_file

from awq_ref.checkpoint import Checkpoint, ShardWriter, TensorFile, shards
from awq_ref.errors import DtypeError, FormatError, OutputError, RangeError


@pytest.fixture
def arrays(rng):
    return {
        "norm": frozen(rng.standard_normal(3).astype(np.float16)),
        "qweight": frozen(rng.integers(-(2**31), 2**31, size=(5, 2)).astype(np.int32)),
        "mask": frozen(np.array([True, False, True])),
        "shape": frozen(np.array([7, 9], dtype=np.int64)),
        "scalar": frozen(np.array(2.5, dtype=np.float32)),
        "empty": frozen(np.empty((0, 4), dtype=np.float32)),
    }


def file_names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_safetensors_library_loads_what_is_written(tmp_path, arrays):
    with ShardWriter(tmp_path) as writer:
        for name, array in arrays.items():
            writer.add(name, array)
    loaded = load_file(tmp_path / "model.safetensors")
    assert sorted(loaded) == sorted(arrays)
    for name, array in arrays.items():
        assert_same_bits(loaded[name], array)
    assert file_names(tmp_path) == ["model.safetensors"]
    assert writer.total_bytes == sum(array.nbytes for array in arrays.values())
    with safe_open(tmp_path / "model.safetensors", framework="np") as file:
        assert file.metadata() == {"format": "pt"}


def test_every_tensor_is_aligned_to_its_type(tmp_path, arrays):
    with ShardWriter(tmp_path) as writer:
        for name, array in arrays.items():
            writer.add(name, array)
    file = TensorFile(tmp_path / "model.safetensors")
    assert file.names == ("shape", "qweight", "scalar", "empty", "norm", "mask")
    for name, array in arrays.items():
        assert file.info(name).start % array.itemsize == 0


def test_close_does_what_leaving_the_block_does(tmp_path, arrays):
    writer = ShardWriter(tmp_path)
    writer.add("norm", arrays["norm"])
    writer.close()
    assert_same_bits(load_file(tmp_path / "model.safetensors")["norm"], arrays["norm"])


def test_no_tensors_make_an_empty_file(tmp_path):
    with ShardWriter(tmp_path):
        pass
    assert load_file(tmp_path / "model.safetensors") == {}


def test_arrays_in_any_memory_order(tmp_path, rng):
    array = rng.standard_normal((4, 6)).astype(np.float32)
    with ShardWriter(tmp_path) as writer:
        writer.add("transposed", array.T)
        writer.add("strided", array[::2, ::3])
        writer.add("big-endian", array.astype(">f4"))
    loaded = load_file(tmp_path / "model.safetensors")
    assert_same_bits(loaded["transposed"], np.ascontiguousarray(array.T))
    assert_same_bits(loaded["strided"], np.ascontiguousarray(array[::2, ::3]))
    assert_same_bits(loaded["big-endian"], array)


def test_arrays_become_the_dtype_that_is_asked_for(tmp_path):
    values = frozen(np.array([1.0, -2.5, 0.333], dtype=np.float32))
    with ShardWriter(tmp_path) as writer:
        writer.add("half", values, dtype="F16")
        writer.add("brain", values, dtype="BF16")
    file = TensorFile(tmp_path / "model.safetensors")
    assert file.info("brain").dtype == "BF16"
    assert file.read("half").tolist() == [1.0, -2.5, 0.3330078125]  # 0.333 * 2**12 = 1363.97 -> 1364 / 4096
    assert file.read("brain").tolist() == [1.0, -2.5, 0.33203125]  # 0.333 * 2**9 = 170.5-: 170 / 512


def test_raw_bytes_pass_through(tmp_path):
    with ShardWriter(tmp_path) as writer:
        writer.add_raw("brain", "BF16", (2,), b"\x80\x3f\x00\xc0")
        writer.add_raw("none", "F32", (0,), b"")
    file = TensorFile(tmp_path / "model.safetensors")
    assert file.read("brain").tolist() == [1.0, -2.0]
    assert file.read("none").shape == (0,)


def test_shards_and_their_index(tmp_path, rng):
    (tmp_path / "config.json").write_text("{}")
    arrays = {
        f"t{n}": rng.standard_normal(size).astype(np.float32) for n, size in enumerate((5, 5, 30, 2, 3))
    }
    with ShardWriter(tmp_path, max_shard_bytes=40) as writer:
        for name, array in arrays.items():
            writer.add(name, array)
    shard = "model-{:05d}-of-00003.safetensors".format
    expected = {"t0": shard(1), "t1": shard(1), "t2": shard(2), "t3": shard(3), "t4": shard(3)}
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index == {"metadata": {"total_size": 4 * 45}, "weight_map": expected}
    assert file_names(tmp_path) == [
        "config.json",
        *sorted(set(expected.values())),
        "model.safetensors.index.json",
    ]
    checkpoint = Checkpoint.open(tmp_path)
    for name, array in arrays.items():
        assert_same_bits(load_file(tmp_path / expected[name])[name], array)
        assert_same_bits(checkpoint.read(name), array)


def test_memory_stays_flat(tmp_path):
    array = np.zeros((512, 1024), dtype=np.float32)  # 2 MiB
    tracemalloc.start()
    with ShardWriter(tmp_path) as writer:
        for n in range(16):
            writer.add(f"t{n}", array)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 32 MiB pass through; a piece of 4 MiB is copied at a time, and the next is read before it is let go
    assert peak < 9 * 1024 * 1024


def test_a_name_twice(tmp_path, arrays):
    writer = ShardWriter(tmp_path)
    writer.add("norm", arrays["norm"])
    for name in ("norm", "__metadata__"):
        with pytest.raises(FormatError, match=f"a name of its own; got '{name}'"):
            writer.add(name, arrays["norm"])
    writer.close()


@pytest.mark.parametrize(
    "call, error, match",
    [
        (lambda w: w.add("x", np.zeros(1, dtype=np.complex64)), DtypeError, "the dtype must be one of"),
        (
            lambda w: w.add("x", np.zeros(1, dtype=np.float32), dtype="F31"),
            RangeError,
            "dtype must be one of",
        ),
        (lambda w: w.add_raw("x", "F31", (1,), b"1234"), RangeError, "dtype must be one of"),
        (lambda w: w.add_raw("x", "F32", (2,), b"1234"), FormatError, r"x, F32 \(2,\), needs 8 bytes; got 4"),
    ],
)
def test_what_cannot_be_stored(tmp_path, call, error, match):
    with pytest.raises(error, match=match), ShardWriter(tmp_path) as writer:
        call(writer)
    assert file_names(tmp_path) == []


@pytest.mark.parametrize("dtype, value", [("F16", 65520.0), ("BF16", 3.4e38)])
def test_a_value_that_the_dtype_cannot_hold(tmp_path, dtype, value):
    array = np.array([[1.0, np.inf], [value, 2.0]], dtype=np.float32)  # the infinity was there before
    with (
        pytest.raises(
            RangeError, match=rf"x must fit into {dtype}; got .* at flat index 2\. Store it as F32"
        ),
        ShardWriter(tmp_path) as writer,
    ):
        writer.add("x", array, dtype=dtype)


def test_a_shard_needs_room(tmp_path):
    with pytest.raises(RangeError, match="max_shard_bytes must be at least 1; got 0"):
        ShardWriter(tmp_path, max_shard_bytes=0)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(OutputError, match="cannot be written: No such file or directory"):
        ShardWriter(tmp_path / "none")


@pytest.mark.parametrize("calls_before", range(7))
def test_a_full_disk_at_any_write(tmp_path, arrays, monkeypatch, calls_before):
    calls = iter(range(100))

    def write_all(file, data, original=shards.write_all):
        if next(calls) == calls_before:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(file, data)

    monkeypatch.setattr(shards, "write_all", write_all)
    with (
        pytest.raises(OutputError, match="the disk is full. Free some space"),
        ShardWriter(tmp_path, max_shard_bytes=20) as writer,
    ):
        for name in ("norm", "qweight", "mask"):
            writer.add(name, arrays[name])
    assert file_names(tmp_path) == []
