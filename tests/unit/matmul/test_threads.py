"""Shares cover all rows once; what fails in a thread is raised; a forked process gets a pool of its own."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from awq_ref.matmul import threads
from awq_ref.matmul.threads import MOST_THREADS, default_threads, run_in_shares, scratch


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
    first = scratch(100)
    assert first.dtype == np.uint8
    assert first.shape == (100,)
    assert np.shares_memory(first, scratch(50))
    assert scratch(10**6).shape == (10**6,)
    with ThreadPoolExecutor(1) as pool:
        assert not np.shares_memory(scratch(50), pool.submit(scratch, 50).result())
