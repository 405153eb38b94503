"""Worker threads for layers large enough to be worth them, and memory that a thread keeps.

    default_threads   how many threads a large layer uses
    run_in_shares     split rows among threads and run one function on each share
    blas_on_one_thread  while it lasts, BLAS starts no threads of its own
    scratch           arrays in working memory of the calling thread, kept from call to call

NumPy gives up the interpreter's lock inside its loops, so plain threads run at once. There is one pool per
process, made at the first use; the calling thread takes a share itself. Working memory is kept because fresh pages
can cost more than the arithmetic done in them: measured in a virtual machine, 2 microseconds for every 4 KiB.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cached_property, lru_cache
from math import prod
from typing import Any

import numpy as np

from awq_ref.dtypes import U8

LINE = 64  # bytes of a line of the cache: arrays of `scratch` begin a multiple of it apart
THREADED_WEIGHTS = 2**21  # a smaller layer is done before a second thread has started
MOST_THREADS = 8  # more than a few share one memory bus and gain nothing


class _Scratch(threading.local):
    """A thread's buffers, by what they are for."""

    def __init__(self) -> None:
        self.buffers: dict[str, U8] = {}


_SCRATCH = _Scratch()


def scratch(*wanted: tuple[tuple[int, ...], type[Any]], use: str = "share") -> list[Any]:
    """Return uninitialized arrays in memory that belongs to the calling thread until it asks again for the same use.

    Parameters
    ----------
    *wanted : (shape, dtype)
        The arrays that are needed at the same time.
    use : str
        What for: a function that hands work to others keeps its own memory under another name than theirs.
    """
    lengths = [prod(shape) * np.dtype(dtype).itemsize for shape, dtype in wanted]
    sizes = [-(-length // LINE) * LINE for length in lengths]
    buffer = _SCRATCH.buffers.get(use)
    if buffer is None or buffer.size < sum(sizes):
        buffer = _SCRATCH.buffers[use] = np.empty(sum(sizes), dtype=np.uint8)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [
        buffer[start : start + length].view(dtype).reshape(shape)
        for start, length, (shape, dtype) in zip(starts, lengths, wanted, strict=True)
    ]


def default_threads() -> int:
    """Return the number of processors that this process may use, at most MOST_THREADS."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), MOST_THREADS)
    return min(os.cpu_count() or 1, MOST_THREADS)


class _BlasLimit:
    """How many callers want BLAS on one thread, and how many threads it had before the first of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.callers = 0
        self.before: list[int] = []

    @cached_property
    def libraries(self) -> list[Any]:
        """The BLAS libraries whose threads can be set: none without threadpoolctl, or of a kind unknown to it."""
        try:
            from threadpoolctl import ThreadpoolController  # optional: this room imports with NumPy alone
        except ImportError:
            return []
        return [lib for lib in ThreadpoolController().lib_controllers if lib.user_api == "blas"]

    def __enter__(self) -> None:
        with self.lock:
            if self.callers == 0:
                self.before = [library.get_num_threads() for library in self.libraries]
                self._set([1] * len(self.before))
            self.callers += 1

    def __exit__(self, *exception: object) -> None:
        with self.lock:
            self.callers -= 1
            if self.callers == 0:
                self._set(self.before)

    def _set(self, numbers: list[int]) -> None:
        for library, number, before in zip(self.libraries, numbers, self.before, strict=True):
            if before != 1:
                library.set_num_threads(number)


_BLAS_LIMIT = _BlasLimit()


def blas_on_one_thread() -> AbstractContextManager[None]:
    """Return a context in which BLAS uses the calling thread alone, for every thread of the process.

    Our threads each bring their own products: BLAS's would only get in their way. Nothing is limited where
    threadpoolctl is not installed; results are the same.
    """
    return _BLAS_LIMIT


@lru_cache(maxsize=1)
def _pool(process_id: int) -> ThreadPoolExecutor:
    """The pool of this process: a forked child, which inherits no threads, gets its own."""
    return ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="awq_ref")


def run_in_shares(
    work: Callable[[int, int], None], n_rows: int, *, n_threads: int, multiple: int = 1
) -> None:
    """Call work(start, stop) on shares that cover 0..n_rows, at most one per thread.

    Parameters
    ----------
    work : callable (start, stop) -> None
        Writes its rows of the result; shares run at the same time.
    n_rows : int
    n_threads : int
        1 calls work once, here.
    multiple : int
        Shares start at multiples of this.
    """
    step = -(-n_rows // (n_threads * multiple)) * multiple
    if n_threads == 1 or step >= n_rows:
        work(0, n_rows)
        return
    starts = range(step, n_rows, step)
    others = [_pool(os.getpid()).submit(work, start, min(start + step, n_rows)) for start in starts]
    work(0, step)
    for other in others:
        other.result()
