"""Working memory is kept, grows, and belongs to one thread."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from awq_ref import buffers
from awq_ref.buffers import cache_bytes, scratch


def test_the_size_of_the_cache_is_read(monkeypatch, tmp_path):
    assert cache_bytes() >= 2**17
    sizes = {"index0": "32K", "index2": "1024K", "index3": "32768K\n"}
    for name, size in sizes.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "size").write_text(size)
    monkeypatch.setattr(buffers, "CACHES", tmp_path)
    assert cache_bytes.__wrapped__() == 32 * 2**20
    monkeypatch.setattr(buffers, "CACHES", tmp_path / "missing")
    assert cache_bytes.__wrapped__() == buffers.CACHE


def test_scratch_is_kept_grows_and_belongs_to_its_thread():
    (first,) = scratch(((100,), np.uint8))
    assert (first.dtype, first.shape) == (np.uint8, (100,))
    assert np.shares_memory(first, *scratch(((50,), np.uint8)))
    assert scratch(((10, 10**5), np.float32))[0].shape == (10, 10**5)
    with ThreadPoolExecutor(1) as pool:
        (others,) = pool.submit(scratch, ((50,), np.uint8)).result()
        assert not np.shares_memory(*scratch(((50,), np.uint8)), others)


def test_scratch_arrays_do_not_overlap():
    flags, numbers, more = scratch(((3, 7), np.uint8), ((5,), np.float32), ((0, 4), np.float64))
    assert (flags.dtype, numbers.dtype, more.dtype) == (np.uint8, np.float32, np.float64)
    assert (flags.shape, numbers.shape, more.shape) == ((3, 7), (5,), (0, 4))
    assert not np.shares_memory(flags, numbers)
