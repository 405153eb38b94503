"""Worker threads for work that is large enough to be worth them.

    default_threads     how many threads a large layer uses
    run_in_shares       split rows among threads and run one function on each share
    run_jobs            let threads take one job after the other
    map_jobs            the same, for what the jobs return
    run_side_by_side    jobs that could use threads themselves: as many at a time as there are threads, each on one
    blas_on_one_thread  while it lasts, BLAS starts no threads of its own

NumPy gives up the interpreter's lock inside its loops, so plain threads run at once. Workers are made when they are
first needed and wait for the next call; the calling thread takes a share itself. Within a share `default_threads` is 1:
what runs there and asks how many to use gets itself alone.
"""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from contextvars import ContextVar, copy_context
from functools import cached_property, partial
from typing import Any, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

THREADED_WEIGHTS = 2**19  # a smaller layer is done before a second thread has started
LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # of the environment: what BLAS heeds holds for us too
SWITCH = 5e-4  # seconds after which a thread that waits for the interpreter's lock asks for it
MOST_THREADS = 8  # more than a few share one memory bus and gain nothing
_IN_SHARE: ContextVar[bool] = ContextVar("_IN_SHARE", default=False)


def default_threads() -> int:
    """Return how many threads to use: one per processor of this process, at most MOST_THREADS; LIMITS may say fewer.

    Within a share: 1.
    """
    if _IN_SHARE.get():
        return 1
    has = hasattr(os, "sched_getaffinity")  # macOS and Windows have none
    processors = len(os.sched_getaffinity(0)) if has else os.cpu_count() or 1
    said = [os.environ.get(name, "") for name in LIMITS]
    return min(processors, MOST_THREADS, *(max(int(number), 1) for number in said if number.isdecimal()))


class _Shared:
    """A context of the whole process: begun by the first caller who enters, ended by the last who leaves."""

    def __init__(self) -> None:
        self.lock, self.callers = threading.Lock(), 0

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

    def wait(self, interrupted: Callable[[], object] = int) -> BaseException | None:
        """Return what the share raised, or what came while waiting, when it has ended; call interrupted() at once."""
        interrupt: BaseException | None = None
        while not self.ended:
            try:
                self.done.acquire()
            except KeyboardInterrupt as error:
                interrupt = error  # raised later: until the share has ended its memory is its own
                interrupted()
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
    inside = copy_context()  # NumPy's errstate is the caller's
    inside.run(_IN_SHARE.set, True)
    with _QUICK_TURNS:
        for worker, start in others:
            worker.start(partial(inside.copy().run, work, start, min(start + step, n_rows)))
        try:
            inside.run(work, 0, step)
        finally:  # the memory that the others write to stays theirs until they have ended
            errors = [worker.wait() for worker, _ in others]
            _IDLE.extend(worker for worker, _ in others)
    for error in errors:
        if error is not None:
            raise error


def run_jobs(work: Callable[[Job], None], jobs: Iterable[Job], *, n_threads: int) -> None:
    """Call work(job) for each job, the first ones first; a thread that has done one takes the next.

    When a job fails none is begun any more. Of several errors that of the first job is raised.

    Parameters
    ----------
    work : callable (job) -> None
        Jobs run at the same time.
    jobs : iterable
        For threads to end together, the largest first.
    n_threads : int
    """
    _take_jobs(work, deque(enumerate(jobs)), n_threads)


def _take_jobs(work: Callable[[Job], None], left: deque[tuple[int, Job]], n_threads: int) -> None:
    """Run the jobs that are left, each with its number; whoever empties `left` keeps further ones from beginning."""
    failed: dict[int, BaseException] = {}

    def take(start: int, stop: int) -> None:
        while left:
            try:
                number, job = left.popleft()
            except IndexError:  # another thread took the last
                return
            try:
                work(job)
            except BaseException as error:  # raised below, when all threads have ended
                failed[number] = error
                left.clear()

    run_in_shares(take, min(n_threads, len(left)), n_threads=n_threads)
    if failed:
        first = failed[min(failed)]
        failed.clear()  # the error's frames hold it
        raise first


def map_jobs(work: Callable[[Job], Result], jobs: Iterable[Job], *, n_threads: int) -> list[Result]:
    """Return work(job) of every job, in their order; otherwise as `run_jobs`."""
    numbered = list(enumerate(jobs))
    results: dict[int, Result] = {}

    def one(job: tuple[int, Job]) -> None:
        results[job[0]] = work(job[1])

    run_jobs(one, numbered, n_threads=n_threads)
    return [results[number] for number, _ in numbered]


def jobs_at_a_time(n_jobs: int) -> int:
    """Return how many jobs `run_side_by_side` runs at the same time: as many as there are threads, or one."""
    n_threads = default_threads()
    return n_threads if n_jobs >= n_threads else 1


def run_side_by_side(work: Callable[[int], None], n_jobs: int) -> None:
    """Call work(number) for 0..n_jobs, as many at a time as there are threads, each on one.

    Jobs that are left over have all threads for themselves, one after the other. Errors are raised as by `run_jobs`.
    All run on workers, where no interrupt of the keyboard comes: it is raised here, when those that run have ended.
    """
    n_threads = jobs_at_a_time(n_jobs)
    together = n_jobs - n_jobs % n_threads
    left, over = deque(enumerate(range(together))), deque(range(together, n_jobs))

    def all_of_them() -> None:
        _take_jobs(work, left, n_threads)
        while over:
            work(over.popleft())

    def no_more() -> None:
        left.clear()
        over.clear()

    worker = _worker()
    try:
        worker.start(partial(copy_context().run, all_of_them))
        error = worker.wait(no_more)
    except KeyboardInterrupt:  # before it waited
        no_more()
        raise
    _IDLE.append(worker)
    if error is not None:
        raise error
