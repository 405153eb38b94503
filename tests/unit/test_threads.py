"""Shares cover all rows once; what fails in a thread is raised; a forked process has workers of its own."""

import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers.processors import with_processors

from awq_ref import threads
from awq_ref.threads import (
    MOST_THREADS,
    blas_on_one_thread,
    default_threads,
    run_in_shares,
    run_jobs,
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
    for name in threads.LIMITS:
        monkeypatch.delenv(name, raising=False)
    assert 1 <= default_threads() <= MOST_THREADS
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # macOS and Windows have none
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert default_threads() == MOST_THREADS
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert default_threads() == 1


@pytest.mark.parametrize(
    ("omp", "openblas", "expected"),
    [
        (None, None, 6),
        ("4", None, 4),
        (None, "3", 3),
        ("2", "5", 2),
        ("64", "64", 6),
        ("0", None, 1),
        ("", "many", 6),
        ("4,2", None, 6),  # OpenMP's levels: a list is not a number
    ],
)
def test_the_environment_may_say_fewer(monkeypatch, omp, openblas, expected):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    for name, value in (("OMP_NUM_THREADS", omp), ("OPENBLAS_NUM_THREADS", openblas)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert default_threads() == expected


def test_an_error_leaves_the_worker_usable():
    def fail(start, stop):
        if start:
            raise KeyError(start)

    done = []
    with pytest.raises(KeyError, match="1"):
        run_in_shares(fail, 2, n_threads=2)
    run_in_shares(lambda start, stop: done.append((start, stop)), 2, n_threads=2)
    assert sorted(done) == [(0, 1), (1, 2)]


def test_the_caller_fails_only_when_the_others_have_ended():
    ended = []

    def work(start, stop):
        if start == 0:
            raise KeyError("here")
        time.sleep(0.05)
        ended.append(start)

    with pytest.raises(KeyError, match="here"):
        run_in_shares(work, 2, n_threads=2)
    assert ended == [1]


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="Windows has no signals for a thread")
def test_an_interrupt_waits_for_the_others_too():
    ended = []

    def work(start, stop):
        if start:
            time.sleep(0.05)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # while the caller waits
            time.sleep(0.05)
            ended.append(start)

    previous = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # processes of a test runner ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            run_in_shares(work, 2, n_threads=2)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert ended == [1]
    for _ in range(100):  # and goes on as before
        run_in_shares(lambda start, stop: ended.append(start), 2, n_threads=2)
    assert sorted(ended) == [0] * 100 + [1] * 101


def test_callers_at_the_same_time_have_workers_of_their_own():
    meeting = threading.Barrier(4, timeout=30)  # passed only if all four shares run at once

    def both(_):
        run_in_shares(lambda start, stop: meeting.wait(), 2, n_threads=2)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(both, range(2)))


def test_a_share_runs_under_its_callers_errstate():
    found = []
    with np.errstate(over="ignore", invalid="raise"):
        run_in_shares(lambda start, stop: found.append(np.geterr()), 2, n_threads=2)
    assert [(state["over"], state["invalid"]) for state in found] == [("ignore", "raise")] * 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is a system call of Unix")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_workers_of_its_own():
    run_in_shares(lambda start, stop: None, 2, n_threads=2)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            done = []
            run_in_shares(lambda start, stop: done.append(start), 2, n_threads=2)
            status = 0 if sorted(done) == [0, 1] else 1
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_jobs_are_done_once_each_the_first_ones_first():
    done = []
    run_jobs(done.append, range(100), n_threads=1)
    assert done == list(range(100))
    done.clear()
    run_jobs(done.append, range(100), n_threads=3)
    assert sorted(done) == list(range(100))
    run_jobs(done.append, [], n_threads=2)
    assert len(done) == 100


def test_a_job_that_fails_is_the_last_and_the_first_error_is_raised():
    done, both = [], threading.Barrier(2)

    def work(job):
        if job < 2:
            both.wait(timeout=10)  # both have begun
            time.sleep(0.05 * (1 - job))  # the second fails first
            raise KeyError(job)
        done.append(job)

    with pytest.raises(KeyError, match="0"):
        run_jobs(work, range(10), n_threads=2)
    assert done == []


def test_within_a_share_there_is_one_thread(monkeypatch):
    with_processors(monkeypatch, 3)
    seen = []
    run_jobs(lambda _: seen.append(default_threads()), range(4), n_threads=2)
    run_jobs(lambda _: seen.append(default_threads()), [4], n_threads=2)  # one job has all threads
    assert (seen, default_threads()) == ([1] * 4 + [3], 3)


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


def test_the_switch_interval_is_short_while_shares_run():
    before, seen = sys.getswitchinterval(), []

    def work(start, stop):
        seen.append(sys.getswitchinterval())
        if start == 0:
            run_in_shares(lambda a, b: seen.append(sys.getswitchinterval()), 2, n_threads=2)

    run_in_shares(work, 2, n_threads=2)
    assert seen == pytest.approx([threads.SWITCH] * 4)
    assert sys.getswitchinterval() == before
    with pytest.raises(ZeroDivisionError):
        run_in_shares(lambda start, stop: 1 // start, 2, n_threads=2)
    assert sys.getswitchinterval() == before


def test_a_shorter_switch_interval_stays():
    before = sys.getswitchinterval()
    try:
        sys.setswitchinterval(1.1e-4)
        shorter = sys.getswitchinterval()
        for _ in range(3):
            run_in_shares(lambda start, stop: None, 2, n_threads=2)
            assert sys.getswitchinterval() == shorter
    finally:
        sys.setswitchinterval(before)


def test_numpys_own_blas_is_limited():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    before = [lib["num_threads"] for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"]
    with blas_on_one_thread():
        during = [lib["num_threads"] for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"]
    after = [lib["num_threads"] for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"]
    assert during == [1] * len(before)
    assert after == before
