"""Worker threads for layers large enough to be worth them, and memory that a thread keeps.

    default_threads   how many threads a large layer uses
    cache_bytes       the size of the cache that they share
    run_in_shares     split rows among threads and run one function on each share
    run_jobs          let threads take one job after the other
    blas_on_one_thread  while it lasts, BLAS starts no threads of its own
    keep_freed_memory   freed arrays stay with the process
    scratch           arrays in working memory of the calling thread, kept from call to call

NumPy gives up the interpreter's lock inside its loops, so plain threads run at once. Workers are made when they are
first needed and wait for the next call; the calling thread takes a share itself. Working memory is kept because fresh
pages can cost more than arithmetic: in a virtual machine 2 microseconds for every 4 KiB.
"""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from contextvars import copy_context
from functools import cached_property, lru_cache, partial
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np

from awq_ref.dtypes import U8

Job = TypeVar("Job")

MOST_ARRAYS = 256  # sets of arrays of `scratch` that a thread remembers
LINE = 64  # bytes of a line of the cache: arrays of `scratch` begin a multiple of it apart
THREADED_WEIGHTS = 2**19  # a smaller layer is done before a second thread has started
KEPT_BYTES = 31 * 2**20  # glibc hands larger blocks back to the system whatever has been freed
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
CACHE = 16 * 2**20  # the last cache of a common processor
LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # of the environment: what BLAS heeds holds for us too
SWITCH = 5e-4  # seconds after which a thread that waits for the interpreter's lock asks for it
MOST_THREADS = 8  # more than a few share one memory bus and gain nothing

Wanted: TypeAlias = tuple[tuple[int, ...], type[Any]]


class _Scratch(threading.local):
    """A thread's buffers, by what they are for, and the arrays that were made of them."""

    def __init__(self) -> None:
        self.buffers: dict[str, U8 | None] = {}
        self.arrays: dict[tuple[str, tuple[Wanted, ...]], list[Any]] = {}


_SCRATCH = _Scratch()


