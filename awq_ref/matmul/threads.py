"""Worker threads for layers large enough to be worth them, and memory that a thread keeps.

    default_threads   how many threads a large layer uses
    run_in_shares     split rows among threads and run one function on each share
    scratch           working memory of the calling thread, kept from call to call

NumPy gives up the interpreter's lock inside its loops, so plain threads run at once. There is one pool per
process, made at the first use; the calling thread takes a share itself. Working memory is kept because fresh pages
can cost more than the arithmetic done in them: measured in a virtual machine, 2 microseconds for every 4 KiB.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np

from awq_ref.dtypes import U8

MOST_THREADS = 8  # more than a few share one memory bus and gain nothing


class _Scratch(threading.local):
    """One buffer per thread."""

    def __init__(self) -> None:
        self.buffer: U8 = np.empty(0, dtype=np.uint8)


_SCRATCH = _Scratch()


def scratch(n_bytes: int) -> U8:
    """Return n_bytes of uninitialized memory that belongs to the calling thread until it asks again."""
    if _SCRATCH.buffer.size < n_bytes:
        _SCRATCH.buffer = np.empty(n_bytes, dtype=np.uint8)
    return _SCRATCH.buffer[:n_bytes]


def default_threads() -> int:
    """Return the number of processors that this process may use, at most MOST_THREADS."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), MOST_THREADS)
    return min(os.cpu_count() or 1, MOST_THREADS)


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
