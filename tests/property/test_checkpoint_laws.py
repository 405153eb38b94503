"""Laws of files: what is written is read, and a damaged file is read or refused, nothing else."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from awq_ref.checkpoint import Checkpoint, ShardWriter, TensorFile
from awq_ref.errors import FormatError

DTYPES = st.sampled_from(["bool", "u1", "i1", "u2", "i2", "<f2", "u4", "i4", "<f4", "u8", "i8", "<f8"])
ARRAYS = DTYPES.flatmap(
    lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, min_side=0, max_side=5))
)
NAMES = st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__")


@given(st.dictionaries(NAMES, ARRAYS, max_size=6), st.integers(1, 200))
def test_what_is_written_is_read_by_us_and_by_the_safetensors_library(arrays, max_shard_bytes):
    """Write then read: the same names, dtypes, shapes and bytes, whatever the size of a shard."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.json").write_text("{}")
        with ShardWriter(folder, max_shard_bytes=max_shard_bytes) as writer:
            for tensor_name, array in arrays.items():
                writer.add(tensor_name, array)
        checkpoint = Checkpoint.open(folder)
        loaded = {
            key: value for file in folder.glob("*.safetensors") for key, value in load_file(file).items()
        }
        assert set(checkpoint.names) == set(loaded) == set(arrays)
        for tensor_name, array in arrays.items():
            for read in (checkpoint.read_stored(tensor_name), loaded[tensor_name]):
                assert (read.dtype, read.shape) == (array.dtype, array.shape)
                assert read.tobytes() == array.tobytes()


@st.composite
def damaged_files(draw) -> tuple[bytes, bytes]:
    """A file of the safetensors library, before and after a damage."""
    shapes = draw(
        st.lists(npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), min_size=1, max_size=3)
    )
    dtypes = ["<f4", "<f2", "<i4"]
    before = save({f"t{n}": np.ones(shape, dtype=dtypes[n]) for n, shape in enumerate(shapes)})
    after = bytearray(before)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(after)))
        stop = draw(st.integers(start, min(start + 4, len(after))))
        after[start:stop] = draw(
            st.one_of(st.binary(max_size=4), st.sampled_from([b"0", b"9", b"-1", b"[", b'"']))
        )
    return before, bytes(after)


def read_all(path: Path) -> dict[str, bytes]:
    file = TensorFile(path)
    return {name: file.read(name).tobytes() + bytes(file.raw(name)) for name in file.names}


@given(damaged_files())
def test_a_damaged_file_reads_or_raises_format_error(files):
    """Any change of bytes: FormatError, or tensors that cover exactly the bytes after the header. Nothing else."""
    _, after = files
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "x.safetensors"
        path.write_bytes(after)
        try:
            read = read_all(path)
        except FormatError:
            return
        header_bytes = 8 + int.from_bytes(after[:8], "little")
        assert sum(map(len, read.values())) == 2 * (len(after) - header_bytes)


@given(damaged_files())
def test_what_the_safetensors_library_refuses_is_refused_here(files):
    """The header's rules are no laxer than the library's."""
    _, after = files
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "x.safetensors"
        path.write_bytes(after)
        try:
            load_file(path)
        except SafetensorError:
            try:
                TensorFile(path)
            except FormatError:
                return
            raise AssertionError("the library refuses this file, awq_ref does not") from None


@given(damaged_files(), st.data())
def test_a_truncated_file_is_refused(files, data):
    """Every proper beginning of a file raises FormatError."""
    before, _ = files
    length = data.draw(st.integers(0, len(before) - 1))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "x.safetensors"
        path.write_bytes(before[:length])
        try:
            TensorFile(path)
        except FormatError:
            return
        raise AssertionError(f"the first {length} of {len(before)} bytes were taken for a whole file")
