"""Shares cover all rows once; what fails in a thread is raised; a forked process gets a pool of its own."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from awq_ref.matmul import threads
from awq_ref.matmul.threads import (
    MOST_THREADS,
    blas_on_one_thread,
    default_threads,
    run_in_shares,
    scratch,
)


@pytest.mark.parametrize(
    ("n_rows", "n_threads", "multiple", "shares"),
    [
        (10, 1, 4, [(0, 10)]),
        (10, 2, 1, [(0, 5), (5, 10)]),
        (10, 2, 4, [(0, 8), (8, 10)]),
        (10, 3, 4, [(0, 4), (4, 8), (8, 10)]),
        (3, 2, 4, [(0, 3)]),
        (0, 2, 4, [(0, 0)]),
        (2, 5, 1, [(0, 1), (1, 2)]),
    ],
)
def test_shares(n_rows, n_threads, multiple, shares):
    seen = []
    run_in_shares(
        lambda start, stop: seen.append((start, stop)), n_rows, n_threads=n_threads, multiple=multiple
    )
    assert sorted(seen) == shares


def test_an_error_in_another_thread_is_raised_here():
    def fail(start, stop):
        if start:
            raise KeyError(start)

    with pytest.raises(KeyError, match="5"):
        run_in_shares(fail, 10, n_threads=2)


def test_default_threads(monkeypatch):
    assert 1 <= default_threads() <= MOST_THREADS
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # macOS and Windows have none
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert default_threads() == MOST_THREADS
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert default_threads() == 1


def test_one_pool_per_process():
    here = threads._pool(os.getpid())
    assert threads._pool(os.getpid()) is here
    child = threads._pool(-1)
    assert child is not here
    child.shutdown()
    threads._pool.cache_clear()


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


class FakeBlas:
    user_api = "blas"

    def __init__(self, n_threads):
        self.n_threads = n_threads

    def get_num_threads(self):
        return self.n_threads

    def set_num_threads(self, n_threads):
        self.n_threads = n_threads


def test_blas_gets_its_threads_back_when_the_last_caller_leaves():
    limit, blas, single = threads._BlasLimit(), FakeBlas(6), FakeBlas(1)
    limit.libraries = [blas, single]
    with limit:
        with limit:
            assert (blas.n_threads, single.n_threads) == (1, 1)
        assert blas.n_threads == 1
    assert (blas.n_threads, single.n_threads) == (6, 1)


def test_blas_is_left_alone_without_threadpoolctl(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert threads._BlasLimit().libraries == []


def test_numpys_own_blas_is_limited():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    before = [lib["num_threads"] for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"]
    with blas_on_one_thread():
        during = [lib["num_threads"] for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"]
    after = [lib["num_threads"] for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"]
    assert during == [1] * len(before)
    assert after == before