def scratch(*wanted: Wanted, use: str = "share") -> list[Any]:
    """Return uninitialized arrays in memory that belongs to the calling thread until it asks again for the same use.

    Parameters
    ----------
    *wanted : (shape, dtype), of the arrays that are needed at the same time
    use : str, what for: who hands work to others keeps memory of his own under another name than theirs
    """
    key = use, wanted
    known = _SCRATCH.arrays.get(key)
    if known is not None:
        return known
    lengths = [prod(shape) * np.dtype(dtype).itemsize for shape, dtype in wanted]
    starts = [0, *accumulate(-(-length // LINE) * LINE for length in lengths)]
    buffer = _SCRATCH.buffers.get(use)
    outgrown = buffer is None or buffer.size < starts[-1]
    if outgrown or len(_SCRATCH.arrays) >= MOST_ARRAYS:
        _SCRATCH.arrays.clear()  # they hold the buffer that is outgrown
    if buffer is None or outgrown:
        buffer = _SCRATCH.buffers[use] = None  # freed before the larger one is made
        buffer = _SCRATCH.buffers[use] = np.empty(starts[-1], dtype=np.uint8)
    _SCRATCH.arrays[key] = [
        buffer[start : start + length].view(dtype).reshape(shape)
        for start, length, (shape, dtype) in zip(starts, lengths, wanted, strict=False)
    ]
    return _SCRATCH.arrays[key]


def default_threads() -> int:
    """Return how many threads to use: one per processor of this process, at most MOST_THREADS; LIMITS may say fewer."""
    has = hasattr(os, "sched_getaffinity")  # macOS and Windows have none
    processors = len(os.sched_getaffinity(0)) if has else os.cpu_count() or 1
    said = [os.environ.get(name, "") for name in LIMITS]
    return min(processors, MOST_THREADS, *(max(int(number), 1) for number in said if number.isdecimal()))


@lru_cache(maxsize=1)
def keep_freed_memory() -> None:
    """Let glibc keep freed arrays of up to KEPT_BYTES for those that come next: it does once it has freed one so large.

    Until then an array of some megabytes can get fresh pages at every use.
    """
    np.empty(KEPT_BYTES, dtype=np.uint8)  # made and freed, never touched


@lru_cache(maxsize=1)
def cache_bytes() -> int:
    """Return the bytes of the largest cache of the first processor as Linux tells them; CACHE where nobody does."""
    sizes = [path.read_text().strip() for path in CACHES.glob("index*/size")]
    return max((int(size[:-1]) * 2**10 for size in sizes if size[-1:] == "K"), default=CACHE)


class _Shared:
    """A context of the whole process: begun by the first caller who enters, ended by the last who leaves."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.callers = 0

    def __enter__(self) -> None:
        with self.lock:
            if self.callers == 0:
                self.begin()
            self.callers += 1

    def __exit__(self, *exception: object) -> None:
        with self.lock:
            self.callers -= 1
            if self.callers == 0:
                self.end()

    def begin(self) -> None:
        raise NotImplementedError

    end = begin


class _BlasLimit(_Shared):
    """BLAS on one thread, and how many it had before."""

    before: Sequence[int] = ()

    @cached_property
    def libraries(self) -> list[Any]:
        """The BLAS libraries whose threads can be set: none without threadpoolctl, or of a kind unknown to it."""
        try:
            from threadpoolctl import ThreadpoolController  # optional: this room imports with NumPy alone
        except ImportError:
            return []
        return [lib for lib in ThreadpoolController().lib_controllers if lib.user_api == "blas"]

    def begin(self) -> None:
        self.before = [library.get_num_threads() for library in self.libraries]
        self._set([1] * len(self.before))

    def end(self) -> None:
        self._set(self.before)

    def _set(self, numbers: Sequence[int]) -> None:
        for library, number, before in zip(self.libraries, numbers, self.before, strict=True):
            if before != 1:
                library.set_num_threads(number)


class _QuickTurns(_Shared):
    """The interpreter's lock asked for after SWITCH seconds, not after 5 milliseconds: a share's whole time.

    So long a thread that lets go of it for short calls of NumPy's may have it back before one that waits has woken up.
    """

    before = 0.0

    def begin(self) -> None:
        self.before = sys.getswitchinterval()
        sys.setswitchinterval(min(self.before + 1e-7, SWITCH))  # Python cuts it to whole microseconds

    def end(self) -> None:
        sys.setswitchinterval(self.before + 1e-7)


_BLAS_LIMIT, _QUICK_TURNS = _BlasLimit(), _QuickTurns()


def blas_on_one_thread() -> AbstractContextManager[None]:
    """Return a context in which BLAS uses the calling thread alone, for every thread of the process.

    Our threads bring products of their own. Without threadpoolctl nothing is limited; results are the same.
    """
    return _BLAS_LIMIT


class _Worker:
    """A thread that waits for work at a lock, which wakes it in half of the time that an executor's queue takes.

    `ended` says that a share is done; the lock `done` is only there to sleep at, and may be open when it is not.
    """

    def __init__(self) -> None:
        self.begin, self.done = threading.Lock(), threading.Lock()
        self.begin.acquire()
        self.share: Callable[[], object] = int
        self.error: BaseException | None = None
        self.ended = False
        threading.Thread(target=self._serve, name="awq_ref", daemon=True).start()

    def _serve(self) -> None:
        while True:
            self.begin.acquire()
            try:
                self.share()
            except BaseException as error:  # raised in the thread that gave the work
                self.error = error
            self.ended = True
            with suppress(RuntimeError):  # nobody sleeps: the lock is open
                self.done.release()

    def start(self, share: Callable[[], object]) -> None:
        self.share, self.ended = share, False
        self.begin.release()

    def wait(self) -> BaseException | None:
        """Return what the share raised, or what came while waiting, when it has ended."""
        interrupt: BaseException | None = None
        while not self.ended:
            try:
                self.done.acquire()
            except KeyboardInterrupt as error:
                interrupt = error  # raised later: until the share has ended its memory is its own
        error, self.error, self.share = self.error or interrupt, None, int
        return error


_IDLE: list[_Worker] = []
if hasattr(os, "register_at_fork"):  # a forked child inherits no threads
    os.register_at_fork(after_in_child=_IDLE.clear)


def _worker() -> _Worker:
    """An idle worker, or a new one: callers in several threads at once have each their own."""
    with suppress(IndexError):
        return _IDLE.pop()
    return _Worker()


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
    others = [(_worker(), start) for start in range(step, n_rows, step)]
    with _QUICK_TURNS:
        for worker, start in others:
            share = partial(work, start, min(start + step, n_rows))
            worker.start(partial(copy_context().run, share))  # NumPy's errstate is the caller's
        try:
            work(0, step)
        finally:  # the memory that the others write to stays theirs until they have ended
            errors = [worker.wait() for worker, _ in others]
            _IDLE.extend(worker for worker, _ in others)
    for error in errors:
        if error is not None:
            raise error


def run_jobs(work: Callable[[Job], None], jobs: Iterable[Job], *, n_threads: int) -> None:
    """Call work(job) for each job, the first ones first; a thread that has done one takes the next.

    Parameters
    ----------
    work : callable (job) -> None
        Jobs run at the same time.
    jobs : iterable
        For threads to end together, the largest first.
    n_threads : int
    """
    left = deque(jobs)

    def take(start: int, stop: int) -> None:
        while left:
            try:
                job = left.popleft()
            except IndexError:  # another thread took the last
                return
            work(job)

    run_in_shares(take, min(n_threads, len(left)), n_threads=n_threads)
