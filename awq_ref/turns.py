"""What jobs that run at the same time do one after the other nevertheless.

Turns     the order of the jobs
at_once   for a job that runs alone
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from threading import Condition
from typing import TypeAlias

Turn: TypeAlias = Callable[[Hashable], AbstractContextManager[None]]  # a place -> the job's turn there


def at_once(place: Hashable) -> AbstractContextManager[None]:
    """Return a turn that nobody is waited for."""
    return nullcontext()


class Turns:
    """Lets jobs that run at the same time do some things one after the other, in the order of their numbers.

    At a place a job waits until every job before it has been there or has ended, as it has after an error. So a sum has
    the same bits however many jobs run at once. Jobs must begin in their order, as those of `run_jobs` do.
    """

    def __init__(self) -> None:
        self._moved = Condition()
        self._left: dict[Hashable, set[int]] = defaultdict(set)  # jobs that have been at a place
        self._ended: set[int] = set()

    @contextmanager
    def job(self, number: int) -> Iterator[Turn]:
        """While it lasts the job runs; its turns are what it yields."""
        try:
            yield partial(self._at, number)
        finally:
            with self._moved:
                self._ended.add(number)
                self._moved.notify_all()

    @contextmanager
    def _at(self, number: int, place: Hashable) -> Iterator[None]:
        with self._moved:
            left = self._left[place]
            self._moved.wait_for(lambda: all(job in left or job in self._ended for job in range(number)))
        try:
            yield
        finally:
            with self._moved:
                left.add(number)
                self._moved.notify_all()
